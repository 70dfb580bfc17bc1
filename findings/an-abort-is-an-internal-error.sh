#!/bin/sh
# sentry-sdk 2.75.0, GRPCIntegration on a server: any abort is an "internal_error", and streams leave no transaction.
#
# One call is answered, one aborted with UNAVAILABLE, one answered with a response stream. The aborted one's transaction has the
# status of a handler that broke, since `context.abort` raises; the answered one has no status; the stream is not there at all. So
# a failure rate counts a refusal as a crash, and knows unary calls only.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
from concurrent import futures

import grpc
import sentry_sdk
from sentry_sdk.integrations.grpc import GRPCIntegration
from sentry_sdk.transport import Transport

seen = []


class Kept(Transport):
    """Keeps transactions instead of sending them."""

    def capture_envelope(self, envelope):
        event = envelope.get_transaction_event()
        if event:
            seen.append((event["transaction"], event["contexts"]["trace"].get("status")))


sentry_sdk.init(
    dsn="https://key@example.invalid/1", transport=Kept(), traces_sample_rate=1.0, default_integrations=False,
    integrations=[GRPCIntegration()],
)


def busy(request, context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "busy")


handlers = {
    "Answer": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    "Busy": grpc.unary_unary_rpc_method_handler(busy),
    "Stream": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request])),
}
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Stock", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    channel.unary_unary("/shop.Stock/Answer")(b"a", timeout=20)
    try:
        channel.unary_unary("/shop.Stock/Busy")(b"a", timeout=20)
    except grpc.RpcError as error:
        print("client:", error.code().name)
    list(channel.unary_stream("/shop.Stock/Stream")(b"a", timeout=20))
server.stop(None).wait()
sentry_sdk.flush()
for name, status in sorted(set(seen), key=str):
    print(name, status)
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    sentry-sdk==2.75.0 grpcio==1.85.3 protobuf==6.33.5 2>"$folder/log" || { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "client: UNAVAILABLE
/shop.Stock/Answer None
/shop.Stock/Busy internal_error" ] || { echo "2.75.0 has changed"; exit 1; }
echo "As described"
