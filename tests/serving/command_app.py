"""Applications for `interpose serve` in a process of its own.

Many tests start one, and two thirds of that would be the import of all interceptors and of interpose.testing.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from interpose import Call, Flow
from interpose.serving import drain

GREETING = os.environ.get("GREETING", "")


def passes(call: Call) -> Flow:
    return (yield call)


stack = [passes]


def encode(text: Any) -> bytes:
    """An asyncio server has encoded it already."""
    return text if isinstance(text, bytes) else str(text).encode()


def _register(server: Any, greet: Any) -> None:
    handler = grpc.unary_unary_rpc_method_handler(greet, bytes.decode, encode)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shop", {"unary_unary": handler}),))


def _say_begun() -> None:
    sys.stdout.write("begun\n")
    sys.stdout.flush()


def app(server: Any) -> Iterator[None]:
    def greet(text: str, context: Any) -> str:
        return f"{GREETING}, {text}"

    _register(server, greet)
    yield
    sys.stdout.write("cleaned up\n")
    sys.stdout.flush()


async def async_app(server: Any) -> AsyncIterator[None]:
    async def greet(text: str, context: Any) -> str:
        return f"{GREETING}, {text}"

    _register(server, greet)
    yield
    sys.stdout.write("cleaned up\n")
    sys.stdout.flush()


def stubborn(server: Any) -> None:
    def greet(text: str, context: Any) -> str:
        _say_begun()
        time.sleep(600)  # never to its end: the test is that the process does not wait for it
        return text

    _register(server, greet)


def left_behind(server: Any) -> None:
    """The same, with little time for the handlers that are left."""
    drain.CLEAN_UP = 0.1  # seconds
    stubborn(server)


def failing(server: Any) -> None:
    raise KeyError("no database")


def slow(server: Any) -> None:
    """Answers with its process; a request "wait" waits for SIGUSR1."""
    gate = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: gate.set())

    def greet(text: str, context: Any) -> str:
        if text == "wait":
            _say_begun()
            gate.wait()
        return os.environ["PROMETHEUS_MULTIPROC_DIR"] if text == "metrics" else str(os.getpid())

    _register(server, greet)


LASTS = 0.5  # seconds that the calls of the two below take


def lasting(server: Any) -> None:
    """Answers after a while."""

    def greet(text: str, context: Any) -> str:
        _say_begun()
        time.sleep(LASTS)  # the work
        return text

    _register(server, greet)


async def async_lasting(server: Any) -> None:
    """The same on asyncio."""

    async def greet(text: str, context: Any) -> str:
        _say_begun()
        await asyncio.sleep(LASTS)  # the work
        return text

    _register(server, greet)


def answering(answer: str) -> Any:
    """An application with one answer for all."""
    return lambda server: _register(server, lambda text, context: answer)
