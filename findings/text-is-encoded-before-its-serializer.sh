#!/bin/sh
# grpc.aio, grpcio 1.85.3: a text that an asyncio handler returns reaches the response serializer as bytes.
#
# The same handler, which returns "soup", on both servers; its serializer notes the type that it is given.
#   asyncio: bytes
#   sync: str
# So `str.encode` is a good serializer on a sync server, and fails every RPC of an asyncio one.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio
from concurrent import futures

import grpc
import grpc.aio

seen = []


def encode(message):
    seen.append(type(message).__name__)
    return message if isinstance(message, bytes) else message.encode()


async def main():
    async def answer(request, context):
        return "soup"

    methods = {"Order": grpc.unary_unary_rpc_method_handler(answer, None, encode)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary("/Kitchen/Order")(b"", timeout=20)
    await server.stop(None)
    print("asyncio:", *seen)


asyncio.run(main())


def serve_sync():
    methods = {"Order": grpc.unary_unary_rpc_method_handler(lambda request, context: "soup", None, encode)}
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary("/Kitchen/Order")(b"", timeout=20)
    server.stop(None).wait()


seen.clear()
serve_sync()
print("sync:", *seen)
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "$(printf "asyncio: bytes\nsync: str")" ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
