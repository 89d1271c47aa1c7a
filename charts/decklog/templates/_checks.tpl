{{/* Reject combinations of values that a schema cannot express. Each message says what to do. */}}

{{- define "decklog.checked" -}}
{{- if and (eq .Values.tenantsOwner "decklog") .Values.operator.enabled -}}
{{- fail "tenantsOwner is decklog, so the API creates tenants: set operator.enabled to false, or tenantsOwner to kubernetes." -}}
{{- end -}}
{{- range $component := list "operator" "api" "worker" "migrate" -}}
{{- $values := index $.Values $component -}}
{{- if and $values.enabled (not (include "decklog.databaseSecret" $)) (not $values.extraEnvFrom) -}}
{{- fail (printf "%s has no database: create a Secret with its address and set database.existingSecret to its name." $component) -}}
{{- end -}}
{{- end -}}
{{- range $component := list "api" "worker" -}}
{{- $values := index $.Values $component -}}
{{- if and $values.enabled (not (include "decklog.identitySecret" $)) (not $values.extraEnvFrom) -}}
{{- fail (printf "%s has no fingerprint key: create a Secret with 32 random characters and set identity.existingSecret to its name." $component) -}}
{{- end -}}
{{- end -}}
{{- if .Values.dev.enabled -}}
{{- with .Values -}}
{{- if or .database.existingSecret .identity.existingSecret .search.url .search.existingSecret .queue.enabled .archive.bucket -}}
{{- fail "dev.enabled deploys its own backends and passwords: do not set database.existingSecret, identity.existingSecret, search, queue or archive, or set dev.enabled to false." -}}
{{- end -}}
{{- end -}}
{{- else if .Values.dev.writableRoot -}}
{{- fail "dev.writableRoot is for live update and requires dev.enabled." -}}
{{- end -}}
{{- if and .Values.worker.autoscaling.enabled .Values.worker.keda.enabled -}}
{{- fail "worker.autoscaling and worker.keda both scale the workers: enable one of them." -}}
{{- end -}}
{{- if and .Values.worker.keda.enabled (not .Values.worker.keda.prometheusAddress) -}}
{{- fail "worker.keda.enabled needs worker.keda.prometheusAddress: KEDA reads the number of unprocessed records from Prometheus." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts: a rule without a host would match every host name." -}}
{{- end -}}
{{- if and .Values.ingress.certManager.issuer .Values.ingress.certManager.clusterIssuer -}}
{{- fail "ingress.certManager has both issuer and clusterIssuer: set one of them." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: an HTTPRoute must name its Gateway." -}}
{{- end -}}
{{- if and .Values.httpRoute.envoyGateway.enabled (not .Values.httpRoute.enabled) -}}
{{- fail "httpRoute.envoyGateway.enabled needs httpRoute.enabled: its policies target HTTPRoutes." -}}
{{- end -}}
{{- if and .Values.httpProxy.enabled (not .Values.httpProxy.host) -}}
{{- fail "httpProxy.enabled needs httpProxy.host." -}}
{{- end -}}
{{- if le (int .Values.api.terminationGracePeriodSeconds) (int .Values.api.drainSeconds) -}}
{{- fail "api.terminationGracePeriodSeconds must be longer than api.drainSeconds, or open requests are cut off." -}}
{{- end -}}
{{- end -}}
