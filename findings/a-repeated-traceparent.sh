#!/bin/sh
# grpcio 1.85.3: of a metadata key that is sent three times, all values arrive; of `traceparent` only the last one does.
#
# A client sends three `x-stamp` and three `traceparent`, as an application does that adds its own beside that of its
# instrumentation; the server prints what its handler is given, of each `traceparent` the span's number.
#   grpcio 1.66.2   x-stamp: 1 2 3   traceparent: 1 2 3
#   grpcio 1.85.3   x-stamp: 1 2 3   traceparent: 3
# A server that used to take the first, or to ignore several, now continues the trace of the last and cannot tell.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
from concurrent import futures

import grpc

seen = []


def note(request, context):
    seen.extend((key, value) for key, value in context.invocation_metadata() if key in ("traceparent", "x-stamp"))
    return b""


methods = {"Order": grpc.unary_unary_rpc_method_handler(note)}
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
parents = [f"00-{'ab' * 16}-{number:016x}-01" for number in (1, 2, 3)]
pairs = [("traceparent", parent) for parent in parents] + [("x-stamp", str(number)) for number in (1, 2, 3)]
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    channel.unary_unary("/Kitchen/Order")(b"", timeout=20, metadata=pairs)
server.stop(None).wait()
for name in ("x-stamp", "traceparent"):
    print(f"{name}:", *(value.split("-")[2].lstrip("0") if "-" in value else value for key, value in seen if key == name))
PROBE

seen() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check "grpcio==$1" 2>"$folder/log" || { cat "$folder/log"; exit 1; }
    "$folder/$1/bin/python" "$folder/probe.py" | tr '\n' ' '
}

before=$(seen 1.66.2)
after=$(seen 1.85.3)
printf 'grpcio 1.66.2: %s\ngrpcio 1.85.3: %s\n' "$before" "$after"
[ "$before" = "x-stamp: 1 2 3 traceparent: 1 2 3 " ] || { echo "1.66.2 has changed"; exit 1; }
[ "$after" = "x-stamp: 1 2 3 traceparent: 3 " ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
