"""The server of a storm, in a process of its own: `python -m tests.storm.server ADDRESS FILE (async|plain) [SECONDS]`.

It tells each arrival and each execution of a call to the file by one write, before it answers: so that is there after a
`kill -9`. It says "ready" when it serves. A line of JSON on its standard input changes the faults that it injects, and is
answered "ok"; when that input ends, so does it. SIGTERM stops it gracefully.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc.aio

from interpose import Call, Flow, Kind, server_interceptor
from interpose.interceptors import FaultInjection
from interpose.interceptors.retry import ATTEMPT
from interpose.testing.echo import decode, encode

READS, SEARCHES, WRITES, ORDERS = SERVICES = ("storm.Reads", "storm.Searches", "storm.Writes", "storm.Orders")
ID = "x-storm-id"
REQUESTS, ANSWERS = 3, 5  # messages of a stream
WORK = (
    0.002  # seconds between the execution of a call and its answer, and between the messages of an answer; or SECONDS
)
GRACE = 5.0  # seconds that open calls have when the server is stopped
THREADS = 64

MAKE: dict[Kind, Any] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


def asked(number: str, kind: Kind) -> list[str]:
    """The request messages of a call. The first tells with which message the answer shall begin."""
    return [f"{number}:{place}" for place in range(REQUESTS if kind.request_streaming else 1)]


def answered(number: str, kind: Kind, request: str = ":0") -> list[str]:
    """The response messages of a call, as its first request asks for them."""
    first = int(request.partition(":")[2])
    return [f"{number}:{place}" for place in range(first, ANSWERS if kind.response_streaming else 1)]


class Register:
    """The file, and what is wrong with the weather."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._faults = FaultInjection()

    def change(self, options: dict[str, Any]) -> None:
        """Inject these faults from now on, and no others. What is refused is not executed."""
        abort = grpc.StatusCode.UNAVAILABLE if "abort_percent" in options else None
        self._faults = FaultInjection(enabled=bool(options), abort=abort, **options)

    def arrived(self, call: Call) -> Flow:
        """The outermost interceptor: every call that reaches this server."""
        attempt, number = str(call.metadata.get(ATTEMPT, "0")), str(call.metadata[ID])
        os.write(self._file, f"A {number} {attempt} {time.monotonic():.4f}\n".encode())
        yield call

    def spoilt(self, call: Call) -> Flow:
        """The innermost interceptor."""
        return (yield from self._faults(call))

    def executed(self, number: str) -> None:
        """The call does now what it is there for."""
        os.write(self._file, f"E {number}\n".encode())


def number_of(context: Any) -> str:
    """The id of a call."""
    return str(dict(context.invocation_metadata())[ID])


# --- handlers ---------------------------------------------------------------------------------------------------------


class Plain:
    """The plain handlers."""

    def __init__(self, register: Register) -> None:
        self._register = register

    def unary_unary(self, request: str, context: Any) -> str:
        return self._one(Kind.UNARY_UNARY, iter([request]), context)

    def stream_unary(self, requests: Iterator[str], context: Any) -> str:
        return self._one(Kind.STREAM_UNARY, requests, context)

    def unary_stream(self, request: str, context: Any) -> Iterator[str]:
        return self._many(Kind.UNARY_STREAM, iter([request]), context)

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        return self._many(Kind.STREAM_STREAM, requests, context)

    def _one(self, kind: Kind, requests: Iterator[str], context: Any) -> str:
        return next(self._many(kind, requests, context))

    def _many(self, kind: Kind, requests: Iterator[str], context: Any) -> Iterator[str]:
        number = number_of(context)
        received = list(requests)
        if len(received) != len(asked(number, kind)):
            context.abort(grpc.StatusCode.CANCELLED, "the client has gone while it sent")
        self._register.executed(number)
        for answer in answered(number, kind, received[0]):
            time.sleep(WORK)
            yield answer


class Async:
    """The async handlers."""

    def __init__(self, register: Register) -> None:
        self._register = register

    async def unary_unary(self, request: str, context: Any) -> str:
        return await self._one(Kind.UNARY_UNARY, _each(request), context)

    async def stream_unary(self, requests: AsyncIterator[str], context: Any) -> str:
        return await self._one(Kind.STREAM_UNARY, requests, context)

    async def unary_stream(self, request: str, context: Any) -> AsyncIterator[str]:
        async for answer in self._many(Kind.UNARY_STREAM, _each(request), context):
            yield answer

    async def stream_stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        async for answer in self._many(Kind.STREAM_STREAM, requests, context):
            yield answer

    async def _one(self, kind: Kind, requests: AsyncIterator[str], context: Any) -> str:
        answers = [answer async for answer in self._many(kind, requests, context)]
        return answers[0]

    async def _many(self, kind: Kind, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        number = number_of(context)
        # A client that has gone looks like one that has finished: only what is complete is executed.
        received = [request async for request in requests]
        if len(received) != len(asked(number, kind)):
            await context.abort(grpc.StatusCode.CANCELLED, "the client has gone while it sent")
        self._register.executed(number)
        for answer in answered(number, kind, received[0]):
            await asyncio.sleep(WORK)
            yield answer


async def _each(message: str) -> AsyncIterator[str]:
    yield message


def services(handlers: Any) -> tuple[grpc.GenericRpcHandler, ...]:
    """The same handlers under all the names, so that a client's interceptors can treat them differently."""
    methods = {kind.value: make(getattr(handlers, kind.value), decode, encode) for kind, make in MAKE.items()}
    return tuple(grpc.method_handlers_generic_handler(name, methods) for name in SERVICES)


# --- the process ------------------------------------------------------------------------------------------------------


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _obey(register: Register) -> None:
    """Do as the standard input says, until it ends."""
    for line in sys.stdin:
        register.change(json.loads(line))
        _say("ok")
    os._exit(1)


def _serve_plainly(address: str, register: Register) -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    interceptor = server_interceptor(register.arrived, register.spoilt)
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), interceptors=[interceptor])
    server.add_generic_rpc_handlers(services(Plain(register)))
    server.add_insecure_port(address)
    server.start()
    _say("ready")
    while not stopped.wait(0.1):
        pass  # the system may give the signal to another thread: then nothing wakes this one, which has to handle it
    server.stop(GRACE).wait()


async def _serve_async(address: str, register: Register) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = grpc.aio.server(interceptors=[server_interceptor(register.arrived, register.spoilt)])
    server.add_generic_rpc_handlers(services(Async(register)))
    server.add_insecure_port(address)
    await server.start()
    _say("ready")
    await stopped.wait()
    await server.stop(GRACE)


def main(address: str, path: str, sort: str, work: str = "") -> None:
    """Serve until told to stop."""
    global WORK  # noqa: PLW0603  a process has one
    WORK = float(work) if work else WORK
    logging.getLogger("interpose").setLevel(logging.ERROR)  # it warns that faults are on, which is the point
    register = Register(path)
    threading.Thread(target=_obey, args=(register,), daemon=True).start()
    if sort == "plain":
        _serve_plainly(address, register)
    else:
        asyncio.run(_serve_async(address, register))
    os._exit(0)  # a handler that is stuck shall not keep the process


if __name__ == "__main__":
    main(*sys.argv[1:])
