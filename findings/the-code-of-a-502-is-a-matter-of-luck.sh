#!/bin/sh
# grpcio 1.85.3, grpc.aio: a call with a response stream that a proxy answers with 502 and a page reads UNAVAILABLE or UNKNOWN.
#
# gRPC's rule (doc/http-grpc-status-mapping.md) says UNAVAILABLE for 502. Headers with that status and the page's body, with the
# end of the stream, come in one write, as a proxy sends a small page. In 2 of 10 calls or so the end is read first, and
# the code is UNKNOWN, "Stream removed (Data frame with END_STREAM flag received)": a retry policy for UNAVAILABLE lets it be.
# Calls with one response read UNAVAILABLE always. 1.66.2 does the same, with the details "Stream removed".
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio
from collections import Counter

import grpc
import grpc.aio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

CALLS = 400


async def proxy(reader, writer):
    """Answer each request as a proxy does whose server is down."""
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    while True:
        writer.write(connection.data_to_send())
        data = await reader.read(65536)
        if not data:
            return
        for event in connection.receive_data(data):
            if isinstance(event, StreamEnded):
                connection.send_headers(event.stream_id, [(":status", "502"), ("content-type", "text/html")])
                connection.send_data(event.stream_id, b"<h1>502 Bad Gateway</h1>", end_stream=True)


async def code(port, streams):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            if streams:
                [_ async for _ in channel.unary_stream("/shop.Stock/Watch")(b"", timeout=20)]
            else:
                await channel.unary_unary("/shop.Stock/Get")(b"", timeout=20)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}, {error.details()}"


async def main():
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for streams in (False, True):
        seen = Counter()
        for _ in range(CALLS // 8):
            seen.update(await asyncio.gather(*[code(port, streams) for _ in range(8)]))
        print("response stream:" if streams else "one response:", *sorted(seen), sep="\n  ")
    server.close()


asyncio.run(main())
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.3 h2==4.3.0 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "one response:
  UNAVAILABLE, Received http2 header with status: 502
response stream:
  UNAVAILABLE, Received http2 header with status: 502
  UNKNOWN, Stream removed (Data frame with END_STREAM flag received)" ] || { echo "1.85.3 has changed"; exit 1; }
echo "As described"
