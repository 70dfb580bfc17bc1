#!/bin/sh
# py-grpc-prometheus 0.8.0, server: which of its counters knows a call depends on the kind of the call.
#
# One call of each of the four kinds, all answered with OK. Calls with a response stream are never "handled", calls with a request
# stream are never "started", and unary messages are not counted. So started less handled, the usual figure for calls under way,
# is wrong for three of the four kinds, and an error rate sees no stream.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
from concurrent import futures

import grpc
from prometheus_client import CollectorRegistry
from py_grpc_prometheus.prometheus_server_interceptor import PromServerInterceptor

handlers = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    "UnaryStream": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request])),
    "StreamUnary": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"".join(requests)),
    "StreamStream": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
}
registry = CollectorRegistry()
server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[PromServerInterceptor(registry=registry)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    channel.unary_unary("/shop/UnaryUnary")(b"a", timeout=20)
    list(channel.unary_stream("/shop/UnaryStream")(b"a", timeout=20))
    channel.stream_unary("/shop/StreamUnary")(iter([b"a"]), timeout=20)
    list(channel.stream_stream("/shop/StreamStream")(iter([b"a"]), timeout=20))
server.stop(None).wait()

counted = {}
for metric in registry.collect():
    for sample in metric.samples:
        if sample.name.endswith("_total") and sample.value:
            counted.setdefault(sample.name, []).append(sample.labels["grpc_method"])
for name in sorted(counted):
    print(name + ":", *sorted(counted[name]))
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    py-grpc-prometheus==0.8.0 prometheus-client==0.21.1 grpcio==1.85.3 setuptools==80.9.0 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "grpc_server_handled_total: StreamUnary UnaryUnary
grpc_server_msg_received_total: StreamStream StreamUnary
grpc_server_msg_sent_total: StreamStream UnaryStream
grpc_server_started_total: UnaryStream UnaryUnary" ] || { echo "0.8.0 has changed"; exit 1; }
echo "As described"
