#!/usr/bin/env bash
# Copies crds/ into the hyperflow-crds chart: Helm cannot read files outside a chart. charts/test.sh fails while they differ.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rm -f "$root"/charts/hyperflow-crds/files/*.yaml
cp "$root"/crds/*.yaml "$root/charts/hyperflow-crds/files/"
printf 'charts/hyperflow-crds/files: %s\n' "$(cd "$root/crds" && echo ./*.yaml)"
