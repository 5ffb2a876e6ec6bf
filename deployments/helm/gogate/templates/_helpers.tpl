{{/* Names and labels. */}}
{{- define "gogate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "gogate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "gogate.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "gogate.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gogate.selector" -}}
app.kubernetes.io/name: {{ include "gogate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gogate.labels" -}}
{{ include "gogate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gogate.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gogate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "gogate.tokenSecret" -}}
{{- default (printf "%s-admin-token" (include "gogate.fullname" .)) .Values.admin.existingSecret }}
{{- end }}

{{/* gogate's configuration file: what the values say, with config.extra over it. */}}
{{- define "gogate.configuration" -}}
{{- $config := .Values.config }}
{{- $admin := printf "%s-admin" (include "gogate.fullname" .) }}
{{- $server := dict
    "workers" (int $config.workers)
    "listenAddr" ":8080"
    "httpListenAddr" ":8081"
    "loadBalancer" $config.loadBalancer.algorithm
    "health" $config.health
    "rateLimit" $config.rateLimit
    "circuitBreaker" $config.circuitBreaker
    "tcpPool" $config.tcpPool
    "shutdown" (dict
      "drainDelay" (printf "%ds" (int .Values.shutdown.drainDelaySeconds))
      "gracePeriod" (printf "%ds" (int .Values.shutdown.gracePeriodSeconds)))
    "admin" (dict
      "enabled" true
      "listenAddr" ":9090"
      "token" "${GOGATE_ADMIN_TOKEN}"
      "allowedHosts" (list "localhost" "127.0.0.1" "[::1]" $admin
        (printf "%s.%s" $admin .Release.Namespace)
        (printf "%s.%s.svc" $admin .Release.Namespace)
        (printf "%s.%s.svc.cluster.local" $admin .Release.Namespace)))
    "metrics" (dict "enabled" true "listenAddr" ":9091")
}}
{{- if or .Values.backends (not $config.extra.pools) }}
{{- $_ := set $server "backends" .Values.backends }}
{{- else }}
{{- $_ := unset $server "listenAddr" }}
{{- end }}
{{- $whole := dict "server" $server "logging" (dict "level" $config.logLevel "format" $config.logFormat) }}
{{- toYaml (mustMergeOverwrite $whole (deepCopy $config.extra)) }}
{{- end }}
