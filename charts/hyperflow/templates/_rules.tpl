{{- /* What serving ShardJobs takes, wherever they are. No Secrets: workers read the user's, the operator never does. */ -}}
{{- define "hyperflow.jobRules" -}}
# `patch` is for our finalizer: the operator never writes a spec. `delete` is for `spec.ttlSecondsAfterFinished`.
- apiGroups: [hyperflow.dev]
  resources: [shardjobs]
  verbs: [delete, get, list, patch, watch]
- apiGroups: [hyperflow.dev]
  resources: [shardjobs/status]
  verbs: [get, patch, update]
# A pod that blocks the deletion of its owner may be made only by who may set the owner's finalizers.
- apiGroups: [hyperflow.dev]
  resources: [shardjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [create, delete, get, list, patch, watch]
# The CA certificate, one ConfigMap for each job.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, get, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- /* What belongs to no namespace, and is needed wherever jobs are. */ -}}
{{- define "hyperflow.clusterRules" -}}
# Who a worker is.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
# Why a worker is lost. Without this right the operator works on, and says less.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch]
# Whether a job that is being deleted goes together with its namespace.
- apiGroups: [""]
  resources: [namespaces]
  {{- with .Values.watchNamespace }}
  resourceNames: [{{ . }}]
  {{- end }}
  verbs: [get]
{{- end }}
