"""What the facts about clients share: one way to call on both stacks, services that obey the test, and watchers."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, errors, intercept_channel
from interpose._clock import SYSTEM, Clock
from interpose.testing.echo import SERVICE, decode, encode, path
from tests.facts.hosting import HOSTS, LOOP, reached
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

# What a caller is told of a call that was cancelled: by a stream, by a future, on asyncio.
GIVEN_UP = (errors.Cancelled, grpc.FutureCancelledError, futures.CancelledError)


@dataclass(frozen=True)
class Way:
    """How an application calls: "blocking", by a "future", or on "aio"; streams of the sync stack are "blocking"."""

    stack: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.stack}-{self.kind.value}"

    @property
    def aio(self) -> bool:
        return self.stack == "aio"

    @property
    def uploads(self) -> bool:
        return self.kind.request_streaming

    @property
    def streams(self) -> bool:
        return self.kind.response_streaming


EVERY = [
    *(Way("blocking", kind) for kind in Kind),
    *(Way("future", kind) for kind in Kind if not kind.response_streaming),
    *(Way("aio", kind) for kind in Kind),
]
STARTED = [way for way in EVERY if way.stack != "blocking" or way.streams]  # what does not block
STREAMS = [way for way in EVERY if way.streams]
SYNC_STREAMS = [way for way in STREAMS if not way.aio]
UPLOADS = [way for way in EVERY if way.uploads]
FUTURES = [way for way in STARTED if not way.streams]
SYNC_FUTURES = [way for way in FUTURES if not way.aio]
UNARY = [way for way in EVERY if way.kind is Kind.UNARY_UNARY]
# Both stacks and each kind, in pairs: where more than these would only multiply.
FEW = [
    Way("blocking", Kind.UNARY_UNARY),
    Way("blocking", Kind.STREAM_STREAM),
    Way("future", Kind.STREAM_UNARY),
    Way("aio", Kind.UNARY_UNARY),
    Way("aio", Kind.UNARY_STREAM),
    Way("aio", Kind.STREAM_UNARY),
]


# What the echo service answers to "a", "b".
FULL = {
    Kind.UNARY_UNARY: ["a"],
    Kind.UNARY_STREAM: ["a", "a", "a"],
    Kind.STREAM_UNARY: ["a,b"],
    Kind.STREAM_STREAM: ["a", "b"],
}


def ways(among: Iterable[Way]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", list(among), ids=str)


channels = ways([Way("blocking", Kind.UNARY_UNARY), Way("aio", Kind.UNARY_UNARY)])


# --- calls ------------------------------------------------------------------------------------------------------------


def requested(kind: Kind, *requests: str) -> Any:
    messages = requests or ("a",)
    return iter(messages) if kind.request_streaming else messages[0]


async def answered(call: Any) -> list[str]:
    """The messages of an asyncio call, however it gives them; raises its failure."""
    if isinstance(call, (grpc.aio.UnaryStreamCall, grpc.aio.StreamStreamCall)):
        return [message async for message in call]
    return [await call]


class Ongoing:
    """An RPC under way, asked in the same words on both stacks."""

    def __init__(self, way: Way, call: Any) -> None:
        self.way = way
        self.native = call
        self._iterator: Any = None

    def messages(self) -> list[str]:
        """Wait for the end; raises the failure."""
        if self.way.aio:
            return LOOP.run(answered(self.native))
        return list(self.native) if self.way.streams else [self.native.result(PATIENCE)]

    def next(self) -> str:
        """The next message of a stream."""
        if not self.way.aio:
            return str(next(self.native))

        async def following() -> str:
            self._iterator = self._iterator or aiter(self.native)
            return str(await anext(self._iterator))

        return LOOP.run(following())

    def ask(self, name: str) -> Any:
        """What a method of the call answers, which has to be awaited on asyncio for what only its end can tell."""
        if not self.way.aio:
            return getattr(self.native, name)()

        async def answer() -> Any:
            answer = getattr(self.native, name)()
            return await answer if hasattr(answer, "__await__") else answer

        return LOOP.run(answer())

    def code(self) -> grpc.StatusCode:
        found: grpc.StatusCode = self.ask("code")
        return found

    def cancel(self) -> bool:
        return bool(self.ask("cancel"))

    def done(self) -> bool:
        return bool(self.ask("done"))

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        if self.way.aio:
            LOOP.do(lambda: self.native.add_done_callback(callback))
        else:
            self.native.add_done_callback(callback)

    def drop(self) -> None:
        """Nobody holds the call any more."""

        def forget() -> None:
            self.native = self._iterator = None

        LOOP.do(forget) if self.way.aio else forget()
        gc.collect()


class Link:
    """A channel with interceptors to a service of the test."""

    def __init__(self, way: Way, target: str, native: Any, channel: Any) -> None:
        self.way = way
        self.target = target
        self.native = native
        self.channel = channel

    def over(self, channel: Any) -> Link:
        """The same over another channel."""
        return Link(self.way, self.target, self.native, channel)

    def stub(self, serialize: Any = encode, **options: Any) -> Any:
        return getattr(self.channel, self.way.kind.value)(path(self.way.kind), serialize, decode, **options)

    def start(self, *requests: str, argument: Any = None, stub: Any = None, **options: Any) -> Ongoing:
        """Start an RPC without waiting. argument: the request, or the stream of requests, instead of `requests`."""
        stub = self.stub() if stub is None else stub
        send = stub if self.way.aio or self.way.streams else stub.future
        given = requested(self.way.kind, *requests) if argument is None else argument
        return Ongoing(self.way, LOOP.do(lambda: send(given, **options)) if self.way.aio else send(given, **options))

    def call(self, *requests: str, argument: Any = None, stub: Any = None, **options: Any) -> list[str]:
        """Perform an RPC to its end; gives its messages or raises its failure."""
        if self.way.stack != "blocking" or self.way.streams:
            return self.start(*requests, argument=argument, stub=stub, **options).messages()
        given = requested(self.way.kind, *requests) if argument is None else argument
        return [(self.stub() if stub is None else stub)(given, **options)]

    def close(self) -> None:
        LOOP.run(self.channel.close()) if self.way.aio else self.channel.close()


@contextmanager
def connected(
    way: Way,
    target: str,
    *interceptors: Interceptor,
    options: Iterable[tuple[str, Any]] = (),
    clock: Clock = SYSTEM,
    below: Any = None,
    above: Any = None,
) -> Iterator[Link]:
    """A channel with interceptors; below, above: native interceptors, on the sync stack."""
    if way.aio:
        native = LOOP.do(lambda: grpc.aio.insecure_channel(target, list(options)))
        channel = LOOP.do(lambda: intercept_channel(native, *interceptors, clock=clock))
        try:
            yield Link(way, target, native, channel)
        finally:
            LOOP.run(channel.close())
        return
    with grpc.insecure_channel(target, list(options)) as native:
        inner = grpc.intercept_channel(native, below) if below else native
        channel = intercept_channel(inner, *interceptors, clock=clock)
        yield Link(way, target, native, grpc.intercept_channel(channel, above) if above else channel)


@contextmanager
def opened(way: Way, service: Any, *interceptors: Interceptor, **options: Any) -> Iterator[Link]:
    """Serve, connect, and clean up; no task of a client is left."""
    with (
        HOSTS["sync"].serving([service.handlers(asyncio=False)]) as target,
        closing(service),
        connected(way, target, *interceptors, **options) as link,
    ):
        yield link


@contextmanager
def closing(service: Any) -> Iterator[None]:
    try:
        yield
    finally:
        service.close()


@asynccontextmanager
async def aio_opened(
    service: Any, *interceptors: Interceptor, options: Iterable[tuple[str, Any]] = ()
) -> AsyncIterator[Any]:
    """The same for a test on the loop: gives the native channel and the intercepted one."""
    host = HOSTS["sync"]
    host.services = [service.handlers(asyncio=False)]
    native = grpc.aio.insecure_channel(host.target, list(options))
    channel = intercept_channel(native, *interceptors)
    try:
        yield AioLink(host.target, native, channel)
    finally:
        service.close()
        await channel.close()
        host.stop_serving()


class AioLink:
    """An asyncio channel with interceptors, and the bare one below it, for a test on the loop."""

    def __init__(self, target: str, native: grpc.aio.Channel, channel: grpc.aio.Channel) -> None:
        self.target = target
        self.native = native
        self.channel = channel

    def stub(self, kind: Kind, *, bare: bool = False) -> Any:
        return getattr(self.native if bare else self.channel, kind.value)(path(kind), encode, decode)

    def start(self, kind: Kind, *requests: str, **options: Any) -> Any:
        """Start an RPC without waiting."""
        return self.stub(kind)(requested(kind, *requests), **options)

    async def call(self, kind: Kind, *requests: str, **options: Any) -> list[str]:
        """Perform an RPC to its end; gives its messages or raises its failure."""
        return await answered(self.start(kind, *requests, **options))


class Background:
    """Work on a thread of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._future: futures.Future[Any] = futures.Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> Any:
        """What the work gave or raised; TimeoutError if it hangs."""
        try:
            return self._future.result(PATIENCE)
        finally:
            self._thread.join(PATIENCE)


