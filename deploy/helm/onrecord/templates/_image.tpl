{{- /* The image of a service: (list . "audit"). */ -}}
{{- define "onrecord.image" -}}
{{- $values := (index . 0).Values.image -}}
{{- $version := $values.tag | default (index . 0).Chart.AppVersion -}}
{{- printf "%sonrecord-%s:%s" $values.registry (index . 1) $version -}}
{{- end -}}
