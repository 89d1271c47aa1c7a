{{/* Names and labels. Objects are named <fullname>-<component>; a release named like the chart is not repeated. */}}

{{- define "decklog.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "decklog.fullname" -}}
{{- $name := include "decklog.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of the operator's ServiceAccount, roles and Lease. */}}
{{- define "decklog.operator" -}}
{{- include "decklog.fullname" . }}-operator
{{- end -}}

{{/* Labels that select the pods of a component. Takes (list root component). */}}
{{- define "decklog.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "decklog.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Takes (list root component). */}}
{{- define "decklog.labels" -}}
{{- $root := index . 0 -}}
{{ include "decklog.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image. Takes (list root image). */}}
{{- define "decklog.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* The scheme of the API's address, and the name of its port. */}}
{{- define "decklog.apiScheme" -}}
{{ ternary "https" "http" (ne .Values.api.tls.existingSecret "") }}
{{- end -}}

{{- define "decklog.apiUrl" -}}
{{ include "decklog.apiScheme" . }}://{{ include "decklog.fullname" . }}-api.{{ .Release.Namespace }}.svc:{{ .Values.api.port }}
{{- end -}}