def in_time(work: Callable[[], Any]) -> Any:
    """Do the work; TimeoutError if it hangs."""
    return Background(work).result()


# --- services ---------------------------------------------------------------------------------------------------------


class Service:
    """Plain handlers by kind, under the name of the echo service."""

    def handlers(self, *, asyncio: bool) -> grpc.GenericRpcHandler:
        found = {kind.value: getattr(self, kind.value, None) for kind in Kind}
        made = {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(handler, decode, encode)
            for kind, handler in found.items()
            if handler
        }
        return grpc.method_handlers_generic_handler(SERVICE, made)

    def close(self) -> None:
        pass


class Gate(Service):
    """A service that says when it has begun, and goes on when it is let; a stream has sent one message by then."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)  # released for each RPC that reaches a handler
        self.go = threading.Event()
        self.ended = threading.Semaphore(0)  # released for each RPC that grpc tells the handler is over

    def close(self) -> None:
        self.go.set()

    def wait_begun(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.begun.acquire(timeout=PATIENCE), "no RPC has come"

    def wait_ended(self, times: int = 1) -> None:
        """Wait until the server has heard of the end, while its handler is still held."""
        for _ in range(times):
            assert self.ended.acquire(timeout=PATIENCE), "the server was not told"

    def begin(self, context: grpc.ServicerContext) -> None:
        context.add_callback(self.ended.release)
        self.begun.release()

    def unary_unary(self, argument: Any, context: grpc.ServicerContext) -> str:
        self.begin(context)
        self.go.wait(PATIENCE)
        return "answer"

    def unary_stream(self, argument: Any, context: grpc.ServicerContext) -> Iterator[str]:
        self.begin(context)
        yield "first"
        self.go.wait(PATIENCE)
        yield "last"

    stream_unary = unary_unary
    stream_stream = unary_stream


class SlowFirst(Gate):
    """A service whose first RPC answers when it is let, and every other at once."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()

    def unary_unary(self, argument: Any, context: grpc.ServicerContext) -> str:
        first = next(self._numbers) == 0
        self.begin(context)
        if first:
            self.go.wait(PATIENCE)
        return "first" if first else "second"

    stream_unary = unary_unary


