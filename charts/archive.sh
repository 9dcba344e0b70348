# shellcheck shell=bash
# Sourced by the scripts that make images and pass them on. They define `die` and `say`.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

megabytes() { awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }

# Storage of its own, thrown away: nothing is left in the machine's image store, and nothing there is used.
with_buildah() {
    buildah --storage-driver=vfs --root "$work/storage" --runroot "$work/run" "$@"
}

# build NAME CONTEXT CONTAINERFILE ARCHIVE BUILDER [ARGUMENT...]
build() {
    local name=$1 context=$2 file=$3 archive=$4 builder=$5
    shift 5
    case $builder in
    buildah)
        # A fixed time stamp: the same files give the same image, byte for byte.
        with_buildah bud --quiet --isolation=chroot --timestamp 0 "$@" -f "$file" -t "$name" "$context" &&
            with_buildah push --quiet "$name" "docker-archive:$archive:$name"
        ;;
    podman)
        podman build --quiet --timestamp 0 "$@" -f "$file" -t "$name" "$context" &&
            podman save --quiet --format docker-archive -o "$archive" "$name"
        ;;
    docker)
        docker build --quiet "$@" -f "$file" -t "$name" "$context" &&
            docker save -o "$archive" "$name"
        ;;
    esac >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "$builder could not build $name"
    }
}

# Whether the archive was made of what has this checksum: is_current NAME ARCHIVE SUM
is_current() {
    [[ -f $2 && -f $2.sha256 && $(<"$2.sha256") == "$3" ]] || return
    say "$1 is unchanged ($(megabytes "$2"), $2)"
}

# Builds an image and writes it as a docker-archive: archive NAME CONTEXT CONTAINERFILE ARCHIVE SUM [ARGUMENT...]
archive() {
    local name=$1 context=$2 file=$3 archive=$4 sum=$5 started=$SECONDS builder='' candidate
    shift 5
    for candidate in buildah podman docker; do
        if command -v "$candidate" >/dev/null; then
            builder=$candidate
            break
        fi
    done
    [[ -n $builder ]] || die "no image builder: install buildah, podman or docker"
    # Aside and renamed, the checksum last: a run that is stopped half-way leaves nothing that looks finished.
    rm -f "$archive.sha256" "$archive.new"
    build "$name" "$context" "$file" "$archive.new" "$builder" "$@"
    mv "$archive.new" "$archive"
    printf '%s\n' "$sum" >"$archive.sha256"
    say "$name built with $builder in $((SECONDS - started)) s: $archive $(megabytes "$archive")"
}

# push_archive ARCHIVE REFERENCE
push_archive() {
    local image
    command -v buildah >/dev/null || die "buildah is missing: it pushes the images"
    image=$(with_buildah pull --quiet "docker-archive:$1")
    with_buildah push --quiet "$image" "docker://$2"
}
