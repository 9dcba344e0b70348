{{- define "hyperflow.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* `hyperflow-operator` for the release `hyperflow`. 52 characters at most leave room for `-workers` and `-metrics`. */ -}}
{{- define "hyperflow.fullname" -}}
{{- $name := include "hyperflow.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (printf "%s-operator" $name) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- printf "%s-operator" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s-operator" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Cluster-scoped names hold the namespace: one release name may be used in several namespaces. */ -}}
{{- define "hyperflow.clusterName" -}}
{{- printf "%s:%s" (include "hyperflow.fullname" .) .Release.Namespace }}
{{- end }}

{{- /* As above, where a colon is not allowed. */ -}}
{{- define "hyperflow.admissionPolicy" -}}
{{- printf "%s.%s" (include "hyperflow.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "hyperflow.workersService" -}}
{{- printf "%s-workers" (include "hyperflow.fullname" .) }}
{{- end }}

{{- define "hyperflow.tlsName" -}}
{{- printf "%s.%s.svc" (include "hyperflow.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "hyperflow.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hyperflow.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* The pod of `helm test`. Without the operator's component: no Service and no budget may take it for one. */ -}}
{{- define "hyperflow.checkLabels" -}}
app.kubernetes.io/name: {{ include "hyperflow.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: check
{{- end }}

{{- define "hyperflow.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: hyperflow
{{- end }}

{{- define "hyperflow.labels" -}}
{{ include "hyperflow.commonLabels" . }}
{{ include "hyperflow.selectorLabels" . }}
{{- end }}

{{- /* Pod Security `restricted`, in its two halves. */ -}}
{{- define "hyperflow.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "hyperflow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Called with a dict of `image` and `chart`. */ -}}
{{- define "hyperflow.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}
