#!/bin/sh
# grpcio's `RpcError.debug_error_string()` no longer says that a status came from a server.
#
# A handler aborts with UNAVAILABLE "closed for lunch"; the client prints the debug string of the error.
#   grpcio 1.78.0   UNKNOWN:Error received from peer  {grpc_status:14, grpc_message:"closed for lunch"}
#   grpcio 1.85.3   UNAVAILABLE:closed for lunch
# A status that the client's own core made is written in the second form on 1.85.3 too. So nothing in the error tells the
# two apart any more, and a client that reads the string to decide whether a server had the call decides wrongly.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
from concurrent import futures

import grpc


def fail(request, context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "closed for lunch")


methods = {"Order": grpc.unary_unary_rpc_method_handler(fail)}
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    try:
        channel.unary_unary("/Kitchen/Order")(b"", timeout=20)
    except grpc.RpcError as error:
        print(error.debug_error_string())
server.stop(None).wait()
PROBE

seen() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check "grpcio==$1" 2>"$folder/log" || { cat "$folder/log"; exit 1; }
    "$folder/$1/bin/python" "$folder/probe.py"
}

before=$(seen 1.78.0)
after=$(seen 1.85.3)
printf 'grpcio 1.78.0: %s\ngrpcio 1.85.3: %s\n' "$before" "$after"
case $before in *"Error received from peer"*) ;; *) echo "1.78.0 has changed"; exit 1 ;; esac
case $after in *peer*) echo "1.85.3 names the peer again"; exit 1 ;; esac
[ "$after" = "UNAVAILABLE:closed for lunch" ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
