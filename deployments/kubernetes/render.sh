#!/bin/sh
# Makes gogate.yaml anew from the chart, without Helm's own labels: for clusters without Helm. A test holds them together.
set -eu
cd "$(dirname "$0")"
{
    cat <<'TEXT'
# gogate without Helm. Rendered from ../helm/gogate by render.sh: change the chart, not this file.
#
#   kubectl create namespace gogate
#   kubectl -n gogate create secret generic gogate-admin-token --from-literal=token="$(openssl rand -hex 20)"
#   kubectl -n gogate apply -f gogate.yaml
#
# Put your backends into the ConfigMap; gogate serves a change by itself within about a minute.
TEXT
    "${HELM:-helm}" template gogate ../helm/gogate --namespace gogate -f values.yaml |
        sed '/^ *helm\.sh\/chart:/d; /^ *app\.kubernetes\.io\/managed-by:/d; /^# Source:/d; /^ *namespace: gogate$/d'
} > gogate.yaml
