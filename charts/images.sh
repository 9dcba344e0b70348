#!/usr/bin/env bash
# Builds both programs and their images, and writes the images as docker-archives.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: charts/images.sh [--profile dev|release] [--out DIR] [--tag TAG] [--binaries DIR]

Writes DIR/operator.tar (hyperflow.dev/operator:TAG) and DIR/worker.tar (hyperflow.dev/worker:TAG).
An image is not built again while its binary, its Containerfile and the tag are the same.

  --profile dev|release  cargo profile                       (default: dev)
  --out DIR              where the archives go               (default: target/images)
  --tag TAG              tag of both images                  (default: the workspace's version)
  --binaries DIR         take hyperflow-{operator,worker} from here instead of building them
TEXT
}

die() {
    printf 'images: %s\n' "$1" >&2
    exit 1
}

say() { printf 'images: %s\n' "$*"; }

megabytes() { awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
profile=dev
out=$root/target/images
tag=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
binaries=

while (($#)); do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --profile | --out | --tag | --binaries)
        [[ -n ${2-} ]] || die "$1 needs a value"
        case $1 in
        --profile) profile=$2 ;;
        --out) out=$2 ;;
        --tag) tag=$2 ;;
        --binaries) binaries=$2 ;;
        esac
        shift 2
        ;;
    *)
        usage >&2
        die "unknown argument '$1'"
        ;;
    esac
done
[[ $profile == dev || $profile == release ]] || die "--profile must be 'dev' or 'release', not '$profile'"
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ ]] || die "--tag '$tag' is not an image tag"

builder=
for candidate in buildah podman docker; do
    if command -v "$candidate" >/dev/null; then
        builder=$candidate
        break
    fi
done
[[ -n $builder ]] || die "no image builder: install buildah, podman or docker"
for tool in strip readelf; do
    command -v "$tool" >/dev/null || die "'$tool' is missing: install binutils"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)

compile() {
    local started=$SECONDS folder=debug
    [[ $profile == release ]] && folder=release
    # The whole workspace, as the tests build it: another selection would compile the dependencies again.
    (cd "$root" && cargo build --quiet --locked --profile "$profile" --workspace --bins)
    # .cargo/config.toml names the host as the target, so that it can ask for a static binary.
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$root/$target
    binaries=$target/$(rustc --print host-tuple)/$folder
    say "programs built (profile $profile) in $((SECONDS - started)) s"
}

# Storage of its own, thrown away: nothing is left in the machine's image store, and nothing there is used.
with_buildah() {
    buildah --storage-driver=vfs --root "$work/storage" --runroot "$work/run" "$@"
}

# build NAME CONTEXT CONTAINERFILE ARCHIVE
build() {
    local name=$1 context=$2 file=$3 archive=$4
    case $builder in
    buildah)
        # A fixed time stamp: the same binary gives the same image, byte for byte.
        with_buildah bud --quiet --isolation=chroot --timestamp 0 --build-arg "VERSION=$tag" -f "$file" -t "$name" "$context" &&
            with_buildah push --quiet "$name" "docker-archive:$archive:$name"
        ;;
    podman)
        podman build --quiet --timestamp 0 --build-arg "VERSION=$tag" -f "$file" -t "$name" "$context" &&
            podman save --quiet --format docker-archive -o "$archive" "$name"
        ;;
    docker)
        docker build --quiet --build-arg "VERSION=$tag" -f "$file" -t "$name" "$context" &&
            docker save -o "$archive" "$name"
        ;;
    esac >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "$builder could not build $name"
    }
}

# image PROGRAM CONTAINERFILE
image() {
    local program=$1 file=$2 started=$SECONDS
    local binary=$binaries/hyperflow-$program name=hyperflow.dev/$program:$tag archive=$out/$program.tar
    local context=$work/$program sum
    [[ -f $binary ]] || die "no binary at '$binary'"
    mkdir "$context"
    strip --strip-debug -o "$context/hyperflow-$program" "$binary"
    chmod 0755 "$context/hyperflow-$program"
    if readelf --program-headers "$context/hyperflow-$program" | grep INTERP >/dev/null; then
        die "'$binary' is not static: it cannot run in an empty image"
    fi
    sum=$({ printf '%s\n' "$name"; cat "$file" "$context/hyperflow-$program"; } | sha256sum)
    if [[ -f $archive && -f $archive.sha256 && $(<"$archive.sha256") == "$sum" ]]; then
        say "$name is unchanged ($(megabytes "$archive"), $archive)"
        return
    fi
    # Aside and renamed, the checksum last: a run that is stopped half-way leaves nothing that looks finished.
    rm -f "$archive.sha256" "$archive.new"
    build "$name" "$context" "$file" "$archive.new"
    mv "$archive.new" "$archive"
    printf '%s\n' "$sum" >"$archive.sha256"
    say "$name built with $builder in $((SECONDS - started)) s: binary $(megabytes "$binary")," \
        "stripped $(megabytes "$context/hyperflow-$program"), $archive $(megabytes "$archive")"
}

[[ -n $binaries ]] || compile
image operator "$root/operator/Containerfile"
image worker "$root/worker-image/Containerfile"
