"""The differential suite of clients that leave: cancelled in the middle, out of time, or gone before anything came."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.compat import interceptors
from tests.compat.apis import ORIGINAL, OURS, Api
from tests.compat.observing import PATH, aserved, served
from tests.compat.services import Book, Text

METADATA = (("act", "leave"),)
STACKS = [
    (),
    ("watch",),
    ("rewrite",),
    ("status", "rewrite"),
    ("own rules", "watch"),
    ("rewrite", "unknown is internal"),
]
DEADLINE = 1.0  # seconds; long enough for a first message on a busy machine


def leave(api: Api, stack: tuple[str, ...], way: str) -> Any:
    """What handler and interceptors of a sync server saw, and how it ended for the client."""
    book, over = Book(), threading.Event()

    def endless(request: Text, context: Any) -> Iterator[Text]:
        try:
            while True:
                yield request
        finally:
            book.add(context, "handler is over")
            over.set()

    made = interceptors.sync(api, book, "unary_stream")
    handler = grpc.unary_stream_rpc_method_handler(endless, Text.read, Text.write)
    with served(handler, [made[name]() for name in stack]) as channel:
        stream = channel.unary_stream(PATH, str.encode, bytes.decode)(
            "a", metadata=METADATA, timeout=DEADLINE if way == "deadline" else None
        )
        first = next(stream)
        if way == "cancel":
            stream.cancel()
        with pytest.raises(grpc.RpcError):
            for _ in stream:
                pass
        assert over.wait(20)
    return first, stream.code(), book.calls


@pytest.mark.parametrize(
    ("stack", "way"), [*((stack, "cancel") for stack in STACKS), (("own rules", "watch"), "deadline")]
)
@pytest.mark.slow
def test_a_sync_stream_is_left_alike(stack: tuple[str, ...], way: str) -> None:
    """Generators of handlers and interceptors are closed in the same order."""
    assert leave(OURS, stack, way) == leave(ORIGINAL, stack, way)


async def aleave(api: Api, shape: str, stack: tuple[str, ...], way: str) -> Any:
    """The same on asyncio, where all that waits is cancelled."""
    book, waiting, over = Book(), asyncio.Event(), asyncio.Event()

    async def waits(request: Text, context: Any) -> Text:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except BaseException as error:
            book.add(context, "handler saw", type(error).__name__)
            raise
        finally:
            over.set()
        return request

    async def generates(request: Text, context: Any) -> AsyncIterator[Text]:
        yield request
        yield await waits(request, context)

    async def writes(request: Text, context: Any) -> None:
        await context.write(request)
        await waits(request, context)

    kind, behaviour = {
        "unary": ("unary_unary", waits),
        "generator": ("unary_stream", generates),
        "writer": ("unary_stream", writes),
    }[shape]
    made = interceptors.aio(api, book, kind)
    handler = getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, Text.read, Text.write)
    async with aserved(handler, [made[name]() for name in stack]) as channel:
        call = getattr(channel, kind)(PATH, str.encode, bytes.decode)(
            "a", metadata=METADATA, timeout=DEADLINE if way == "deadline" else None
        )
        first = None if kind == "unary_unary" else await call.read()
        if way == "cancel":
            await asyncio.wait_for(waiting.wait(), 20)
            call.cancel()
        code = await call.code()
        await asyncio.wait_for(over.wait(), 20)
    return first, code, sorted(book.calls.get("leave", ()), key=str)


# Where a handler writes, stacks and rewriting are intended differences.
ASYNCIO = [(shape, stack, "cancel") for shape in ("unary", "generator") for stack in STACKS]
ASYNCIO += [("writer", stack, "cancel") for stack in ((), ("watch",), ("status",), ("own rules",), ("gate",))]
ASYNCIO += [("unary", ("own rules", "watch"), "deadline"), ("generator", ("status", "rewrite"), "deadline")]
ASYNCIO += [("writer", ("watch",), "deadline")]


@pytest.mark.parametrize(("shape", "stack", "way"), ASYNCIO)
async def test_an_asyncio_call_is_left_alike(shape: str, stack: tuple[str, ...], way: str) -> None:
    """Handler and interceptors see the same cancellation."""
    assert await aleave(OURS, shape, stack, way) == await aleave(ORIGINAL, shape, stack, way)
