#!/bin/sh
# grpc.aio, grpcio 1.85.3: a stream that its server answered with OK is done with INTERNAL, until its messages are read.
#
# The server answers without reading what the client still writes. A write that comes behind the server's end fails, and grpc.aio
# makes that the status of the call: `done()` is True, `code()` gives INTERNAL, and `wait_for_connection()` raises it. The core
# tells the server's status only behind the messages. So when the application reads them after all, they are there, the stream
# ends well, and the same call has the code OK. A done callback or a metric that looked before has counted a failure.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio

import grpc
import grpc.aio


async def answer(requests, context):
    yield b"first"
    yield b"last"


async def write(calls):
    while not calls[0].done():
        yield b"more"
        await asyncio.sleep(0)


async def main():
    server = grpc.aio.server()
    handlers = {"Ends": grpc.stream_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Server", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = []
        calls.append(channel.stream_stream("/Server/Ends")(write(calls), timeout=10))
        [call] = calls
        while not call.done():
            await asyncio.sleep(0)
        print("done, with", (await call.code()).name)
        try:
            await call.wait_for_connection()
        except grpc.aio.AioRpcError as error:
            print("wait_for_connection raised", error.code().name)
        print("read", [message.decode() async for message in call])
        print("then", (await call.code()).name)
    await server.stop(None)


asyncio.run(main())
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "done, with INTERNAL
wait_for_connection raised INTERNAL
read ['first', 'last']
then OK" ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
