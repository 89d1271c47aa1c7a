{{/* The variables of each program. Empty values set no variable, so the program's default applies. */}}

{{/* One variable, unless its value is empty. Takes (list name value). */}}
{{- define "decklog.variable" -}}
{{- $value := index . 1 -}}
{{- if not (or (kindIs "invalid" $value) (and (kindIs "string" $value) (eq $value ""))) }}
- name: {{ index . 0 }}
  value: {{ if kindIs "float64" $value }}{{ $value | toJson | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* A setting whose value the program reads from a file of a Secret, unless the Secret's name is empty. Takes (list name secret key).
The paths also say what `decklog.secrets` mounts. */}}
{{- define "decklog.secretVariable" -}}
{{- if index . 1 }}
- name: {{ index . 0 }}_FILE
  value: {{ printf "/secrets/%s/%s" (index . 1) (index . 2) | quote }}
{{- end }}
{{- end -}}

{{/* The Secrets that an environment names, as one volume with only the keys that it names. Takes the environment. */}}
{{- define "decklog.secrets" -}}
{{- with regexFindAll "\"/secrets/[^\"]+\"" . -1 | uniq | sortAlpha -}}
- name: secrets
  projected:
    sources:
    {{- range . }}
    {{- $path := trimAll "\"" . | splitList "/" }}
    - secret:
        name: {{ index $path 2 }}
        items:
        - key: {{ index $path 3 }}
          path: {{ printf "%s/%s" (index $path 2) (index $path 3) }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of a container. Takes (list environment more), where `more` is a list of volumeMounts. */}}
{{- define "decklog.mounts" -}}
{{- $secrets := include "decklog.secrets" (index . 0) -}}
{{- if or $secrets (index . 1) -}}
volumeMounts:
{{- if $secrets }}
- name: secrets
  mountPath: /secrets
  readOnly: true
{{- end }}
{{- with index . 1 }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of a pod. Takes (list environment more), where `more` is a list of volumes. */}}
{{- define "decklog.volumes" -}}
{{- $secrets := include "decklog.secrets" (index . 0) -}}
{{- if or $secrets (index . 1) -}}
volumes:
{{- with $secrets }}
{{ . }}
{{- end }}
{{- with index . 1 }}
{{ toYaml . }}
{{- end }}
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
{{- if .existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS  # OpenTelemetry's SDK reads no files
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .keys.headers }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The common variables of API and workers. Each adds the DSN of its own least role. */}}
{{- define "decklog.service" -}}
{{- include "decklog.backends" . }}
{{- include "decklog.variable" (list "DECKLOG_DATABASE_POOL_MAX" .Values.database.poolMax) }}
{{- include "decklog.secretVariable" (list "DECKLOG_IDENTITY_FINGERPRINT_KEY" (include "decklog.identitySecret" .) .Values.identity.keys.fingerprintKey) }}
{{- include "decklog.variable" (list "DECKLOG_API_HOST" .Values.listenAddress) }}
{{- include "decklog.tracing" . }}
{{- end -}}

{{/* Whether databases of other hosts need no verified certificate. */}}
{{- define "decklog.unverified" -}}
{{- if or .Values.database.allowUnverified .Values.dev.enabled }}
{{- include "decklog.variable" (list "DECKLOG_DATABASE_ALLOW_UNVERIFIED" "true") }}
{{- end }}
{{- end -}}

{{- define "decklog.ownerDsn" -}}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_OWNER_DSN" (include "decklog.databaseSecret" .) .Values.database.keys.ownerDsn) }}
{{- end -}}

