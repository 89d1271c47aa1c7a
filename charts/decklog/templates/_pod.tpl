{{/* The common part of all pods: restricted, with a read-only root. */}}

{{/* Fields of the pod. Takes (list root component values). */}}
{{- define "decklog.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
enableServiceLinks: false  # a Service of the cluster would set variables that look like settings
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Spread replicas over nodes and zones. Takes (list root component). */}}
{{- define "decklog.spread" -}}
topologySpreadConstraints:
{{- $selector := include "decklog.selector" . }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Fields of the container. Takes (list root values image). */}}
{{- define "decklog.container" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
image: {{ include "decklog.image" (list $root (index . 2)) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with $values.extraEnvFrom }}
envFrom:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: {{ not $root.Values.dev.writableRoot }}
  capabilities:
    drop:
    - ALL
{{- end -}}

{{/* A probe of a named port. Takes (list path port). */}}
{{- define "decklog.probe" -}}
httpGet:
  path: {{ index . 0 }}
  port: {{ index . 1 }}
periodSeconds: 10
timeoutSeconds: 5
{{- end -}}

{{/* A PodDisruptionBudget. Takes (list root component maxUnavailable). */}}
{{- define "decklog.budget" -}}
{{- $root := index . 0 -}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "decklog.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "decklog.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: {{ index . 2 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "decklog.selector" (list $root (index . 1)) | nindent 6 }}
{{- end -}}

{{/* A HorizontalPodAutoscaler by CPU. Takes (list root component autoscaling). */}}
{{- define "decklog.autoscaler" -}}
{{- $root := index . 0 -}}
{{- $scaling := index . 2 -}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "decklog.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "decklog.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "decklog.fullname" $root }}-{{ index . 1 }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
  - type: Resource
    resource:
      name: cpu
      target:
        type: Utilization
        averageUtilization: {{ $scaling.targetCPUUtilizationPercentage }}
  {{- with $scaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
