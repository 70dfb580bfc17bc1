#!/bin/sh
# opentelemetry-instrumentation-grpc 0.66b2: the tracer provider that is given to `GrpcInstrumentorClient` is not used.
#
# `GrpcInstrumentorClient().instrument(tracer_provider=provider)`, then one call over a sync insecure channel. No span
# reaches that provider: for each channel the instrumentor looks for `tracer_provider` among the arguments of
# `grpc.insecure_channel`, where it cannot be, and takes the global one.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
from concurrent import futures

import grpc
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
GrpcInstrumentorClient().instrument(tracer_provider=provider)

methods = {"Order": grpc.unary_unary_rpc_method_handler(lambda request, context: b"")}
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    channel.unary_unary("/Kitchen/Order")(b"", timeout=20)
server.stop(None).wait()
print("spans at the provider that was given:", len(spans.get_finished_spans()))
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 opentelemetry-instrumentation-grpc==0.66b2 opentelemetry-sdk==1.45.2 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "spans at the provider that was given: 0" ] || { echo "0.66b2 has changed"; exit 1; }
echo "As described"
