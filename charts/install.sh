#!/usr/bin/env bash
# Installs both charts, with images built here, into the local cluster or the current kube context.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: charts/install.sh [--cluster TOOL] [--images DIR] [--registry PREFIX] [--namespace NAME] [HELM ARGUMENT...]

  --cluster TOOL     the tool that made the local cluster: images are loaded into its nodes (default: none)
  --images DIR       where charts/images.sh put the archives                               (default: target/images)
  --registry PREFIX  push the images to PREFIX/operator and PREFIX/worker and install from there
  --namespace NAME   where the operator lives                                              (default: hyperflow-system)

Without --cluster and --registry the images must be on the nodes already. More arguments go to `helm upgrade --install`.
TEXT
}

die() {
    printf 'install: %s\n' "$1" >&2
    exit 1
}

say() { printf 'install: %s\n' "$*"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=charts/archive.sh
source "$root/charts/archive.sh"
images=$root/target/images
cluster='' registry='' namespace=hyperflow-system
while (($#)); do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --cluster | --images | --registry | --namespace)
        [[ -n ${2-} ]] || die "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) break ;;
    esac
done
tag=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
for program in operator worker; do
    [[ -f $images/$program.tar ]] || die "no $images/$program.tar: run 'make images' first"
done
# The tag stays the same from build to build: what the pods run is named by content, so that a new build rolls out.
build=$(sha256sum "$images/operator.tar" "$images/worker.tar" | sha256sum | cut -c1-16)
values=(--set-string "podAnnotations.hyperflow\.dev/build=$build")

if [[ -n $cluster ]]; then
    "$cluster" load-image "hyperflow.dev/operator:$tag" "$images/operator.tar" \
        "hyperflow.dev/worker:$tag" "$images/worker.tar"
    helm=("$cluster" helm)
    # All nodes are one machine: nothing is gained by copying slowly, and who breaks one does not want to wait a minute.
    values+=(--set blocks.bytesPerSecond=0 --set blocks.lostSeconds=30)
else
    command -v helm >/dev/null || die "helm is missing"
    helm=(helm)
fi
if [[ -n $registry ]]; then
    for program in operator worker; do
        push_archive "$images/$program.tar" "$registry/$program:$tag"
    done
    values+=(--set "image.repository=$registry/operator" --set "workerImage.repository=$registry/worker")
fi

# A definition that kubectl applied before becomes the chart's.
"${helm[@]}" upgrade --install hyperflow-crds "$root/charts/hyperflow-crds" \
    --namespace "$namespace" --create-namespace --take-ownership --force-conflicts --wait >/dev/null
"${helm[@]}" upgrade --install hyperflow "$root/charts/hyperflow" \
    --namespace "$namespace" --wait --timeout 120s "${values[@]}" "$@" >/dev/null
say "hyperflow $tag is running in namespace $namespace"