{{/* The environment of the API. */}}
{{- define "decklog.apiEnvironment" -}}
{{- with .Values.api }}
{{- include "decklog.unverified" $ }}
{{- include "decklog.service" $ }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_DSN" (include "decklog.databaseSecret" $) $.Values.database.keys.dsn) }}
{{- if eq $.Values.tenantsOwner "decklog" }}
{{- include "decklog.variable" (list "DECKLOG_TENANTS_OWNER" "decklog") }}
{{- include "decklog.ownerDsn" $ }}
{{- end }}
{{- include "decklog.variable" (list "DECKLOG_API_PORT" .port) }}
{{- include "decklog.variable" (list "DECKLOG_API_METRICS_PORT" $.Values.metrics.port) }}
{{- include "decklog.variable" (list "DECKLOG_API_WAITING_REQUESTS_MAX" .waitingRequestsMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_WAITING_BYTES_MAX" .waitingBytesMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_BODY_BYTES_MAX" .bodyBytesMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_READING_BYTES_MAX" .readingBytesMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_STREAMS_MAX" .streamsMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_SEARCH_TIMEOUT" .searchTimeout) }}
{{- include "decklog.variable" (list "DECKLOG_API_CHECKED_SHARE" .checkedShare) }}
{{- include "decklog.variable" (list "DECKLOG_API_TRUSTED_PROXIES" (join "," .trustedProxies)) }}
{{- with .connections }}
{{- include "decklog.variable" (list "DECKLOG_API_CONNECTIONS_MAX" .max) }}
{{- include "decklog.variable" (list "DECKLOG_API_CONNECTIONS_PER_ADDRESS_MAX" .perAddressMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_HEADER_BYTES_MAX" .headerBytesMax) }}
{{- include "decklog.variable" (list "DECKLOG_API_HEADER_TIMEOUT" .headerTimeout) }}
{{- include "decklog.variable" (list "DECKLOG_API_IDLE_TIMEOUT" .idleTimeout) }}
{{- include "decklog.variable" (list "DECKLOG_API_RECEIVE_TIMEOUT" .receiveTimeout) }}
{{- include "decklog.variable" (list "DECKLOG_API_SEND_TIMEOUT" .sendTimeout) }}
{{- include "decklog.variable" (list "DECKLOG_API_TRANSFER_RATE_MIN" .transferRateMin) }}
{{- end }}
{{- if .tls.existingSecret }}
{{- include "decklog.variable" (list "DECKLOG_API_TLS_CERTIFICATE_FILE" (printf "/etc/decklog-tls/%s" .tls.keys.certificate)) }}
{{- include "decklog.variable" (list "DECKLOG_API_TLS_KEY_FILE" (printf "/etc/decklog-tls/%s" .tls.keys.key)) }}
{{- end }}
{{- if $.Values.tracing.endpoint }}
{{- include "decklog.variable" (list "OTEL_TRACES_SAMPLER" $.Values.tracing.sampler) }}
{{- include "decklog.variable" (list "OTEL_TRACES_SAMPLER_ARG" $.Values.tracing.samplerArg) }}
{{- end }}
{{- if $.Values.identity.issuers }}
{{- include "decklog.variable" (list "DECKLOG_IDENTITY_ISSUERS_FILE" "/etc/decklog/issuers.json") }}
{{- end }}
{{- include "decklog.variable" (list "DECKLOG_IDENTITY_TOKEN_SECONDS_MAX" $.Values.identity.jwtSecondsMax) }}
{{- include "decklog.variable" (list "DECKLOG_IDENTITY_UNREACHABLE_SECONDS_MAX" $.Values.identity.unreachableSecondsMax) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_ENABLED" $.Values.board.enabled) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_SESSION_IDLE_SECONDS" $.Values.board.sessionIdleSeconds) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_SESSION_SECONDS" $.Values.board.sessionSeconds) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_FRAME_ANCESTORS" (join " " $.Values.board.frameAncestors)) }}
{{- with $.Values.board.oidc }}
{{- if .issuer }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_OIDC_ISSUER" .issuer) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_OIDC_CLIENT_ID" .clientId) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_OIDC_SCOPES" .scopes) }}
{{- include "decklog.variable" (list "DECKLOG_BOARD_OIDC_NAME" .name) }}
{{- include "decklog.secretVariable" (list "DECKLOG_BOARD_OIDC_CLIENT_SECRET" .existingSecret .keys.clientSecret) }}
{{- end }}
{{- end }}
{{- with $.Values.ask.model }}
{{- if .url }}
{{- include "decklog.variable" (list "DECKLOG_ASK_MODEL_URL" .url) }}
{{- include "decklog.variable" (list "DECKLOG_ASK_MODEL" .name) }}
{{- include "decklog.variable" (list "DECKLOG_ASK_MODEL_SECONDS" .seconds) }}
{{- include "decklog.secretVariable" (list "DECKLOG_ASK_MODEL_KEY" .existingSecret .keys.key) }}
{{- end }}
{{- end }}
{{- include "decklog.variable" (list "DECKLOG_ASK_CONVERSATION_DAYS" $.Values.ask.conversationDays) }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The environment of the workers. */}}
{{- define "decklog.workerEnvironment" -}}
{{- with .Values.worker }}
{{- include "decklog.unverified" $ }}
{{- include "decklog.service" $ }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_DSN" (include "decklog.databaseSecret" $) $.Values.database.keys.workerDsn) }}
{{- include "decklog.archive" $ }}
{{- include "decklog.variable" (list "DECKLOG_WORKER_METRICS_PORT" $.Values.metrics.port) }}
{{- include "decklog.variable" (list "DECKLOG_WORKER_SWEEP_SECONDS" .sweepSeconds) }}
{{- include "decklog.variable" (list "DECKLOG_WORKER_POLLERS" .pollers) }}
{{- include "decklog.variable" (list "DECKLOG_WORKER_CONCURRENCY" .concurrency) }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The environment of the operator. */}}
{{- define "decklog.operatorEnvironment" -}}
{{- with .Values.operator }}
{{- include "decklog.unverified" $ }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_HEALTH_HOST" $.Values.listenAddress) }}
- name: DECKLOG_OPERATOR_HEALTH_PORT
  value: "8080"
{{- if $.Values.api.enabled }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_API_URL" (default (include "decklog.apiUrl" $) .apiUrl)) }}
{{- else }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_API_URL" .apiUrl) }}
{{- end }}
{{- if or .selector (ne (include "decklog.operator" $) "decklog-operator") }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_LEASE_NAME" (include "decklog.operator" $)) }}
{{- end }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_SELECTOR" .selector) }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_LEASE_SECONDS" .leaseSeconds) }}
{{- include "decklog.variable" (list "DECKLOG_OPERATOR_RESYNC_SECONDS" .resyncSeconds) }}
{{- include "decklog.ownerDsn" $ }}
{{- include "decklog.backends" $ }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The environment of the migration. */}}
{{- define "decklog.migrateEnvironment" -}}
{{- with .Values.migrate }}
{{- include "decklog.unverified" $ }}
{{- include "decklog.variable" (list "DECKLOG_LOG_FORMAT" $.Values.logFormat) }}
{{- include "decklog.ownerDsn" $ }}
{{- if or .bootstrap $.Values.dev.enabled }}
{{- $secret := include "decklog.databaseSecret" $ }}
{{- with $.Values.database }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_ADMIN_DSN" $secret .keys.adminDsn) }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_SERVICE_PASSWORD" $secret .keys.servicePassword) }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_WORKER_PASSWORD" $secret .keys.workerPassword) }}
{{- include "decklog.secretVariable" (list "DECKLOG_DATABASE_OWNER_PASSWORD" $secret .keys.ownerPassword) }}
{{- end }}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}
