"""A server whose handler costs CPU: `python -m tests.storm.hungry TARGET async|plain yes|no`, the last: with a limit?

Each line on its input is the CPU time of a call from now on, in seconds; it answers "ok".
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from interpose import server_interceptor
from interpose.interceptors import ConcurrencyLimit
from interpose.interceptors.concurrency_limit import Gradient

PATH = "/storm.Hungry/Work"
THREADS = 64  # more than limit and queue together
QUEUE_TIMEOUT = 0.25  # seconds: some six times what a call takes, so that the important ones find their slot
SLICE = 0.0005  # seconds of CPU between two looks at others


class Hungry:
    """The handler, and what a call costs."""

    def __init__(self) -> None:
        self.cost = 0.04

    def slices(self) -> Iterator[None]:
        """Burn the CPU time of one call, a slice at a time."""
        for _ in range(round(self.cost / SLICE)):
            until = time.thread_time() + SLICE
            while time.thread_time() < until:
                pass
            yield

    def plain(self, request: bytes, context: Any) -> bytes:
        """For a sync server."""
        for _ in self.slices():
            time.sleep(0)  # grpc's own thread needs the interpreter, too: it takes up the calls
        return request

    async def awaited(self, request: bytes, context: Any) -> bytes:
        """For an asyncio server: others may go on between the slices."""
        for _ in self.slices():
            await asyncio.sleep(0)
        return request

    def obey(self) -> None:
        """Take a new cost for each line, until the input ends."""
        for line in sys.stdin:
            self.cost = float(line)
            say("ok")


def say(word: str) -> None:
    """Answer the process that started this one."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def stack(limited: bool) -> list[Any]:
    """The limit, if there is to be one."""
    limit = ConcurrencyLimit(Gradient(maximum=40), queue=8, queue_timeout=QUEUE_TIMEOUT)
    return [server_interceptor(limit)] if limited else []


def handlers(function: Any) -> Any:
    """The one method."""
    return grpc.method_handlers_generic_handler("storm.Hungry", {"Work": grpc.unary_unary_rpc_method_handler(function)})


def serve_plain(target: str, limited: bool, hungry: Hungry) -> None:
    """Serve on threads until the input ends."""
    server = grpc.server(ThreadPoolExecutor(THREADS), interceptors=stack(limited))
    server.add_generic_rpc_handlers((handlers(hungry.plain),))
    server.add_insecure_port(target)
    server.start()
    say("ready")
    hungry.obey()


async def serve_async(target: str, limited: bool, hungry: Hungry) -> None:
    """Serve on a loop until the input ends."""
    server = grpc.aio.server(interceptors=stack(limited))
    server.add_generic_rpc_handlers((handlers(hungry.awaited),))
    server.add_insecure_port(target)
    await server.start()
    threading.Thread(target=hungry.obey, daemon=True).start()
    say("ready")
    await server.wait_for_termination()


if __name__ == "__main__":
    _, _target, _sort, _limited = sys.argv
    if _sort == "plain":
        serve_plain(_target, _limited == "yes", Hungry())
    else:
        asyncio.run(serve_async(_target, _limited == "yes", Hungry()))
