"""What the facts about servers share: handlers of every shape, on the servers of the file or on ones of their own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, errors, server_interceptor
from interpose.testing.echo import decode, encode
from tests.facts.hosting import HOSTS, NO_CORE_RETRIES, served
from tests.facts.serving import KINDS, MAKE, SERVICE, Client
from tests.support.patience import PATIENCE


@dataclass(frozen=True)
class Shape:
    """A sort of server, a kind of RPC, and the way to answer it.

    writes: an async handler that uses `await context.read()` and `await context.write()`.
    """

    sort: str
    kind: str
    writes: bool = False

    def __str__(self) -> str:
        return f"{self.sort}-{self.kind}{'-rw' if self.writes else ''}"

    @property
    def waits(self) -> bool:
        """Is it a handler that can await?"""
        return self.sort == "async"

    @property
    def uploads(self) -> bool:
        return self.kind.startswith("stream")

    @property
    def streams(self) -> bool:
        return self.kind.endswith("stream")


SORTS = list(HOSTS)

SYNC = [Shape("sync", kind) for kind in KINDS]
PLAIN = [Shape("plain", kind) for kind in KINDS]
ASYNC = [
    Shape("async", kind, writes) for kind in KINDS for writes in (False, True) if kind != "unary_unary" or not writes
]
ALL = [*SYNC, *PLAIN, *ASYNC]
# Every sort, kind, and way to answer, in pairs: where more than these would only multiply.
FEW = [
    Shape("sync", "unary_unary"),
    Shape("sync", "stream_stream"),
    Shape("plain", "stream_unary"),
    Shape("plain", "unary_stream"),
    Shape("async", "unary_unary"),
    Shape("async", "stream_unary", writes=True),
    Shape("async", "unary_stream"),
    Shape("async", "stream_stream", writes=True),
]
UNARY = [Shape(sort, "unary_unary") for sort in SORTS]


def shapes(among: Iterable[Shape]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("shape", list(among), ids=str)


each_sort = pytest.mark.parametrize("sort", SORTS)


# --- handlers ---------------------------------------------------------------------------------------------------------

Body = Callable[[Any], Any]  # of the context; what it gives may have to be awaited


async def done(result: Any) -> Any:
    """What a call of the context gives, which has to be awaited on an asyncio server."""
    return await result if inspect.isawaitable(result) else result


def settled(result: Any) -> Any:
    """What a body gives that never really waits."""
    if not inspect.iscoroutine(result):
        return result
    try:
        result.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a plain handler cannot wait")


async def drained(shape: Shape, requests: Any, context: Any) -> list[str]:
    """The requests of an async handler, read the way that its shape says."""
    if not shape.writes:
        return [request async for request in requests]
    found = []
    while (request := await context.read()) is not grpc.aio.EOF:
        found.append(request)
    return found


def handling(shape: Shape, body: Body) -> dict[str, Any]:
    """A handler that reads its requests, and answers once with what `body` makes of the context."""

    def plain(argument: Any, context: Any) -> Any:
        if shape.uploads:
            list(argument)
        return settled(body(context))

    def plain_stream(argument: Any, context: Any) -> Iterator[Any]:
        yield plain(argument, context)

    async def answer(argument: Any, context: Any) -> Any:
        if shape.uploads:
            await drained(shape, argument, context)
        return await done(body(context))

    async def stream(argument: Any, context: Any) -> AsyncIterator[Any]:
        yield await answer(argument, context)

    async def writing(argument: Any, context: Any) -> None:
        await context.write(await answer(argument, context))

    if not shape.waits:
        return {shape.kind: plain_stream if shape.streams else plain}
    return {shape.kind: (writing if shape.writes else stream) if shape.streams else answer}


def sending(shape: Shape, messages: Callable[[Any], Iterator[str]], closed: Callable[[], Any] = lambda: None) -> Any:
    """A handler that streams these messages, made from its context; `closed` is called when it is over."""

    def plain(argument: Any, context: Any) -> Iterator[str]:
        try:
            yield from messages(context)
        finally:
            closed()

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        try:
            for message in messages(context):
                yield message
        finally:
            closed()

    async def writing(argument: Any, context: Any) -> None:
        try:
            for message in messages(context):
                await context.write(message)
        finally:
            closed()

    return {shape.kind: (writing if shape.writes else stream) if shape.waits else plain}


class Flood:
    """A handler's endless stream of one message, which says when it has sent one and when it was closed."""

    def __init__(self, shape: Shape, message: str = "a", first: Callable[[Any], Any] = lambda context: None) -> None:
        self.started, self.closed = threading.Event(), threading.Event()
        self._message = message

        def messages(context: Any) -> Iterator[str]:
            first(context)
            return self.messages()

        self.handlers = sending(shape, messages, self.closed.set)

    def messages(self) -> Iterator[str]:
        while True:
            yield self._message
            self.started.set()


