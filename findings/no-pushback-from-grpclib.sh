#!/bin/sh
# grpclib 0.4.9: neither side can send metadata whose key begins with "grpc-", so a server cannot ask for a pause between retries.
#
# gRPC's retries (gRFC A6) know `grpc-retry-pushback-ms` in the trailing metadata of a server. Handlers on grpcio set it as any other
# metadata. On grpclib it is a ValueError in the handler, which ends the call with UNKNOWN instead of the status that was meant.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio
import logging
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Server

logging.disable()
PUSHBACK = ("grpc-retry-pushback-ms", "100")


def busy(request, context):
    context.set_trailing_metadata((PUSHBACK,))
    context.abort(grpc.StatusCode.UNAVAILABLE, "busy")


async def busy_too(stream):
    await stream.recv_message()
    await stream.send_trailing_metadata(status=Status.UNAVAILABLE, status_message="busy", metadata=dict([PUSHBACK]))


class Kitchen:
    def __mapping__(self):
        return {"/Kitchen/Brew": Handler(busy_too, Cardinality.UNARY_UNARY, StringValue, StringValue)}


def show(name, port):
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_retries", 0)]) as channel:
        brew = channel.unary_unary("/Kitchen/Brew", StringValue.SerializeToString, StringValue.FromString)
        try:
            brew(StringValue(), timeout=20)
        except grpc.RpcError as error:
            print(name, error.code().name, dict(error.trailing_metadata()).get(PUSHBACK[0]))


async def main():
    method = grpc.unary_unary_rpc_method_handler(busy, StringValue.FromString, StringValue.SerializeToString)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", {"Brew": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    await asyncio.to_thread(show, "grpcio", port)
    server.stop(None).wait()
    server = Server([Kitchen()])
    await server.start("127.0.0.1", 0)
    await asyncio.to_thread(show, "grpclib", server._server.sockets[0].getsockname()[1])
    server.close()


asyncio.run(main())
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 grpclib==0.4.9 protobuf==6.33.5 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "grpcio UNAVAILABLE 100
grpclib UNKNOWN None" ] || { echo "0.4.9 has changed"; exit 1; }
echo "As described"
