#!/bin/sh
# opentelemetry-exporter-prometheus 0.51b0: a point of a metric gets the label names of another point.
#
# One counter, and two points: the first with the attributes {method: Brew}, the second with {method: Pour, error: EMPTY}.
# The exporter collects the label names of all points, in the order of the alphabet, and pairs them with the values of each
# point, which are fewer. So the series of the first point says error="Brew", and has no method. In 0.66b2 each has its own.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

provider = MeterProvider([PrometheusMetricReader()])
counter = provider.get_meter("kitchen").create_counter("orders")
counter.add(1, {"method": "Brew"})
counter.add(1, {"method": "Pour", "error": "EMPTY"})
for line in generate_latest(REGISTRY).decode().splitlines():
    if line.startswith("orders_total"):
        print(line)
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check opentelemetry-exporter-prometheus==0.51b0 opentelemetry-sdk==1.30.0 prometheus-client==0.21.0 setuptools==80.9.0 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" -W ignore "$folder/probe.py")
printf '%s\n' "$seen"
printf '%s' "$seen" | grep -q 'orders_total{error="Brew"}' || { echo "0.51b0 has changed"; exit 1; }
echo "As described"
