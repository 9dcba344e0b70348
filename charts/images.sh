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

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=charts/archive.sh
source "$root/charts/archive.sh"
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

for tool in strip readelf; do
    command -v "$tool" >/dev/null || die "'$tool' is missing: install binutils"
done

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

# image PROGRAM CONTAINERFILE
image() {
    local program=$1 file=$2
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
    is_current "$name" "$archive" "$sum" && return
    archive "$name" "$context" "$file" "$archive" "$sum" --build-arg "VERSION=$tag"
    say "its binary has $(megabytes "$binary"), stripped $(megabytes "$context/hyperflow-$program")"
}

[[ -n $binaries ]] || compile
image operator "$root/operator/Containerfile"
image worker "$root/worker-image/Containerfile"
