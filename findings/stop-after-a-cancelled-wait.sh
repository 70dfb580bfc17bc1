#!/bin/sh
# grpc.aio, grpcio 1.85.3: `server.stop(grace)` raises CancelledError if a task that waited for termination was cancelled.
#
# A task awaits `server.wait_for_termination()` and is cancelled, as by a signal handler or a task group that ends. It
# awaits a future of the server itself, without a shield, so that future is cancelled with it; `stop` awaits the same one.
# A shutdown that begins with that cancel skips the rest of its clean-up.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio

import grpc.aio


async def main():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    waiting = asyncio.create_task(server.wait_for_termination())
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait([waiting])
    try:
        await server.stop(1)
        print("stop() returned")
    except asyncio.CancelledError:
        print("stop() raised CancelledError")


asyncio.run(main())
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "stop() raised CancelledError" ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
