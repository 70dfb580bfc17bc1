"""An application whose requests say how their calls end, behind a stack that refuses by token: endings.py lists both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from texts_pb2 import Text

from interpose import Call, Flow, Kind, errors, identity
from interpose.contrib.validate import Validate
from interpose.interceptors import (
    HEALTH_AND_REFLECTION,
    AccessLog,
    Authenticate,
    Authorize,
    ConcurrencyLimit,
    Deadline,
    ExceptionToStatus,
    Fixed,
    Identity,
    Limit,
    RateLimit,
    RequestId,
    StaticTokens,
    require,
)
from tests.interop.calling import MAKE, NAMES, SERVICE
from tests.interop.clients.endings import ABORTED, FAILED, LARGE, LONG_TRAILER, SOLD_OUT

CALLERS = [Identity(name, {"call"}) for name in ("caller", "greedy", "crowd")]
LONGEST = 600  # seconds that a handler waits for the end of its RPC
one_at_a_time = ConcurrencyLimit(Fixed(1), queue=0)
waiting: set[object] = set()  # a mark for each handler that does


def crowded(call: Call) -> Flow:
    """One call of the caller "crowd" at a time."""
    caller = identity()
    if caller is not None and caller.subject == "crowd":
        return (yield from one_at_a_time(call))
    return (yield call)


def greedy(call: Call) -> str | None:
    caller = identity()
    return "greedy" if caller is not None and caller.subject == "greedy" else None


stack = [
    RequestId(),
    AccessLog(),
    Deadline(LONGEST),
    Authenticate(
        StaticTokens({who.subject: who for who in [*CALLERS, Identity("guest")]}), public=HEALTH_AND_REFLECTION
    ),
    Authorize({f"/{SERVICE}/*": require("call")}),
    RateLimit([Limit("1/day", key=greedy)]),
    crowded,
    Validate(),
    ExceptionToStatus(),
]


def ending(text: str, context: Any) -> Any:
    """What ends the call, or its answer; an abort on asyncio has to be awaited."""
    if text == "abort":
        return context.abort(grpc.StatusCode.NOT_FOUND, ABORTED)
    if text == "rich":
        raise errors.FailedPrecondition(FAILED, SOLD_OUT)
    if text == "bug":
        raise RuntimeError("password is hunter2")
    if text == "words":
        context.set_trailing_metadata((("word", "a"), ("word", "b")))
    if text == "long":
        context.set_trailing_metadata((("word", "x" * LONG_TRAILER),))
    if text == "compressed":
        context.set_compression(grpc.Compression.Gzip)
    if text == "waiting":
        return Text(value=str(len(waiting)))
    return Text(value="x" * LARGE if text in ("large", "compressed") else text)


def app(server: Any) -> None:
    """The application of a sync server."""

    def answer(request: Any, context: Any) -> Any:
        text = request.value if isinstance(request, Text) else [message.value for message in request][-1]
        if text == "wait":
            over = threading.Event()
            waiting.add(over)
            if context.add_callback(over.set):
                over.wait(LONGEST)
            waiting.discard(over)
        return ending(text, context)

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield answer(request, context)

    _register(server, answer, stream)


async def async_app(server: Any) -> None:
    """The application of an asyncio server."""

    async def answer(request: Any, context: Any) -> Any:
        text = request.value if isinstance(request, Text) else [message.value async for message in request][-1]
        if text == "wait":
            waiting.add(mark := object())
            try:
                await asyncio.sleep(LONGEST)  # cut short by the end of its RPC
            finally:
                waiting.discard(mark)
        made = ending(text, context)
        return made if isinstance(made, Text) else await made

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield await answer(request, context)

    _register(server, answer, stream)


def _register(server: Any, answer: Any, stream: Any) -> None:
    methods = {
        NAMES[kind]: MAKE[kind](stream if kind.response_streaming else answer, Text.FromString, Text.SerializeToString)
        for kind in Kind
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