def echoing(sort: str) -> dict[str, Any]:
    """A unary handler that answers with its request."""

    def plain(request: str, _: Any) -> str:
        return request

    async def waiting(request: str, _: Any) -> str:
        return request

    return {"unary_unary": waiting if sort == "async" else plain}


def answering(response: Any) -> Body:
    return lambda _: response


def raising(error: BaseException | type[BaseException]) -> Body:
    def body(_: Any) -> Any:
        raise error

    return body


def blocked(event: threading.Event) -> Iterator[str]:
    """A request stream that is open and silent until the event."""
    event.wait(PATIENCE)
    yield from ()


class Held:
    """A handler's body that says when it was entered, and stays until it is let go.

    over: a plain handler's RPC has ended, or an async handler has. raised: what an async handler saw.
    """

    def __init__(self) -> None:
        self.entered, self.over, self._go = threading.Event(), threading.Event(), threading.Event()
        self.active: list[bool] = []
        self.raised: list[BaseException] = []
        self._let_go: Callable[[], Any] = self._go.set

    def __call__(self, context: Any) -> Any:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._block(context)
        return self._wait(loop)

    def release(self) -> None:
        self._let_go()

    def _block(self, context: Any) -> str:
        context.add_callback(self.over.set)
        self.entered.set()
        assert self._go.wait(PATIENCE)
        self.active.append(context.is_active())
        return "late"

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> str:
        go = asyncio.Event()
        self._let_go = lambda: loop.call_soon_threadsafe(go.set)
        self.entered.set()
        try:
            await asyncio.wait_for(go.wait(), PATIENCE)
        except BaseException as error:
            self.raised.append(error)
            raise
        finally:
            self.over.set()
        return "late"


def refusing(call: Call) -> Flow:
    raise errors.Unauthenticated("who are you?")
    yield call


def _shared(_: float | None) -> None:
    raise AssertionError("a server that is shared is not stopped: serve(…, own=True)")


@contextmanager
def serve(
    shape: Shape | str,
    handlers: dict[str, Any],
    *flows: Interceptor,
    interceptors: Sequence[Any] | None = None,
    services: Sequence[Any] = (),
    own: bool = False,
    **options: Any,
) -> Iterator[Client]:
    """Serve these handlers, functions by the kind of RPC, with `flows` around them; calls are of the shape's kind.

    interceptors: native interceptor objects for grpc, instead of `flows`. With neither the server is bare.
    services: generic handlers, or functions that add a servicer to a server of the test's own.
    own: not the shared server and channel, but ones to be stopped and closed. options: of such a server, see `served`.
    """
    sort, kind = (shape, "unary_unary") if isinstance(shape, str) else (shape.sort, shape.kind)
    if interceptors is None:
        interceptors = [server_interceptor(*flows)] if flows else []
    made = {name: MAKE[name](given, decode, encode) if callable(given) else given for name, given in handlers.items()}
    offered = [grpc.method_handlers_generic_handler(SERVICE, made), *services]
    if own or options:
        with (
            served(sort, offered, interceptors, **{"workers": 4} | options) as (server, target, stop),
            _channel(target) as channel,
        ):
            yield Client(channel, target, server, stop, kind)
    else:
        with HOSTS[sort].serving(offered, interceptors) as target, _channel(target) as channel:
            yield Client(channel, target, None, _shared, kind)


@contextmanager
def _channel(target: str) -> Iterator[grpc.Channel]:
    channel = grpc.insecure_channel(target, [NO_CORE_RETRIES])
    try:
        yield channel
    finally:
        channel.close()
