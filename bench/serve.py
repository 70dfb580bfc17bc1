"""The server process of the wire measurement: one server per arm, each on its own unix socket.

`python -m bench.serve sync DIRECTORY` prints "ready" and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from bench import families
from bench.arms import Arm, raw, wire_arms
from bench.families import Family
from bench.families.bare import FAMILY as BARE
from bench.places import Mode

SERVICE = "bench.v1.Echo"
METHOD = f"/{SERVICE}/Say"
THREADS = 4


def echo(request: StringValue, context: object) -> StringValue:
    """The handler: answers what it was sent."""
    return request


async def aecho(request: StringValue, context: object) -> StringValue:
    """The same on asyncio."""
    return request


def served_arms(mode: Mode) -> Iterator[tuple[Arm, Family]]:
    """The arms that need a server of their own, with the family that builds it."""
    found, _ = families.load()
    yield raw(mode), BARE
    for arm in wire_arms(mode, found):
        if arm.side == "server":
            yield arm, found.get(arm.family, BARE)


def register(server: Any, behaviour: Any) -> None:
    """Add the service as generated code does: generic handlers, and the method registered."""
    handler = grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    handlers = {"Say": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


def full_pool() -> ThreadPoolExecutor:
    """A pool with all of its threads running.

    It would start them as it pleases, and calls go round: a server with fewer threads has warmer
    caches, which made raw 1 % dearer than raw again.
    """
    pool, together = ThreadPoolExecutor(THREADS), threading.Barrier(THREADS + 1)
    for _ in range(THREADS):
        pool.submit(together.wait)
    together.wait()
    return pool


def serve_sync(directory: str) -> None:
    """Run the servers of all sync arms until standard input ends."""
    servers = []
    for arm, family in served_arms("sync"):
        server = grpc.server(full_pool(), interceptors=family.sync_server(arm.what, arm.count))
        register(server, echo)
        server.add_insecure_port(f"unix:{directory}/{arm.socket}")
        server.start()
        servers.append(server)
    announce()
    sys.stdin.read()
    for server in servers:
        server.stop(None)


async def serve_aio(directory: str) -> None:
    """Run the servers of all asyncio arms until standard input ends."""
    servers = []
    for arm, family in served_arms("aio"):
        server = grpc.aio.server(interceptors=family.aio_server(arm.what, arm.count))
        register(server, aecho)
        server.add_insecure_port(f"unix:{directory}/{arm.socket}")
        await server.start()
        servers.append(server)
    announce()
    await _end_of_input()
    for server in servers:
        await server.stop(None)


async def _end_of_input() -> None:
    # A thread of our own, not asyncio's pool: a pool would be joined at exit.
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def watch() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()


def announce() -> None:
    """Tell the client that all sockets are open; what lives now is not the collector's business any more."""
    gc.collect()
    gc.freeze()
    print("ready", flush=True)


def main() -> None:
    """Serve the arms of the mode named first, on sockets in the directory named second."""
    mode, directory = cast("Mode", sys.argv[1]), sys.argv[2]
    if mode == "sync":
        serve_sync(directory)
    else:
        asyncio.run(serve_aio(directory))


if __name__ == "__main__":
    main()
