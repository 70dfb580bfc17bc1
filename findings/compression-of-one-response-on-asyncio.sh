#!/bin/sh
# grpcio 1.85.3: on an asyncio server `context.set_compression` does nothing for a single response.
#
# A handler asks for gzip and answers with 10,000 letters. A client on grpclib, which cannot read compressed messages, shows which
# messages were compressed: on a sync server all of them, on an asyncio one those of response streams only.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio
from concurrent import futures

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

ANSWER = StringValue(value="a" * 10_000)


def one(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return ANSWER


def many(request, context):
    context.set_compression(grpc.Compression.Gzip)
    yield ANSWER


async def one_later(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return ANSWER


async def many_later(request, context):
    context.set_compression(grpc.Compression.Gzip)
    yield ANSWER


def service(one, many):
    methods = {
        "One": grpc.unary_unary_rpc_method_handler(one, StringValue.FromString, StringValue.SerializeToString),
        "Many": grpc.unary_stream_rpc_method_handler(many, StringValue.FromString, StringValue.SerializeToString),
    }
    return (grpc.method_handlers_generic_handler("Kitchen", methods),)


async def show(name, port):
    channel = Channel("127.0.0.1", port)
    for kind, method in (("One", UnaryUnaryMethod), ("Many", UnaryStreamMethod)):
        try:
            await method(channel, f"/Kitchen/{kind}", StringValue, StringValue)(StringValue())
            print(name, kind, "plain")
        except NotImplementedError:
            print(name, kind, "compressed")
    channel.close()


async def main():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(service(one, many))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    await show("sync", port)
    server.stop(None).wait()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(service(one_later, many_later))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await show("asyncio", port)
    await server.stop(None)


asyncio.run(main())
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 grpclib==0.4.9 protobuf==6.33.5 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "sync One compressed
sync Many compressed
asyncio One plain
asyncio Many compressed" ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
