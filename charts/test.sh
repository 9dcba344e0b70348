#!/usr/bin/env bash
# Tests both charts without a cluster: what they render, what they refuse, what others' tools say of them, and that no copy in
# them is stale. HELM names the Helm program (several words are allowed).
# shellcheck disable=SC2317 # functions are called through `check`
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
read -ra helm <<<"${HELM:-helm}"
command -v "${helm[0]}" >/dev/null || {
    printf "charts/test.sh: no program '%s': set HELM\n" "${helm[0]}" >&2
    exit 2
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# check NAME COMMAND...: the command must succeed.
check() {
    local name=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        printf 'ok    %s\n' "$name"
    else
        printf 'FAIL  %s\n' "$name"
        sed 's/^/      /' "$work/output"
        failed=1
    fi
}

# render [ARG...]: the operator's chart, as the release `hyperflow`.
render() { "${helm[@]}" template hyperflow "$here/hyperflow" --namespace hyperflow-system "$@"; }
render_crds() { "${helm[@]}" template hyperflow-crds "$here/hyperflow-crds" "$@"; }

# count NUMBER TEXT FILE: so many lines hold the text.
count() {
    local found
    found=$(grep -cF -e "$2" "$3" || true)
    [[ $found == "$1" ]] || {
        printf '%s lines with "%s", %s wanted\n' "$found" "$2" "$1"
        return 1
    }
}

# refused TEXT COMMAND...: the command must fail and say the text.
refused() {
    local text=$1
    shift
    if "$@" >"$work/refused" 2>&1; then
        printf 'was accepted: %s\n' "$*"
        return 1
    fi
    grep -F -e "$text" "$work/refused" || {
        cat "$work/refused"
        return 1
    }
}

# kinds FILE: `kind name` of each document, sorted.
kinds() {
    awk '/^---/ { kind = "" } /^kind: / { kind = $2 } /^  name: / && kind { gsub(/"/, "", $2); print kind, $2; kind = "" }' "$1" | sort
}

# rules FILE: one line for each RBAC rule. A rule that is not written in one line a list comes out torn and matches nothing.
rules() {
    awk '
        function flush() { if (rule != "") print kind, place "/" name ":" rule; rule = "" }
        /^---/ { flush(); kind = name = place = "" }
        /^kind: / { kind = $2 }
        /^  name: / && name == "" { gsub(/"/, "", $2); name = $2 }
        /^  namespace: / { place = $2 }
        /^- apiGroups: / && kind ~ /Role$/ { flush(); sub(/^- apiGroups: /, ""); rule = " " $0; next }
        /^  (resources|resourceNames|verbs|nonResourceURLs):/ && kind ~ /Role$/ { sub(/^ *[A-Za-z]*: */, ""); rule = rule " " $0; next }
        /^ *- / && kind ~ /Role$/ { rule = rule " TORN " $0 }
        END { flush() }' "$1" | sort
}

# job_rules KIND PLACE/NAME: what serving jobs takes.
job_rules() {
    cat <<TEXT
$1 $2: [""] [configmaps] [create, get, patch]
$1 $2: [""] [pods] [create, delete, get, list, patch, watch]
$1 $2: [events.k8s.io] [events] [create, patch]
$1 $2: [hyperflow.dev] [shardjobs/finalizers] [update]
$1 $2: [hyperflow.dev] [shardjobs/status] [get, patch, update]
$1 $2: [hyperflow.dev] [shardjobs] [delete, get, list, patch, watch]
TEXT
}

# shared_rules [NAMESPACE]: what is granted in both modes, for one namespace or all of them.
shared_rules() {
    cat <<TEXT
ClusterRole /hyperflow-operator:hyperflow-system: [""] [namespaces]${1:+ [$1]} [get]
ClusterRole /hyperflow-operator:hyperflow-system: [""] [nodes] [get, list, watch]
ClusterRole /hyperflow-operator:hyperflow-system: [authentication.k8s.io] [tokenreviews] [create]
Role hyperflow-system/hyperflow-operator: [""] [secrets] [create]
Role hyperflow-system/hyperflow-operator: [""] [secrets] [hyperflow-ca] [get]
Role hyperflow-system/hyperflow-operator: [coordination.k8s.io] [leases] [create, get, update]
TEXT
}

# same_rules WANTED FILE: the rules of the rendered file are those listed in WANTED, and no others.
same_rules() { diff <(sort "$1") <(rules "$2"); }

# no_text TEXT FILE
no_text() { ! grep -nF -e "$1" "$2"; }

no_pattern() { ! grep -nE -e "$1" "$2"; }

# no_wildcard FILE: no star anywhere in a role.
no_wildcard() { ! awk '/^kind: / { kind = $2 } kind ~ /Role$/ && /^[^#]*\*/ { print; found = 1 } END { exit !found }' "$1"; }

# known_flags FILE: each flag of the rendered arguments is a field of the operator's settings.
known_flags() {
    local flag
    while read -r flag; do
        grep -q "^ *pub ${flag//-/_}:" "$root/operator/src/settings.rs" || {
            printf 'operator/src/settings.rs has no --%s\n' "$flag"
            return 1
        }
    done < <(sed -n 's/^ *- "\{0,1\}--\([a-z-]*\)=.*/\1/p' "$1")
}

# restricted FILE: what Pod Security's `restricted` asks for, and a root that is read only, for the operator and its check.
restricted() {
    local wanted
    for wanted in 'runAsNonRoot: true' 'runAsUser: 65532' 'type: RuntimeDefault' 'allowPrivilegeEscalation: false' \
        'readOnlyRootFilesystem: true' 'drop: [ALL]'; do
        count 2 "$wanted" "$1" || return 1
    done
    no_text 'hostPath' "$1" && no_text 'hostNetwork' "$1" && no_text 'privileged:' "$1"
}

# notes: what `helm install` would say, without a cluster.
notes() {
    "${helm[@]}" install hyperflow "$here/hyperflow" --namespace hyperflow-system --dry-run=client | sed -n '/^NOTES:/,$p'
}

test_versions() {
    local version chart
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
    for chart in hyperflow hyperflow-crds; do
        check "$chart has the workspace's version" grep -qx "appVersion: $version" "$here/$chart/Chart.yaml"
    done
}

# without_metadata FILE: the rendered definition without the lines that the chart adds.
without_metadata() {
    sed -e '1,2d' -e '/^  annotations:$/d' -e '/^  labels:$/d' -e '/^    helm.sh\//d' -e '/^    app.kubernetes.io\//d' "$1"
}

test_crds() {
    check "hyperflow-crds: helm lint --strict" "${helm[@]}" lint --strict "$here/hyperflow-crds"
    check "hyperflow-crds: no drift from crds/ (make crds)" \
        diff <(cd "$root/crds" && cat -- *.yaml && ls -- *.yaml) <(cd "$here/hyperflow-crds/files" && cat -- *.yaml && ls -- *.yaml)
    render_crds --set aggregateRoles=false >"$work/crds"
    check "hyperflow-crds: the definition is rendered byte for byte" diff <(cat "$root"/crds/*.yaml) <(without_metadata "$work/crds")
    check "hyperflow-crds: kept by default" count 1 'helm.sh/resource-policy: keep' "$work/crds"
    render_crds --set keep=false >"$work/crds"
    check "hyperflow-crds: not kept when told so" count 0 'helm.sh/resource-policy' "$work/crds"
    check "hyperflow-crds: no wildcard in RBAC" no_wildcard "$work/crds"
    cat >"$work/wanted" <<'TEXT'
ClusterRole /hyperflow-crds-edit: [hyperflow.dev] [shardjobs/scale] [get, patch, update]
ClusterRole /hyperflow-crds-edit: [hyperflow.dev] [shardjobs] [create, delete, deletecollection, patch, update]
ClusterRole /hyperflow-crds-view: [hyperflow.dev] [shardjobs, shardjobs/status] [get, list, watch]
TEXT
    check "hyperflow-crds: users get these rights and no others" same_rules "$work/wanted" "$work/crds"
    check "hyperflow-crds: refuses a typo" refused "'kep' not allowed" render_crds --set kep=true
}

# One of each: every value that changes which documents there are.
test_value_sets() {
    local set options
    while IFS='|' read -r set options; do
        local -a words
        read -ra words <<<"$options"
        check "hyperflow: lint, $set" "${helm[@]}" lint --strict "$here/hyperflow" --namespace hyperflow-system "${words[@]}"
        render "${words[@]}" >"$work/set" 2>&1 || true
        check "hyperflow: restricted pod, $set" restricted "$work/set"
        check "hyperflow: no wildcard in RBAC, $set" no_wildcard "$work/set"
    done <<TEXT
defaults|
one namespace|--set watchNamespace=team-a
one replica|--set replicas=1
three replicas|--set replicas=3
no election|--set leaderElect=false,replicas=1
everything|--values $here/everything.values.yaml
TEXT
}

test_rendering() {
    render >"$work/default"
    check "hyperflow: these documents and no others" diff <(kinds "$work/default") - <<'TEXT'
ClusterRole hyperflow-operator:hyperflow-system
ClusterRoleBinding hyperflow-operator:hyperflow-system
Deployment hyperflow-operator
Pod hyperflow-operator-check
PodDisruptionBudget hyperflow-operator
Role hyperflow-operator
RoleBinding hyperflow-operator
Service hyperflow-operator-metrics
Service hyperflow-operator-workers
ServiceAccount hyperflow-operator
ValidatingAdmissionPolicy hyperflow-operator.hyperflow-system
ValidatingAdmissionPolicyBinding hyperflow-operator.hyperflow-system
TEXT
    check "hyperflow: the operator is told its Service" count 1 '- --service=hyperflow-operator-workers' "$work/default"
    check "hyperflow: and its TLS name" count 1 '- --tls-name=hyperflow-operator.hyperflow-system.svc' "$work/default"
    check "hyperflow: sessions are headless" count 1 'clusterIP: None' "$work/default"
    check "hyperflow: sessions before readiness" count 1 'publishNotReadyAddresses: true' "$work/default"
    check "hyperflow: leaves a lost node in 5 s" count 2 'tolerationSeconds: 5' "$work/default"
    check "hyperflow: rolling upgrade" count 1 'type: RollingUpdate' "$work/default"

    "${helm[@]}" template other "$here/hyperflow" --namespace elsewhere >"$work/other"
    check "hyperflow: another release has other names" count 1 '- --service=other-hyperflow-operator-workers' "$work/other"
    check "hyperflow: and another TLS name" count 1 '- --tls-name=other-hyperflow-operator.elsewhere.svc' "$work/other"
    "${helm[@]}" template "$(printf 'r%.0s' {1..53})" "$here/hyperflow" --namespace n >"$work/long"
    check "hyperflow: names of the longest release fit" no_pattern '^  name: [a-z0-9-]{64}' "$work/long"

    render --values "$here/everything.values.yaml" >"$work/everything"
    check "hyperflow: a disruption budget when there are several" count 1 'kind: PodDisruptionBudget' "$work/everything"
    render --set replicas=1 >"$work/single"
    check "hyperflow: and none that keeps the only one on its node" count 0 'kind: PodDisruptionBudget' "$work/single"
    check "hyperflow: two replicas" count 1 'replicas: 2' "$work/default"
    check "hyperflow: an upgrade never has fewer than wanted" count 1 'maxUnavailable: 0' "$work/default"
    check "hyperflow: scrapes when asked" count 1 'kind: ServiceMonitor' "$work/everything"
    check "hyperflow: network policies when asked" count 2 'kind: NetworkPolicy' "$work/everything"
    # Twice: the operator, and the pod of `helm test`.
    check "hyperflow: an image by digest" count 2 "image: \"registry.example/operator@sha256:$(printf '0%.0s' {1..64})\"" "$work/everything"
    check "hyperflow: a worker image by tag" count 1 '- --worker-image=registry.example/worker:edge' "$work/everything"
    check "hyperflow: own toleration replaces ours" count 2 'key: node.kubernetes.io/not-ready' "$work/everything"
    check "hyperflow: and only that one" count 2 'tolerationSeconds: 7' "$work/everything"
    check "hyperflow: the operator has every flag it is given" known_flags "$work/everything"
    check "hyperflow: no volume for blocks by default" no_text '--blocks-volume' "$work/default"
    check "hyperflow: a rate for blocks, digit by digit" count 1 '- --blocks-bytes-per-second=50000000' "$work/default"
    check "hyperflow: a volume for blocks as JSON" \
        count 1 '- "--blocks-volume={\"persistentVolumeClaim\":{\"claimName\":\"blocks\"}}"' "$work/everything"
    check "hyperflow: blocks without a limit of their rate" count 1 '- --blocks-bytes-per-second=0' "$work/everything"
    check "hyperflow: a patient wait for lost blocks" count 1 '- --blocks-lost-seconds=300' "$work/everything"
    render --set leaderElect=false,replicas=1 >"$work/alone"
    check "hyperflow: without election never two" count 1 'type: Recreate' "$work/alone"
}

test_admission_policy() {
    render >"$work/default"
    check "hyperflow: authors are checked by default" count 1 "resource('pods').namespace(request.namespace).check('create')" "$work/default"
    check "hyperflow: in all namespaces" count 0 'namespaceSelector' "$work/default"
    render --set admissionPolicy.enabled=false >"$work/unchecked"
    check "hyperflow: and not when told so" no_text 'ValidatingAdmissionPolicy' "$work/unchecked"
    render --set watchNamespace=team-a >"$work/one"
    check "hyperflow: only where the operator serves" grep -A3 'namespaceSelector:' "$work/one"
    check "hyperflow: which is the namespace it watches" count 1 'kubernetes.io/metadata.name: team-a' "$work/one"
}

test_helm_test() {
    render >"$work/default"
    check "hyperflow: helm test asks all replicas" \
        count 1 '- hyperflow-operator-workers.hyperflow-system.svc:8080' "$work/default"
    check "hyperflow: for longer than a fail-over takes" count 1 '- --within-seconds=10' "$work/default"
    check "hyperflow: its pod is no operator" count 1 'app.kubernetes.io/component: check' "$work/default"
    check "hyperflow: and has no token" count 2 'automountServiceAccountToken: false' "$work/default"
    check "hyperflow: it runs in helm test alone" count 1 'helm.sh/hook: test' "$work/default"
}

test_rights() {
    render >"$work/default"
    { job_rules ClusterRole /hyperflow-operator:hyperflow-system && shared_rules; } >"$work/wanted"
    check "hyperflow: these rights and no others, all namespaces" same_rules "$work/wanted" "$work/default"
    render --set watchNamespace=team-a >"$work/one"
    { job_rules Role team-a/hyperflow-operator:hyperflow-system && shared_rules team-a; } >"$work/wanted"
    check "hyperflow: these rights and no others, one namespace" same_rules "$work/wanted" "$work/one"
    check "hyperflow: the operator is told the namespace" count 1 '- --watch-namespace=team-a' "$work/one"
}

test_refusals() {
    check "hyperflow: refuses a typo" refused "'leaseSecond' not allowed" render --set leaseSecond=3
    check "hyperflow: refuses a typo inside" refused "'tags' not allowed" render --set image.tags=x
    check "hyperflow: refuses a text for a number" refused 'got string, want integer' render --set-string leaseSeconds=ten
    check "hyperflow: refuses a short digest" refused 'does not match pattern' render --set image.digest=sha256:12
    check "hyperflow: refuses two without election" refused 'Set replicas to 1, or leave leaderElect on' \
        render --set leaderElect=false,replicas=2
    check "hyperflow: and so by default" refused 'Set replicas to 1' render --set leaderElect=false
    check "hyperflow: refuses a variable it sets itself" refused 'extraEnv' render --set 'extraEnv[0].name=HYPERFLOW_POD_NAME'
    check "hyperflow: refuses jobs in its own namespace" refused "must not be 'hyperflow-system'" render --set watchNamespace=hyperflow-system
    check "hyperflow: refuses two volumes for blocks" refused 'blocks/volume' \
        render --set blocks.volume.emptyDir.medium=Memory,blocks.volume.hostPath.path=/x
    check "hyperflow: refuses a hasty end for blocks" refused 'blocks/lostSeconds' render --set blocks.lostSeconds=4
    check "hyperflow: allows global" render --set global.any=thing
}

test_notes() {
    notes >"$work/notes"
    check "hyperflow: notes begin with a test" grep -xF '  helm test hyperflow --namespace hyperflow-system' "$work/notes"
    check "hyperflow: notes have a first job" grep -F 'kubectl apply --namespace default -f -' "$work/notes"
    check "hyperflow: notes wait for it" grep -F 'kubectl wait --namespace default --for=condition=Complete' "$work/notes"
    check "hyperflow: notes are shell commands" bash -n <(sed -n 's/^  //p' "$work/notes")
    check "hyperflow: notes name the missing resource" grep -F 'install the chart hyperflow-crds' "$work/notes"
    check "hyperflow: notes warn about the own namespace" grep -F 'Do not run jobs in namespace hyperflow-system' "$work/notes"
}

# tool NAME ARGUMENT...: a program whose version and checksum are in checks/go.mod and go.sum.
tool() { go -C "$here/checks" tool "$@"; }

# conforms FILE...: every document is of a known kind, and has no field that the kind does not have.
conforms() {
    # The Prometheus operator's resource is in no module of Kubernetes.
    tool kubeconform -strict -skip ServiceMonitor -schema-location "$work/schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$@"
}

# well_run FILE: kube-score finds nothing. Three of its opinions are not ours: a limit of CPU makes a leader late; images have
# a version or a digest and need not be asked for each time; replicas are kept apart by a topology spread constraint.
well_run() {
    tool kube-score score --kubernetes-version v1.35 --output-format ci --ignore-container-cpu-limit \
        --ignore-test container-image-pull-policy --ignore-test deployment-has-host-podantiaffinity "$1" >"$work/score" || {
        grep -v -e '^\[OK\]' -e '^\[SKIPPED\]' "$work/score"
        return 1
    }
}

# schemas: those of the Kubernetes whose modules the local cluster is built from, and our own.
schemas() {
    local kubernetes
    kubernetes=$(go -C "$root/e2e/cluster" mod download -json k8s.io/kubernetes | sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
    go -C "$here/checks" run . "$kubernetes/api/openapi-spec/swagger.json" "$root/crds/shardjobs.hyperflow.dev.yaml" "$work/schemas"
}

test_with_tools() {
    check "checks: gofmt and vet" bash -c "cd '$here/checks' && gofmt -l . | (! grep .) && go vet ."
    # Go would not notice that a file outside its module has changed, and would repeat what it said before.
    check "checks: values have schemas, Argo CD knows health" go -C "$here/checks" test -count=1 .
    check "checks: schemas of Kubernetes and of ShardJobs" schemas
    render --set networkPolicy.enabled=true >"$work/default.yaml"
    render --values "$here/everything.values.yaml" >"$work/everything.yaml"
    render_crds >"$work/crds.yaml"
    check "kubeconform: charts and examples" conforms "$work/default.yaml" "$work/everything.yaml" "$work/crds.yaml" "$root"/e2e/jobs/*.yaml
    sed 's/^  parallelism:/  parallelizm:/' "$root/e2e/jobs/numbers.yaml" >"$work/typo.yaml"
    check "kubeconform: a typo is found" refused "parallelizm" conforms "$work/typo.yaml"
    check "kube-score: defaults" well_run "$work/default.yaml"
    check "kube-score: everything" well_run "$work/everything.yaml"
    sed '/memory: 512Mi/d' "$work/default.yaml" >"$work/unlimited.yaml"
    check "kube-score: a missing limit is found" refused "Memory limit is not set" well_run "$work/unlimited.yaml"
}

test_scripts() {
    if command -v shellcheck >/dev/null; then
        check "scripts: shellcheck" shellcheck "$here"/*.sh
    else
        printf 'skip  scripts: shellcheck is not installed\n'
    fi
}

test_versions
test_crds
test_value_sets
test_rendering
test_admission_policy
test_helm_test
test_rights
test_refusals
test_notes
test_with_tools
test_scripts
exit "$failed"
