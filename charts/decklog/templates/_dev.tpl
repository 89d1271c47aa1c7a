{{/* The backends of dev.enabled, and their addresses for other templates. */}}

{{/* Names of their objects, and of the Secret with the random values. */}}
{{- define "decklog.dev" -}}
{{- include "decklog.fullname" . }}-dev
{{- end -}}

{{/* The ports of the backends. */}}
{{- define "decklog.devPorts" -}}
timescale: 5432
opensearch: 9200
elasticmq: 9324
s3: 7070
{{- end -}}

{{/* The address of a backend. Takes (list root backend). */}}
{{- define "decklog.devAddress" -}}
{{- $root := index . 0 -}}
{{- include "decklog.dev" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc:{{ index (include "decklog.devPorts" $root | fromYaml) (index . 1) }}
{{- end -}}

{{/* The peers of a backend, in the form of the egress values. Takes (list root backend). */}}
{{- define "decklog.devPeer" -}}
{{- $root := index . 0 -}}
port: {{ index (include "decklog.devPorts" $root | fromYaml) (index . 1) }}
to:
- podSelector:
    matchLabels:
      {{- include "decklog.selector" (list $root (printf "dev-%s" (index . 1))) | nindent 6 }}
{{- end -}}

{{/* The Secrets that programs read: those of the values, or the generated one. */}}
{{- define "decklog.databaseSecret" -}}
{{- if .Values.dev.enabled }}{{ include "decklog.dev" . }}{{ else }}{{ .Values.database.existingSecret }}{{ end -}}
{{- end -}}

{{- define "decklog.identitySecret" -}}
{{- if .Values.dev.enabled }}{{ include "decklog.dev" . }}{{ else }}{{ .Values.identity.existingSecret }}{{ end -}}
{{- end -}}

{{- define "decklog.queueSecret" -}}
{{- if .Values.dev.enabled }}{{ include "decklog.dev" . }}{{ else }}{{ .Values.queue.existingSecret }}{{ end -}}
{{- end -}}

{{/* An existing value of a Secret, or else a random one. Takes (list data key). */}}
{{- define "decklog.devKept" -}}
{{- $found := index (index . 0) (index . 1) -}}
{{- if $found }}{{ b64dec $found }}{{ else }}{{ randAlphaNum 40 }}{{ end -}}
{{- end -}}

{{/* The common part of the backends' pods: restricted, but with writable roots. Takes (list root backend user). */}}
{{- define "decklog.devPod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 2 }}
  runAsGroup: {{ index . 2 }}
  fsGroup: {{ index . 2 }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* The common part of the backends' containers. Takes (list root backend memory). */}}
{{- define "decklog.devContainer" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
image: {{ index $root.Values.dev.images $name }}
imagePullPolicy: IfNotPresent
ports:
- name: {{ $name }}
  containerPort: {{ index (include "decklog.devPorts" $root | fromYaml) $name }}
resources:
  requests: {cpu: 50m, memory: {{ index . 2 }}}
  limits: {memory: {{ index . 2 }}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop:
    - ALL
{{- end -}}

{{/* A volume claim that uninstalling the release deletes. Takes (list root name). */}}
{{- define "decklog.devClaim" -}}
- metadata:
    name: {{ index . 1 }}
  spec:
    accessModes:
    - ReadWriteOnce
    resources:
      requests:
        storage: {{ (index . 0).Values.dev.storageSize }}
{{- end -}}

{{/* The start of a workload with one pod, up to the pod's spec. Takes (list root backend kind user). */}}
{{- define "decklog.devWorkload" -}}
{{- $root := index . 0 -}}
{{- $component := printf "dev-%s" (index . 1) -}}
apiVersion: apps/v1
kind: {{ index . 2 }}
metadata:
  name: {{ include "decklog.dev" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "decklog.labels" (list $root $component) | nindent 4 }}
spec:
  replicas: 1
  {{- if eq (index . 2) "StatefulSet" }}
  serviceName: {{ include "decklog.dev" $root }}-{{ index . 1 }}
  # The data is deleted with the release, because the next release has other passwords.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Delete
    whenScaled: Retain
  {{- end }}
  selector:
    matchLabels:
      {{- include "decklog.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "decklog.labels" (list $root $component) | nindent 8 }}
    spec:
      {{- include "decklog.devPod" (list $root (index . 1) (index . 3)) | nindent 6 }}
{{- end -}}
