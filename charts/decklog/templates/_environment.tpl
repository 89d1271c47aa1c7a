{{/* The variables of each program. Empty values set no variable, so the program's default applies. */}}

{{/* One variable, unless its value is empty. Takes (list name value). */}}
{{- define "decklog.variable" -}}
{{- $value := index . 1 -}}
{{- if not (or (kindIs "invalid" $value) (and (kindIs "string" $value) (eq $value ""))) }}
- name: {{ index . 0 }}
  value: {{ if kindIs "float64" $value }}{{ $value | toJson | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* One variable from a Secret, unless its name is empty. Takes (list name secret key). */}}
{{- define "decklog.secretVariable" -}}
{{- if index . 1 }}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end }}
{{- end -}}

{{/* Addresses and name prefixes of OpenSearch and SQS, for all programs that use them. */}}
{{- define "decklog.backends" -}}
{{- include "decklog.variable" (list "DECKLOG_PREFIX" .Values.prefix) }}
{{- include "decklog.variable" (list "DECKLOG_CELL" .Values.cell) }}
{{- if ne .Values.logFormat "json" }}
{{- include "decklog.variable" (list "DECKLOG_LOG_FORMAT" .Values.logFormat) }}
{{- end }}
{{- if .Values.dev.enabled }}
{{- include "decklog.variable" (list "DECKLOG_SEARCH_URL" (printf "http://%s" (include "decklog.devAddress" (list . "opensearch")))) }}
{{- include "decklog.variable" (list "DECKLOG_SEARCH_REPLICAS" (default 0 .Values.search.replicas)) }}
{{- end }}
{{- with .Values.search }}
{{- if not $.Values.dev.enabled }}
{{- include "decklog.variable" (list "DECKLOG_SEARCH_URL" .url) }}
{{- include "decklog.variable" (list "DECKLOG_SEARCH_REPLICAS" .replicas) }}
{{- end }}
{{- include "decklog.secretVariable" (list "DECKLOG_SEARCH_USER" .existingSecret .keys.user) }}
{{- include "decklog.secretVariable" (list "DECKLOG_SEARCH_PASSWORD" .existingSecret .keys.password) }}
{{- end }}
{{- with .Values.queue }}
{{- if or .enabled $.Values.dev.enabled }}
{{- $endpoint := .endpointUrl }}
{{- if $.Values.dev.enabled }}{{ $endpoint = printf "http://%s" (include "decklog.devAddress" (list $ "elasticmq")) }}{{ end }}
{{- include "decklog.variable" (list "DECKLOG_QUEUE_ENABLED" "true") }}
{{- include "decklog.variable" (list "DECKLOG_QUEUE_ENDPOINT_URL" $endpoint) }}
{{- include "decklog.variable" (list "DECKLOG_QUEUE_REGION" .region) }}
{{- include "decklog.secretVariable" (list "DECKLOG_QUEUE_ACCESS_KEY_ID" (include "decklog.queueSecret" $) .keys.accessKeyId) }}
{{- include "decklog.secretVariable" (list "DECKLOG_QUEUE_SECRET_ACCESS_KEY" (include "decklog.queueSecret" $) .keys.secretAccessKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The archive of deleted tenants, for workers only. */}}
{{- define "decklog.archive" -}}
{{- if .Values.dev.enabled }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_BUCKET" "decklog") }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_ENDPOINT_URL" (printf "http://%s" (include "decklog.devAddress" (list . "s3")))) }}
{{- include "decklog.secretVariable" (list "DECKLOG_ARCHIVE_ACCESS_KEY_ID" (include "decklog.dev" .) "s3-access-key-id") }}
{{- include "decklog.secretVariable" (list "DECKLOG_ARCHIVE_SECRET_ACCESS_KEY" (include "decklog.dev" .) "s3-secret-access-key") }}
{{- end }}
{{- with .Values.archive }}
{{- if .bucket }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_BUCKET" .bucket) }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_PREFIX" .prefix) }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_ENDPOINT_URL" .endpointUrl) }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_REGION" .region) }}
{{- include "decklog.variable" (list "DECKLOG_ARCHIVE_LOCK_MODE" .lockMode) }}
{{- include "decklog.secretVariable" (list "DECKLOG_ARCHIVE_ACCESS_KEY_ID" .existingSecret .keys.accessKeyId) }}
{{- include "decklog.secretVariable" (list "DECKLOG_ARCHIVE_SECRET_ACCESS_KEY" .existingSecret .keys.secretAccessKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The trace collector, for API and workers. Only the API gets the sampler, because one batch of a worker serves many requests. */}}
{{- define "decklog.tracing" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
{{- include "decklog.variable" (list "OTEL_EXPORTER_OTLP_ENDPOINT" .endpoint) }}
{{- include "decklog.secretVariable" (list "OTEL_EXPORTER_OTLP_HEADERS" .existingSecret .keys.headers) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The common variables of API and workers: the least database role. */}}
{{- define "decklog.service" -}}
{{- include "decklog.backends" . }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_DSN" (include "decklog.databaseSecret" .) .Values.database.keys.dsn) }}
{{- include "decklog.variable" (list "DECKLOG_DATABASE_POOL_MAX" .Values.database.poolMax) }}
{{- include "decklog.secretVariable" (list "DECKLOG_IDENTITY_FINGERPRINT_KEY" (include "decklog.identitySecret" .) .Values.identity.keys.fingerprintKey) }}
{{- include "decklog.variable" (list "DECKLOG_API_HOST" .Values.listenAddress) }}
{{- include "decklog.tracing" . }}
{{- end -}}

{{- define "decklog.ownerDsn" -}}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_OWNER_DSN" (include "decklog.databaseSecret" .) .Values.database.keys.ownerDsn) }}
{{- end -}}
