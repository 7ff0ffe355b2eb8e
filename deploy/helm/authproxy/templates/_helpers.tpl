{{- define "authproxy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "authproxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "authproxy.labels" -}}
{{ include "authproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "authproxy.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* What the chart relies on in the configuration. Everything else in it is for "authproxy check". */ -}}
{{- define "authproxy.checkedConfig" -}}
{{- $config := fromYaml .Values.config }}
{{- with $config.Error }}{{ fail (printf "config is not YAML: %s" .) }}{{ end }}
{{- if not (has (toString ($config.listen | default ":8080")) (list ":8080" "0.0.0.0:8080" "[::]:8080")) }}{{ fail "config: listen must be \":8080\", its default" }}{{ end }}
{{- if not (has (toString (dig "admin" "listen" "" $config)) (list ":9090" "0.0.0.0:9090" "[::]:9090")) }}{{ fail "config: admin.listen must be \":9090\": the probes come from outside of the pod" }}{{ end }}
{{- $store := toString (dig "session" "store" "cookie" $config) }}
{{- if and (ne $store "redis") (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}{{ fail (printf "config: session.store is %s, and several replicas need redis" $store) }}{{ end }}
{{- if eq $store "file" }}{{ fail "config: session.store: file needs a disk, which this chart gives to nobody; use redis" }}{{ end }}
{{- .Values.config }}
{{- end }}
