#!/bin/sh
# grpclib 0.4.9: its client drops a call under way when the server says that it will take no new ones.
#
# A grpcio server is stopped with five seconds of grace while a handler works; the handler answers within half a second.
# grpcio sends GOAWAY with NO_ERROR, and the highest stream: calls up to that go on. grpclib closes the connection at any
# GOAWAY, and its caller gets StreamTerminatedError. A grpcio client gets the answer.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio
import threading
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import StreamTerminatedError

working, answer = threading.Semaphore(0), threading.Event()


def brew(request, context):
    working.release()
    answer.wait(5)
    return request


methods = {"Brew": grpc.unary_unary_rpc_method_handler(brew, StringValue.FromString, StringValue.SerializeToString)}


def stopping():
    """A server; and what stops it once a handler works, and has the handler answer half a second later."""
    answer.clear()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kitchen", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def stop():
        working.acquire()
        stopped = server.stop(5)
        threading.Timer(0.5, answer.set).start()
        stopped.wait()

    thread = threading.Thread(target=stop)
    thread.start()
    return port, thread


port, thread = stopping()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    stub = channel.unary_unary("/Kitchen/Brew", StringValue.SerializeToString, StringValue.FromString)
    print("grpcio:", stub(StringValue(value="tea"), timeout=20).value)
thread.join()


async def by_grpclib(port):
    channel = Channel("127.0.0.1", port)
    try:
        return (await UnaryUnaryMethod(channel, "/Kitchen/Brew", StringValue, StringValue)(StringValue(value="tea"))).value
    except StreamTerminatedError as error:
        return type(error).__name__
    finally:
        channel.close()


port, thread = stopping()
print("grpclib:", asyncio.run(by_grpclib(port)))
thread.join()
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 grpclib==0.4.9 protobuf==6.33.5 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "grpcio: tea
grpclib: StreamTerminatedError" ] || { echo "0.4.9 has changed"; exit 1; }
echo "As described"
