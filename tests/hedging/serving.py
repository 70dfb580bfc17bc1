"""A service that gives each copy of a hedged call what its script says, and the ways to call it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from interpose import Call, Flow, Interceptor, Kind, Outcome, intercept_channel
from interpose._clock import SYSTEM, Clock
from interpose.testing import no_task_leaks
from interpose.testing.echo import decode, encode
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
FAR = 3600.0  # a delay that no test waits for
SOON = 0.01
PATH = "/hedged.Service/Call"
NO_CORE_RETRIES = [("grpc.enable_retries", 0)]


@dataclass(frozen=True)
class Messages:
    """A stream of responses: some, more of them once the gate is open, and the end.

    together: copies that have to be there before any of them delivers. pause: seconds in front of each message.
    """

    texts: tuple[str, ...] = ()
    gate: threading.Event | None = None
    more: tuple[str, ...] = ()
    end: grpc.StatusCode = grpc.StatusCode.OK
    together: int = 0
    pause: float = 0.0

    async def all(self) -> AsyncIterator[str]:
        for text in self.texts:
            await asyncio.sleep(self.pause)
            yield text
        if self.gate is not None:
            assert await asyncio.to_thread(self.gate.wait, PATIENCE)
        for text in self.more:
            yield text


# What a copy gets: an answer, a failure, "hang", an answer once this event is set, a failure before it has read on, or a
# stream. A response stream that is given an answer has three messages: "second 1", "second 2", "second 3".
Act = str | grpc.StatusCode | threading.Event | tuple[grpc.StatusCode] | Messages


@dataclass
class Copy:
    """One copy as the server saw it."""

    metadata: dict[str, Any]
    requests: list[str] = field(default_factory=list)
    whole: bool = False  # the stream came to its end
    cancelled: threading.Event = field(default_factory=threading.Event)


class Service:
    """Gives each copy the next act of its script."""

    def __init__(self, *acts: Act, on_start: Callable[[int], object] = lambda number: None) -> None:
        self._acts = iter(acts)
        self._on_start = on_start
        self.copies: list[Copy] = []
        self.started = threading.Semaphore(0)
        self.second = threading.Event()  # a second copy has come
        self.address = ""
        self._arrived = asyncio.Condition()

    async def unary(self, request: str, context: Any) -> str:
        return await self._copy(_only(request), context)

    async def stream(self, requests: AsyncIterator[str], context: Any) -> str:
        return await self._copy(requests, context)

    async def watch(self, request: str, context: Any) -> AsyncIterator[str]:
        async for message in self._stream(_only(request), context):
            yield message

    async def chat(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        async for message in self._stream(requests, context):
            yield message

    def _begin(self, context: Any) -> tuple[Act, Copy]:
        """Another copy has come."""
        act = next(self._acts, "late")
        copy = Copy(dict(context.invocation_metadata()))
        self.copies.append(copy)
        if len(self.copies) == 2:
            self.second.set()
        return act, copy

    async def _stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        act, copy = self._begin(context)
        try:
            async for request in requests:
                copy.requests.append(request)
            copy.whole = True
            self.started.release()
            if act == "hang":
                await asyncio.Event().wait()
            if isinstance(act, grpc.StatusCode):
                await context.abort(act, f"copy {len(self.copies)}")
            messages = act if isinstance(act, Messages) else Messages(tuple(f"{act} {number}" for number in (1, 2, 3)))
            await self._meet(messages.together)
            await context.send_initial_metadata((("x-copy", str(self.copies.index(copy) + 1)),))
            async for message in messages.all():
                yield message
            if messages.end is not grpc.StatusCode.OK:
                await context.abort(messages.end, "broken")
        except (asyncio.CancelledError, GeneratorExit):  # the latter while grpc was sending
            copy.cancelled.set()
            raise

    async def _meet(self, together: int) -> None:
        async with self._arrived:
            self._arrived.notify_all()
            await self._arrived.wait_for(lambda: len(self.copies) >= together)

    async def _copy(self, requests: AsyncIterator[str], context: Any) -> str:
        act, copy = self._begin(context)
        try:
            async for request in requests:
                copy.requests.append(request)
                if isinstance(act, tuple):
                    await context.abort(act[0], "before the end of the stream")
            copy.whole = True
            self.started.release()
            self._on_start(len(self.copies))
            if act == "hang":
                await asyncio.Event().wait()
            if isinstance(act, threading.Event):
                await asyncio.to_thread(act.wait, PATIENCE)
                return "slow"
            if isinstance(act, grpc.StatusCode):
                await context.abort(act, f"copy {len(self.copies)}")
        except asyncio.CancelledError:
            copy.cancelled.set()
            raise
        return str(act)

    @property
    def handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            "Call": grpc.unary_unary_rpc_method_handler(self.unary, decode, encode),
            "Stream": grpc.stream_unary_rpc_method_handler(self.stream, decode, encode),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, decode, encode),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, decode, encode),
        }
        return grpc.method_handlers_generic_handler("hedged.Service", methods)


async def _only(request: str) -> AsyncIterator[str]:
    yield request


@contextmanager
def served(*acts: Act, on_start: Callable[[int], object] = lambda number: None) -> Iterator[Service]:
    """An asyncio server on a thread of its own, where a handler that is cancelled knows it."""
    service = Service(*acts, on_start=on_start)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service.handlers,))
        service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server

    async def stop() -> None:
        await server.stop(None)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=PATIENCE)
        await (
            loop.shutdown_asyncgens()
        )  # the loop closes those that a cancelled handler has dropped, in tasks of their own
        await loop.shutdown_default_executor()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE)
    try:
        yield service
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


@dataclass(frozen=True)
class Way:
    """A way to make a call with a unary response."""

    name: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name}-{self.kind.value}"

    def call(
        self, service: Service, *stack: Interceptor, timeout: float | None = PATIENCE, clock: Clock = SYSTEM
    ) -> Any:
        """The response; raises the failure."""
        if self.name == "aio":
            return asyncio.run(self._call(service, stack, timeout, clock))
        native = grpc.insecure_channel(service.address, NO_CORE_RETRIES)
        with intercept_channel(native, *stack, clock=clock) as channel:
            stub = self.stub(channel)
            if self.name == "blocking":
                return stub(self.request, timeout=timeout)
            return stub.future(self.request, timeout=timeout).result(PATIENCE)

    async def _call(self, service: Service, stack: tuple[Interceptor, ...], timeout: float | None, clock: Clock) -> Any:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, *stack, clock=clock) as channel:
            return await asyncio.wait_for(self.stub(channel)(self.request, timeout=timeout), PATIENCE)

    def stub(self, channel: Any) -> Any:
        if self.kind is Kind.UNARY_UNARY:
            return channel.unary_unary(PATH, encode, decode)
        return channel.stream_unary("/hedged.Service/Stream", encode, decode)

    @property
    def request(self) -> Any:
        return "a" if self.kind is Kind.UNARY_UNARY else iter(["a", "b", "c"])

    @property
    def requests(self) -> list[str]:
        return ["a"] if self.kind is Kind.UNARY_UNARY else ["a", "b", "c"]


@dataclass(frozen=True)
class Gated(Way):
    """Gives the second message of its stream only when the server has seen a second copy."""

    gate: threading.Event

    @property
    def request(self) -> Any:
        return self._later() if self.name == "aio" else self._blocking()

    def _blocking(self) -> Iterator[str]:
        yield "a"
        assert self.gate.wait(PATIENCE)
        yield from ("b", "c")

    async def _later(self) -> AsyncIterator[str]:
        yield "a"
        assert await asyncio.to_thread(self.gate.wait, PATIENCE)
        for text in ("b", "c"):
            yield text


WAYS = [Way(name, kind) for name in ("blocking", "future", "aio") for kind in (Kind.UNARY_UNARY, Kind.STREAM_UNARY)]


def hedge(copies: int = 2, delay: float = SOON) -> Interceptor:
    def flow(call: Call) -> Flow:
        yield call.hedged(copies=copies, delay=delay)

    return flow


def watch(outcomes: list[Outcome]) -> Interceptor:
    def flow(call: Call) -> Flow:
        outcomes.append((yield call))

    return flow


def ruled(verdict: Any = None, ready: Any = None, copies: int = 3, delay: float = FAR) -> Interceptor:
    def flow(call: Call) -> Flow:
        yield call.hedged(copies=copies, delay=delay, verdict=verdict, ready=ready)

    return flow


@dataclass(frozen=True)
class Reading:
    """A way to read a response stream."""

    asyncio: bool
    kind: Kind

    def __str__(self) -> str:
        return f"{'aio' if self.asyncio else 'sync'}-{self.kind.value}"

    def read(self, service: Service, *stack: Interceptor, timeout: float | None = PATIENCE) -> list[str]:
        """All messages; what it fails with is raised."""
        messages: list[str] = []
        self.into(messages, service, *stack, timeout=timeout)
        return messages

    def into(
        self, messages: list[str], service: Service, *stack: Interceptor, timeout: float | None = PATIENCE
    ) -> None:
        """All messages, those before a failure included."""
        if self.asyncio:
            asyncio.run(self._into(messages, service, stack, timeout))
            return
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            for message in self.stub(channel)(self.request, timeout=timeout):
                messages.append(message)  # noqa: PERF402  what came before a failure counts

    async def _into(
        self, messages: list[str], service: Service, stack: tuple[Interceptor, ...], timeout: float | None
    ) -> None:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), *stack)
        async with channel, no_task_leaks():
            async for message in self.stub(channel)(self.request, timeout=timeout):
                messages.append(message)  # noqa: PERF401  what came before a failure counts

    def stub(self, channel: Any) -> Any:
        if self.kind is Kind.UNARY_STREAM:
            return channel.unary_stream("/hedged.Service/Watch", encode, decode)
        return channel.stream_stream("/hedged.Service/Chat", encode, decode)

    @property
    def request(self) -> Any:
        return "a" if self.kind is Kind.UNARY_STREAM else iter(["a", "b", "c"])

    @property
    def requests(self) -> list[str]:
        return ["a"] if self.kind is Kind.UNARY_STREAM else ["a", "b", "c"]


STREAMS = [Kind.UNARY_STREAM, Kind.STREAM_STREAM]
READINGS = [Reading(on_asyncio, kind) for on_asyncio in (False, True) for kind in STREAMS]
WATCH = READINGS[0]
AIO_WATCH = READINGS[2]


def open_watch(service: Service, *stack: Interceptor, clock: Clock = SYSTEM) -> Any:
    """A sync stream, and its channel."""
    channel = intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack, clock=clock)
    return channel, WATCH.stub(channel)("a", timeout=PATIENCE if clock is SYSTEM else None)


def both_started(service: Service) -> None:
    for _ in range(2):
        assert service.started.acquire(timeout=PATIENCE)


def told(outcomes: list[Outcome], event: threading.Event) -> Interceptor:
    """Keeps the outcomes, and says when."""

    def flow(call: Call) -> Flow:
        outcomes.append((yield call))
        event.set()

    return flow
