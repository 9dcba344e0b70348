{{- /* What serving ShardJobs takes, wherever they are. No Secrets: workers read the user's, the operator never does. */ -}}
{{- define "hyperflow.jobRules" -}}
- apiGroups: [hyperflow.dev]
  resources: [shardjobs]
  verbs: [get, list, watch]
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

{{- /* Who a worker is. A TokenReview belongs to no namespace. */ -}}
{{- define "hyperflow.identityRules" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}
