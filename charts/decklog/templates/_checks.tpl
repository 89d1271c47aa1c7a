{{/* What no schema can say: values that do not go together are refused, with what to do. */}}

{{- define "decklog.checked" -}}
{{- if and (eq .Values.tenantsOwner "decklog") .Values.operator.enabled -}}
{{- fail "tenantsOwner is decklog, so the API makes the tenants: set operator.enabled to false, or leave tenantsOwner at kubernetes." -}}
{{- end -}}
{{- range $component := list "operator" "api" "worker" "migrate" -}}
{{- $values := index $.Values $component -}}
{{- if and $values.enabled (not (include "decklog.databaseSecret" $)) (not $values.extraEnvFrom) -}}
{{- fail (printf "%s has no database: make a Secret with its address and name it in database.existingSecret." $component) -}}
{{- end -}}
{{- end -}}
{{- range $component := list "api" "worker" -}}
{{- $values := index $.Values $component -}}
{{- if and $values.enabled (not (include "decklog.identitySecret" $)) (not $values.extraEnvFrom) -}}
{{- fail (printf "%s has no fingerprint key: make a Secret with 32 random characters and name it in identity.existingSecret." $component) -}}
{{- end -}}
{{- end -}}
{{- if .Values.dev.enabled -}}
{{- with .Values -}}
{{- if or .database.existingSecret .identity.existingSecret .search.url .search.existingSecret .queue.enabled .archive.bucket -}}
{{- fail "dev.enabled brings backends and passwords of its own: leave database.existingSecret, identity.existingSecret, search, queue and archive as they are, or dev.enabled false." -}}
{{- end -}}
{{- end -}}
{{- else if .Values.dev.writableRoot -}}
{{- fail "dev.writableRoot is for live update, and goes with dev.enabled alone." -}}
{{- end -}}
{{- if and .Values.worker.autoscaling.enabled .Values.worker.keda.enabled -}}
{{- fail "worker.autoscaling and worker.keda both scale the workers: enable one of them." -}}
{{- end -}}
{{- if and .Values.worker.keda.enabled (not .Values.worker.keda.prometheusAddress) -}}
{{- fail "worker.keda.enabled needs worker.keda.prometheusAddress: KEDA asks Prometheus how many records are behind." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts: a rule without a host would answer for every name." -}}
{{- end -}}
{{- if and .Values.ingress.certManager.issuer .Values.ingress.certManager.clusterIssuer -}}
{{- fail "ingress.certManager has both issuer and clusterIssuer: name one of them." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: a route belongs to a Gateway." -}}
{{- end -}}
{{- if and .Values.httpRoute.envoyGateway.enabled (not .Values.httpRoute.enabled) -}}
{{- fail "httpRoute.envoyGateway.enabled needs httpRoute.enabled: its policies are of HTTPRoutes." -}}
{{- end -}}
{{- if and .Values.httpProxy.enabled (not .Values.httpProxy.host) -}}
{{- fail "httpProxy.enabled needs httpProxy.host." -}}
{{- end -}}
{{- if le (int .Values.api.terminationGracePeriodSeconds) (int .Values.api.drainSeconds) -}}
{{- fail "api.terminationGracePeriodSeconds must be longer than api.drainSeconds, or open requests are broken off." -}}
{{- end -}}
{{- end -}}