class Uploads(Service):
    """A service for request streams: fails the first attempts by script, and notes what the others read to the end."""

    def __init__(self, *reads: int | None) -> None:
        self._reads = list(reads)  # how many messages to read before a failure, per attempt; then all, and an answer
        self.seconds = threading.Event()  # set once a second attempt has begun
        self.begun = 0
        self.complete: list[list[str]] = []

    def close(self) -> None:
        self.seconds.set()

    def stream_unary(self, requests: Iterator[str], context: grpc.ServicerContext) -> str:
        self.begun += 1
        if self.begun == 2:
            self.seconds.set()
        reads = self._reads.pop(0) if self._reads else None
        messages = list(itertools.islice(requests, reads))
        if reads is not None:
            context.abort(UNAVAILABLE, "as scripted")
        self.complete.append(messages)
        return ",".join(messages)


# --- flows ------------------------------------------------------------------------------------------------------------


class Watch:
    """A flow that notes its outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._ended = threading.Event()

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        self.outcomes.append(outcome)
        self._ended.set()

    def outcome(self) -> Outcome:
        """The one outcome there was, or will soon be."""
        assert self._ended.wait(PATIENCE), "the flow was told nothing"
        [outcome] = self.outcomes
        return outcome

    async def told(self) -> Outcome:
        """The same for a test on the loop."""
        await reached(self._ended)
        [outcome] = self.outcomes
        return outcome


def passing(call: Call) -> Flow:
    yield call


def again(call: Call) -> Flow:
    """Send a call that failed once more, if it can be."""
    outcome = yield call
    if not outcome.ok and outcome.replayable:
        yield call


def kept(call: Call) -> Flow:
    """Send a call that failed once more; its requests are kept."""
    outcome = yield call.buffered()
    if not outcome.ok and outcome.replayable:
        yield call.buffered()


def hooked(call: Call) -> Flow:
    yield call.tap(requests=lambda _: None, responses=lambda _: None)


def buffered(max_bytes: int) -> Interceptor:
    def buffer(call: Call) -> Flow:
        yield call.buffered(max_bytes)

    return buffer


def late(call: Call) -> Flow:
    yield call.after(60)
