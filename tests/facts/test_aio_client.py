"""What grpc's asyncio client does to naive interceptors, row by row: none of it happens on an intercepted channel.

A test is named after the row of the table of facts that it holds; the table at the end of this file says where else a
row is held, and why a row has no test here.
"""

import asyncio
import collections
import contextlib
import contextvars
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from interpose import AsyncFlow, Call, Flow, Interceptor, Kind, Outcome, errors, intercept_channel, wait
from interpose.testing import Echo, failed, ok
from interpose.testing.echo import SERVICE, decode, encode, path
from tests.protos.compiled import Generated

T = TypeVar("T")

LARGE = "a" * 1_000_000  # a message that fills the room for those on their way

PATIENCE = 10.0  # seconds after which a test counts as hung

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
INTERNAL = grpc.StatusCode.INTERNAL
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN

EOF = grpc.aio.EOF


def each_of(*kinds: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.value)


ALL = each_of(*Kind)
UNARY = each_of(Kind.UNARY_UNARY, Kind.STREAM_UNARY)  # responses
STREAMING = each_of(Kind.UNARY_STREAM, Kind.STREAM_STREAM)  # responses
UPLOADING = each_of(Kind.STREAM_UNARY, Kind.STREAM_STREAM)  # requests
DOWNLOADING = each_of(Kind.UNARY_UNARY, Kind.UNARY_STREAM)  # unary requests

FULL = {
    Kind.UNARY_UNARY: ["a"],
    Kind.UNARY_STREAM: ["a", "a", "a"],
    Kind.STREAM_UNARY: ["a,b"],
    Kind.STREAM_STREAM: ["a", "b"],
}

MAKE: dict[Kind, Callable[..., Any]] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


# --- helpers ----------------------------------------------------------------------------------------------------------


async def within(work: Awaitable[T]) -> T:
    """Wait for something; TimeoutError if it hangs."""
    return await asyncio.wait_for(_awaited(work), PATIENCE)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


class Watch:
    """A flow that notes its outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._told = asyncio.Event()

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        self.outcomes.append(outcome)
        self._told.set()

    async def outcome(self) -> Outcome:
        """The one outcome there was, or will soon be."""
        await within(self._told.wait())
        [outcome] = self.outcomes
        return outcome


class Service:
    """Handlers by kind, as a server takes them."""

    def handlers(self, *, asyncio: bool) -> grpc.GenericRpcHandler:
        found = {kind: getattr(self, kind.value, None) for kind in Kind}
        methods = {kind.value: MAKE[kind](handler, decode, encode) for kind, handler in found.items() if handler}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def close(self) -> None:
        pass


class Gate(Service):
    """A service that says when it has begun, and answers when it is let; a stream gives its first message before."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)  # released for each RPC that reaches a handler
        self.go = asyncio.Event()
        self.ended = asyncio.Semaphore(0)  # released for each handler that has returned or was stopped
        self.cancelled = 0

    def close(self) -> None:
        self.go.set()

    async def unary_unary(self, argument: Any, context: Any) -> str:
        async with self._handling():
            await self.go.wait()
        return "answer"

    async def unary_stream(self, argument: Any, context: Any) -> AsyncIterator[str]:
        async with self._handling():
            yield "first"
            await self.go.wait()
            yield "last"

    stream_unary = unary_unary
    stream_stream = unary_stream

    @asynccontextmanager
    async def _handling(self) -> AsyncIterator[None]:
        self.begun.release()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.ended.release()


class Refusing(Service):
    """A service that refuses request streams before it has read of them: the first `times`, or all; then echoes."""

    def __init__(self, times: int = sys.maxsize) -> None:
        self.times = times
        self.begun = 0

    async def _refuse(self, context: Any) -> None:
        self.begun += 1
        if self.begun <= self.times:
            await context.abort(UNAUTHENTICATED, "who are you", (("x-why", "no token"),))

    async def stream_unary(self, requests: AsyncIterator[str], context: Any) -> str:
        await self._refuse(context)
        return ",".join([request async for request in requests])

    async def stream_stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        await self._refuse(context)
        async for request in requests:
            yield request


class Early(Service):
    """A service that ends a bidi call well, with three messages and trailing metadata, and reads none."""

    async def stream_stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        context.set_trailing_metadata((("x-early", "yes"),))
        for message in ("1", "2", "3"):
            yield message


class Link:
    """A channel with interceptors to a service of the test."""

    def __init__(self, target: str, server: Any, native: grpc.aio.Channel, channel: grpc.aio.Channel) -> None:
        self.target = target
        self.server = server
        self.native = native
        self.channel = channel

    def stub(self, kind: Kind, *, bare: bool = False) -> Any:
        return getattr(self.native if bare else self.channel, kind.value)(path(kind), encode, decode)

    def start(self, kind: Kind, *requests: str, bare: bool = False, **options: Any) -> Any:
        """Start an RPC without waiting."""
        return self.stub(kind, bare=bare)(requested(kind, *requests), **options)

    async def call(self, kind: Kind, *requests: str, bare: bool = False, **options: Any) -> list[str]:
        """Perform an RPC to its end; gives its messages or raises its failure."""
        return await within(answered(self.start(kind, *requests, bare=bare, **options)))


async def answered(call: Any) -> list[str]:
    """The messages of a call, however it gives them; raises its failure."""
    if isinstance(call, (grpc.aio.UnaryStreamCall, grpc.aio.StreamStreamCall)):
        return [message async for message in call]
    return [await call]


def requested(kind: Kind, *requests: str) -> Any:
    messages = requests or ("a",)
    return iter(messages) if kind.request_streaming else messages[0]


@asynccontextmanager
async def opened(
    service: Any, *interceptors: Interceptor, options: Iterable[tuple[str, Any]] = (), **more: Any
) -> AsyncIterator[Link]:
    """Serve on this loop, connect, and clean up; no task may be left."""
    before = asyncio.all_tasks()
    async with serving(service) as (target, server):
        native = grpc.aio.insecure_channel(target, list(options))
        channel = intercept_channel(native, *interceptors, **more)
        try:
            yield Link(target, server, native, channel)
        finally:
            service.close()
            await within(channel.close())
    await no_task_left(before)


@asynccontextmanager
async def serving(service: Any, address: str = "127.0.0.1:0") -> AsyncIterator[tuple[str, Any]]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service.handlers(asyncio=True),))
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield address.replace(":0", f":{port}"), server
    finally:
        service.close()
        await within(server.stop(None))


@contextmanager
def serving_in_threads(service: Any) -> Iterator[str]:
    """Serve by a sync server, so that nothing on the loop is the server's."""
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((service.handlers(asyncio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        service.close()
        server.stop(None).wait(PATIENCE)
        pool.shutdown()


async def no_task_left(before: set["asyncio.Task[Any]"]) -> None:
    """Every task that was not there before ends, without being asked to."""
    left = {task for task in asyncio.all_tasks() - before if "AioServer" not in str(task)}
    left -= {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE)
    assert not left


@contextmanager
def nobody_listens() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


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


def buffered(call: Call) -> Flow:
    yield call.buffered()


def late(call: Call) -> Flow:
    yield call.after(60)


def late_again(call: Call) -> Flow:
    """Send a call that failed once more, in a minute."""
    outcome = yield call.buffered()
    if not outcome.ok:
        yield call.buffered().after(60)


def hooked(call: Call) -> Flow:
    yield call.tap(requests=lambda _: None, responses=lambda _: None)


WRITABLE = pytest.mark.parametrize("flow", [passing, hooked, buffered], ids=["plain", "hooked", "buffered"])


# --- exactly one outcome ----------------------------------------------------------------------------------------------


@ALL
async def test_one_outcome_after_exhaustion(kind: Kind) -> None:
    """An RPC that ends well is told to the flow once, also after grpc's objects are collected."""
    watch = Watch()

    async with opened(Echo(), watch) as link:
        messages = await link.call(kind, "a", "b")
        gc.collect()

    assert messages == FULL[kind]
    assert (await watch.outcome()).ok


@ALL
async def test_one_outcome_after_an_error(kind: Kind) -> None:
    """An RPC that the server fails is told to the flow once, with the messages that came before."""
    watch = Watch()

    async with opened(Echo([failed(NOT_FOUND, after=2)]), watch) as link:
        with pytest.raises(errors.NotFound):
            await link.call(kind, "a", "b", "c")
        gc.collect()

    outcome = await watch.outcome()
    assert outcome.code is NOT_FOUND
    assert outcome.responses == (2 if kind.response_streaming else 0)


@ALL
async def test_one_outcome_after_cancel(kind: Kind) -> None:
    """cancel() ends the RPC here at once and on the server soon; a second cancel() does nothing."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        call = link.start(kind)
        await within(gate.begun.acquire())
        first, second = call.cancel(), call.cancel()
        told = list(watch.outcomes)
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        await within(gate.ended.acquire())

    assert (first, second) == (True, False)
    assert [outcome.code for outcome in told] == [CANCELLED]
    assert (await watch.outcome()).local
    assert call.done()
    assert call.cancelled()
    assert gate.cancelled == 1


@ALL
async def test_one_outcome_after_cancel_before_anything_was_sent(kind: Kind) -> None:
    """cancel() in the same breath as the call is one outcome, and leaves nothing behind."""
    watch = Watch()

    async with opened(Echo(), watch) as link:
        call = link.start(kind)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))

    assert (await watch.outcome()).code is CANCELLED


@STREAMING
async def test_one_outcome_after_cancel_in_the_middle_of_a_stream(kind: Kind) -> None:
    """cancel() between two messages counts those that were delivered."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        call = link.start(kind)
        async for message in call:
            assert message == "first"
            break
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        await within(gate.ended.acquire())

    outcome = await watch.outcome()
    assert outcome.code is CANCELLED
    assert outcome.responses == 1
    assert not outcome.replayable


@ALL
async def test_one_outcome_after_the_awaiting_task_was_cancelled(kind: Kind) -> None:
    """Cancelling the task that waits for the response cancels the RPC, here and on the server."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(gate.begun.acquire())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        await within(gate.ended.acquire())

    assert (await watch.outcome()).code is CANCELLED
    assert gate.cancelled == 1


@ALL
async def test_one_outcome_after_wait_for_ran_out(kind: Kind) -> None:
    """A `wait_for` that runs out raises TimeoutError, and the RPC is cancelled, here and on the server."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        call = link.start(kind)
        await within(gate.begun.acquire())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answered(call), 0.05)
        await within(gate.ended.acquire())

    assert (await watch.outcome()).code is CANCELLED
    assert gate.cancelled == 1


@ALL
async def test_one_outcome_after_the_deadline(kind: Kind) -> None:
    """An RPC whose deadline passes is told once, as DEADLINE_EXCEEDED."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        with pytest.raises(errors.DeadlineExceeded):
            await link.call(kind, timeout=0.1)

    assert (await watch.outcome()).code is DEADLINE_EXCEEDED


@STREAMING
async def test_one_outcome_after_the_deadline_of_a_stream_that_nobody_reads(kind: Kind) -> None:
    """A stream that is held and not read ends at its deadline, for its flow and for whoever asks."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        call = link.start(kind, timeout=0.1)
        code = await within(call.code())

    assert code is DEADLINE_EXCEEDED
    assert (await watch.outcome()).code is DEADLINE_EXCEEDED


@ALL
async def test_one_outcome_after_the_channel_was_closed(kind: Kind) -> None:
    """close() cancels what runs, as grpc's own does: the caller and the flow see it, once."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(gate.begun.acquire())
        await within(link.channel.close())
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED


@ALL
async def test_one_outcome_after_the_channel_was_closed_with_grace(kind: Kind) -> None:
    """close(grace) lets what runs end well within it."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(gate.begun.acquire())
        closing = asyncio.create_task(link.channel.close(PATIENCE))
        gate.go.set()
        messages = await within(task)
        await within(closing)

    assert messages == (["first", "last"] if kind.response_streaming else ["answer"])
    assert (await watch.outcome()).ok


@ALL
async def test_one_outcome_after_the_grace_of_close_ran_out(kind: Kind) -> None:
    """What still runs at the end of the grace is cancelled, and told once."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(gate.begun.acquire())
        await within(link.channel.close(0.05))
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED


@ALL
@pytest.mark.parametrize("grace", [None, 0.05])
async def test_closing_the_channel_ends_a_call_that_waits_to_be_sent(kind: Kind, grace: float | None) -> None:
    """A call delayed by a minute ends when its channel closes."""
    watch = Watch()

    async with opened(Echo(), watch, late) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await asyncio.sleep(0)
        await within(link.channel.close(grace))
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED


@ALL
async def test_closing_the_channel_ends_a_call_between_two_attempts(kind: Kind) -> None:
    """A retry that waits for its minute to pass ends when its channel closes; nothing is sent then."""
    watch, echo, paused = Watch(), Echo([failed(UNAVAILABLE)]), asyncio.Event()

    def pausing(call: Call) -> Flow:
        yield call.buffered()
        paused.set()
        yield call.buffered().after(60)

    async with opened(echo, watch, pausing) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(paused.wait())
        await within(link.channel.close())
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED
    assert len(echo.attempts) == 1


@ALL
async def test_closing_the_channel_ends_a_flow_that_waits(kind: Kind) -> None:
    """A flow that waits for something of its own is cancelled when the channel closes."""
    watch, waits, never = Watch(), asyncio.Event(), asyncio.Event()

    def waiting(call: Call) -> Flow:
        waits.set()
        yield from wait(never.wait())
        yield call

    async with opened(Echo(), watch, waiting) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(waits.wait())
        await asyncio.sleep(0)
        await within(link.channel.close())
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED


@ALL
@pytest.mark.parametrize("flow", [late, late_again], ids=["first", "retry"])
async def test_cancel_ends_a_call_that_waits_to_be_sent(kind: Kind, flow: Interceptor) -> None:
    """cancel() of a call that is delayed by a minute ends it at once."""
    watch, failing = Watch(), Echo([failed(UNAVAILABLE)])
    paused = asyncio.Event()

    def tell(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            paused.set()

    async with opened(failing, watch, flow, tell) as link:
        call = link.start(kind)
        waiter = asyncio.create_task(answered(call))
        if flow is late_again:
            await within(paused.wait())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(waiter)

    assert (await watch.outcome()).code is CANCELLED
    assert len(failing.attempts) == (1 if flow is late_again else 0)


@ALL
async def test_cancelling_who_awaits_ends_a_call_that_waits_to_be_sent(kind: Kind) -> None:
    """Cancelling the task that awaits a delayed call ends the call with it."""
    watch = Watch()

    async with opened(Echo(), watch, late) as link:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answered(link.start(kind)), 0.05)
        gc.collect()

    assert (await watch.outcome()).code is CANCELLED


@STREAMING
async def test_dropping_a_stream_that_waits_to_be_sent_ends_it(kind: Kind) -> None:
    """A delayed stream that the application drops is not sent any more."""
    watch = Watch()

    async with opened(Echo(), watch, late) as link:
        link.start(kind)
        gc.collect()
        outcome = await watch.outcome()

    assert outcome.code is CANCELLED


@ALL
async def test_one_outcome_after_the_server_stopped(kind: Kind) -> None:
    """A server that stops without grace fails what runs on it, once."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(gate.begun.acquire())
        await within(link.server.stop(None))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await within(task)

    assert caught.value.code() is (await watch.outcome()).code
    assert (await watch.outcome()).code in {UNAVAILABLE, CANCELLED, UNKNOWN}


@UNARY
async def test_one_outcome_for_a_call_that_is_never_awaited(kind: Kind) -> None:
    """A unary call that nobody awaits, nor even holds, is performed all the same, as grpc's own is."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        link.start(kind)
        await within(gate.begun.acquire())
        gc.collect()
        gate.go.set()
        outcome = await watch.outcome()

    assert outcome.ok
    assert gate.cancelled == 0


@UNARY
async def test_one_outcome_for_a_failure_that_is_never_awaited(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """The failure of a call that nobody awaits is told to the flow; asyncio has nothing to complain about."""
    watch = Watch()

    async with opened(Echo([failed(NOT_FOUND)]), watch) as link:
        link.start(kind)
        outcome = await watch.outcome()
        gc.collect()

    assert outcome.code is NOT_FOUND
    assert not [record for record in caplog.records if record.name == "asyncio"]


# --- when it starts, and what it costs --------------------------------------------------------------------------------


@ALL
async def test_the_rpc_starts_when_the_stub_is_called(kind: Kind) -> None:
    """The server is reached although nobody has awaited the call yet."""
    gate = Gate()

    async with opened(gate, passing) as link:
        call = link.start(kind)
        await within(gate.begun.acquire())
        gate.go.set()
        messages = await within(answered(call))

    assert messages == (["first", "last"] if kind.response_streaming else ["answer"])


@ALL
async def test_a_flow_runs_to_its_first_yield_before_the_stub_returns(kind: Kind) -> None:
    """What a flow does before it yields is done when the stub method returns."""
    seen: list[str] = []

    def note(call: Call) -> Flow:
        seen.append(str(call.method))
        yield call

    async with opened(Echo(), note) as link:
        call = link.start(kind)
        at_once = list(seen)
        await within(answered(call))

    assert at_once == [path(kind)]


@contextmanager
def counting_tasks() -> Iterator[collections.Counter[str]]:
    """The tasks that are made on this loop, by the names of their coroutines."""
    loop = asyncio.get_running_loop()
    made: collections.Counter[str] = collections.Counter()

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
        made[work.__qualname__] += 1
        return asyncio.Task(work, loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        yield made
    finally:
        loop.set_task_factory(None)


@ALL
@pytest.mark.parametrize("flow", [passing, hooked, again], ids=["passing", "hooked", "retry"])
async def test_no_task_of_our_own(kind: Kind, flow: Interceptor) -> None:
    """Where no flow waits an intercepted call makes the tasks that a bare one makes, and not one more."""
    made = {}
    with serving_in_threads(Echo()) as target:
        native = grpc.aio.insecure_channel(target)
        for name, channel in (("bare", native), ("ours", intercept_channel(native, flow))):
            stub = getattr(channel, kind.value)(path(kind), encode, decode)
            with counting_tasks() as made[name]:
                for _ in range(3):
                    await answered(stub(requested(kind, "a", "b")))
                gc.collect()
        await native.close()

    assert sum(made["bare"].values()) > 0
    assert made["ours"] == made["bare"]


@UPLOADING
@pytest.mark.parametrize("flow", [passing, hooked], ids=["passing", "hooked"])
async def test_no_task_of_our_own_for_writers(kind: Kind, flow: Interceptor) -> None:
    """Writing to an intercepted call makes the tasks that writing to a bare one makes."""
    made = {}
    with serving_in_threads(Echo()) as target:
        native = grpc.aio.insecure_channel(target)
        for name, channel in (("bare", native), ("ours", intercept_channel(native, flow))):
            stub = getattr(channel, kind.value)(path(kind), encode, decode)
            with counting_tasks() as made[name]:
                await written(stub(), "a", "b")
        await native.close()

    assert made["ours"] == made["bare"]


async def written(call: Any, *messages: str) -> list[str]:
    """Perform a call by the writer's API; gives the messages it answers."""
    for message in messages:
        await call.write(message)
    await call.done_writing()
    return await answered(call)


# --- asyncio client (A) -----------------------------------------------------------------------------------------------


@ALL
async def test_a01_one_interceptor_serves_every_kind(kind: Kind) -> None:
    """One flow runs for all four kinds; none is passed by in silence."""
    echo = Echo()

    def authenticate(call: Call) -> Flow:
        yield call.with_metadata(("authorization", "Bearer me"))

    async with opened(echo, authenticate) as link:
        await link.call(kind)

    [attempt] = echo.attempts
    assert attempt.values("authorization") == ["Bearer me"]


@ALL
async def test_a02_a_flow_is_shown_text_and_values(kind: Kind) -> None:
    """The method is text, metadata that was not given is empty, and compression is compression."""
    seen: list[Call] = []

    def look(call: Call) -> Flow:
        seen.append(call)
        yield call.with_metadata(("x-added", "1"))

    echo = Echo()
    async with opened(echo, look) as link:
        messages = await link.call(kind, "a" * 10_000, "b", compression=grpc.Compression.Gzip)

    [call] = seen
    assert str(call.method) == path(kind)
    assert call.metadata == ()
    assert call.compression is grpc.Compression.Gzip
    assert messages[0].startswith("a" * 10_000)
    assert echo.attempts[0].values("x-added") == ["1"]


@ALL
async def test_a02_the_key_that_carries_compression_is_kept(kind: Kind) -> None:
    """What an inner channel's compression needs among the metadata may be set and passes a flow."""
    seen: list[Call] = []

    def look(call: Call) -> Flow:
        seen.append(call)
        yield call.with_metadata(("grpc-internal-encoding-request", "gzip"))

    async with opened(Echo(), look) as link:
        messages = await link.call(kind, "a" * 10_000)

    assert messages[0] == "a" * 10_000


@ALL
async def test_a03_an_outer_flow_sees_the_true_end(kind: Kind) -> None:
    """Two flows deep, code, text and trailing metadata are the server's, on an outcome and on the caller's error."""
    watch, why = Watch(), (("x-why", "gone"),)

    async with opened(Echo([failed(NOT_FOUND, "no such thing", trailing=why)]), watch, passing) as link:
        with pytest.raises(errors.NotFound) as caught:
            await link.call(kind)

    outcome = await watch.outcome()
    assert outcome.code is caught.value.code() is NOT_FOUND
    assert outcome.details == caught.value.details() == "no such thing"
    assert outcome.trailing_metadata["x-why"] == caught.value.trailing_metadata()["x-why"] == "gone"


@ALL
async def test_a03_trailing_metadata_of_a_success_is_seen(kind: Kind) -> None:
    """A success has trailing metadata too, for the flow and for the caller."""
    watch = Watch()

    async with opened(Echo([ok(trailing=(("x-cost", "7"),))]), watch) as link:
        call = link.start(kind)
        await within(answered(call))
        trailing = await within(call.trailing_metadata())

    assert trailing["x-cost"] == (await watch.outcome()).trailing_metadata["x-cost"] == "7"


@ALL
async def test_a03_a_call_is_grpcs_own_kind_of_call(kind: Kind) -> None:
    """What a stub returns is an instance of grpc.aio's class for the kind, with all its questions answered."""
    native = {
        Kind.UNARY_UNARY: grpc.aio.UnaryUnaryCall,
        Kind.UNARY_STREAM: grpc.aio.UnaryStreamCall,
        Kind.STREAM_UNARY: grpc.aio.StreamUnaryCall,
        Kind.STREAM_STREAM: grpc.aio.StreamStreamCall,
    }
    told: list[Any] = []

    async with opened(Echo(), passing) as link:
        call = link.start(kind, timeout=PATIENCE)
        call.add_done_callback(told.append)
        before = (call.done(), call.cancelled())
        left = call.time_remaining()
        await within(answered(call))
        code, details = await within(call.code()), await within(call.details())
        initial, trailing = await within(call.initial_metadata()), await within(call.trailing_metadata())

    assert isinstance(call, native[kind])
    assert isinstance(call, (grpc.aio.Call, grpc.aio.RpcContext))
    assert before == (False, False)
    assert 0 < left <= PATIENCE
    assert (code, details) == (OK, "")
    assert (list(initial), list(trailing)) == ([], [])
    assert told == [call]
    assert call.done()
    assert not call.cancel()
    assert not call.cancelled()


@ALL
async def test_a04_a_failure_is_a_value_for_flows_and_an_exception_for_callers(kind: Kind) -> None:
    """Nothing is raised where the stub is called or in a flow; awaiting raises what is native and typed."""
    watch = Watch()

    async with opened(Echo([failed(NOT_FOUND)]), watch) as link:
        call = link.start(kind)
        with pytest.raises(grpc.RpcError) as caught:
            await within(answered(call))

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert isinstance(caught.value, errors.NotFound)
    assert (await watch.outcome()).error is caught.value


@ALL
async def test_a05_a_call_answered_by_a_flow_answers_every_question(kind: Kind) -> None:
    """An answer made by a flow, with nothing sent, is a call like any other, to be asked, cancelled and dropped."""
    answer: Any = ["x", "y"] if kind.response_streaming else "x"

    def cached(call: Call) -> Flow:
        return Outcome.success(answer, trailing_metadata=(("x-cache", "hit"),))
        yield call

    echo = Echo()
    async with opened(echo, cached) as link:
        call = link.start(kind)
        messages = await within(answered(call))
        code, trailing = await within(call.code()), await within(call.trailing_metadata())
        initial = await within(call.initial_metadata())
        cancelled = call.cancel()
        await within(call.wait_for_connection())

    assert messages == list(answer)
    assert code is OK
    assert trailing["x-cache"] == "hit"
    assert list(initial) == []
    assert not cancelled
    assert not echo.attempts


@ALL
async def test_a05_a_call_refused_by_a_flow_answers_every_question(kind: Kind) -> None:
    """A refusal made by a flow is raised where a server's would be, and says that it was made here."""

    def refuse(call: Call) -> Flow:
        raise errors.PermissionDenied("not you", local=True)
        yield call

    async with opened(Echo(), refuse) as link:
        call = link.start(kind)
        with pytest.raises(errors.PermissionDenied) as caught:
            await within(answered(call))
        code, details = await within(call.code()), await within(call.details())
        with pytest.raises(errors.PermissionDenied):
            await within(call.wait_for_connection())

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert caught.value.local
    assert (code, details) == (grpc.StatusCode.PERMISSION_DENIED, "not you")


async def test_a06_a_flow_that_awaits_the_outcome_does_not_block_the_writer() -> None:
    """Messages go to and fro on a bidi call while its flow waits for the end."""
    watch = Watch()

    class Chat(Service):
        async def stream_stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
            async for request in requests:
                yield request.upper()

    heard = []
    async with opened(Chat(), watch) as link:
        call = link.stub(Kind.STREAM_STREAM)()
        for message in ("a", "b"):
            await within(call.write(message))
            heard.append(await within(call.read()))
        early = list(watch.outcomes)
        await within(call.done_writing())
        last = await within(call.read())

    assert heard == ["A", "B"]
    assert last is EOF
    assert early == []
    assert (await watch.outcome()).responses == 2


@UPLOADING
@WRITABLE
async def test_a06_the_writers_api_works_through_flows(kind: Kind, flow: Interceptor) -> None:
    """`write` and `done_writing` reach the server, whatever the flow does with the messages."""
    watch = Watch()

    async with opened(Echo(), watch, flow) as link:
        messages = await within(written(link.stub(kind)(), "a", "b"))

    assert messages == FULL[kind]
    assert (await watch.outcome()).requests == 2


@UPLOADING
async def test_a06_what_is_written_can_be_changed_on_its_way(kind: Kind) -> None:
    """A map changes the messages of a writer as it changes those of an iterator."""

    def shout(call: Call) -> Flow:
        yield call.map(requests=str.upper)

    async with opened(Echo(), shout) as link:
        messages = await within(written(link.stub(kind)(), "a", "b"))

    assert messages == [message.upper() for message in FULL[kind]]


@UPLOADING
@pytest.mark.parametrize("keep", [False, True], ids=["plain", "buffered"])
async def test_a06_a_hook_that_refuses_what_is_written_ends_the_rpc(kind: Kind, keep: bool) -> None:
    """A status raised by a map of requests ends the RPC of a writer, for the writer too."""
    watch, gate = Watch(), Gate()

    def refuse(message: str) -> str:
        raise errors.InvalidArgument("not this")

    def refusing(call: Call) -> Flow:
        call = call.map(requests=refuse)
        yield call.buffered() if keep else call

    async with opened(gate, watch, refusing) as link:
        call = link.stub(kind)()
        with pytest.raises(errors.InvalidArgument) as caught:
            await within(call.write("a"))
        with pytest.raises(errors.InvalidArgument):
            await within(answered(call))

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert (await watch.outcome()).code is grpc.StatusCode.INVALID_ARGUMENT


@UPLOADING
async def test_a06_what_was_written_is_sent_again(kind: Kind) -> None:
    """A call that is written to is sent again in full where its messages are kept."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)])

    async with opened(echo, watch, kept) as link:
        messages = await within(written(link.stub(kind)(), "a", "b"))

    assert messages == FULL[kind]
    assert [attempt.requests for attempt in echo.attempts] == [["a", "b"], ["a", "b"]]
    assert (await watch.outcome()).attempts == 2


@UPLOADING
@WRITABLE
async def test_a06_what_is_first_written_to_a_refused_call_reaches_the_next(kind: Kind, flow: Interceptor) -> None:
    """A message that the first attempt never took is written to the second, and none is lost or doubled."""
    service = Refusing(times=1)
    refused = asyncio.Event()

    def watch(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            refused.set()
            yield call

    async with opened(service, watch, flow) as link:
        call = link.stub(kind)()
        await within(refused.wait())
        messages = await within(written(call, "a", "b"))

    assert messages == FULL[kind]
    assert service.begun == 2


@UPLOADING
@WRITABLE
async def test_a06_the_end_of_an_empty_upload_reaches_the_next_attempt(kind: Kind, flow: Interceptor) -> None:
    """`done_writing` holds for every attempt, not only for the one that was under way."""
    service = Echo([failed(UNAVAILABLE)])

    async with opened(service, again, flow) as link:
        messages = await within(written(link.stub(kind)()))

    assert messages == ([] if kind.response_streaming else [""])
    assert len(service.attempts) == 2


@UPLOADING
@WRITABLE
async def test_a06_writing_after_the_end_of_the_upload_is_an_error(kind: Kind, flow: Interceptor) -> None:
    """After `done_writing`, which may be called twice, `write` says what grpc's own says."""
    async with opened(Gate(), flow) as link:
        call = link.stub(kind)()
        await within(call.write("a"))
        await within(call.done_writing())
        await within(call.done_writing())
        with pytest.raises(asyncio.InvalidStateError, match="half closed"):
            await within(call.write("b"))
        call.cancel()


@UPLOADING
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "ours"])
@pytest.mark.parametrize("flow", [passing, buffered], ids=["plain", "buffered"])
async def test_a06_a_writer_that_is_cancelled_cancels_the_rpc(kind: Kind, bare: bool, flow: Interceptor) -> None:
    """Cancelling the task that writes cancels the RPC: on an intercepted channel as on a bare one."""
    gate, watch, writing = Gate(), Watch(), asyncio.Event()

    async def write(call: Any) -> None:
        writing.set()
        await flood(call, LARGE)

    async with opened(gate, watch, flow) as link:
        call = link.stub(kind, bare=bare)()
        await within(call.write("a"))  # a bare call that is not connected yet would not mind
        await within(gate.begun.acquire())
        task = asyncio.create_task(write(call))
        await within(writing.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        code = await within(call.code())
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        await within(gate.ended.acquire())

    assert code is CANCELLED
    assert call.cancelled()
    assert bare or (await watch.outcome()).code is CANCELLED


@UPLOADING
@WRITABLE
async def test_a06_a_writer_that_waits_when_the_call_ends_is_told(kind: Kind, flow: Interceptor) -> None:
    """A `write` that waits for room ends with the RPC, with the RPC's failure."""
    gate = Gate()

    async with opened(gate, flow) as link:
        call = link.stub(kind)(timeout=0.3)
        with pytest.raises((errors.DeadlineExceeded, asyncio.InvalidStateError)):
            await within(flood(call, LARGE))
        code = await within(call.code())

    assert code is DEADLINE_EXCEEDED


@UPLOADING
async def test_a06_iterators_and_writers_do_not_mix(kind: Kind) -> None:
    """Writing to a call that was given an iterator is a UsageError, as it is in grpc."""
    async with opened(Gate(), passing) as link:
        call = link.start(kind)
        with pytest.raises(grpc.aio.UsageError):
            await within(call.write("b"))
        with pytest.raises(grpc.aio.UsageError):
            await within(call.done_writing())
        call.cancel()


@STREAMING
async def test_a06_iterating_and_reading_do_not_mix(kind: Kind) -> None:
    """A call that is iterated cannot be read, nor the other way round: a UsageError, as in grpc."""
    gate = Gate()

    async with opened(gate, passing) as link:
        iterated, read = link.start(kind), link.start(kind)
        assert await within(anext(aiter(iterated))) == "first"
        assert await within(read.read()) == "first"
        with pytest.raises(grpc.aio.UsageError):
            await within(iterated.read())
        with pytest.raises(grpc.aio.UsageError):
            aiter(read)
        iterated.cancel()
        read.cancel()


@STREAMING
async def test_a06_reading_gives_the_messages_and_then_eof(kind: Kind) -> None:
    """`read` gives each message, then EOF as often as it is asked; a failure is raised as often."""
    async with opened(Echo([ok(), failed(NOT_FOUND, after=1)]), passing) as link:
        call = link.start(kind, "a", "b")
        messages = [await within(call.read()) for _ in FULL[kind]]
        ends = [await within(call.read()) for _ in range(2)]
        broken = link.start(kind, "a", "b")
        first = await within(broken.read())
        for _ in range(2):
            with pytest.raises(errors.NotFound):
                await within(broken.read())

    assert messages == FULL[kind]
    assert ends == [EOF, EOF]
    assert first == "a"


class Prompt(Service):
    """A service whose streams end at once, and say so."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def unary_unary(self, request: str, context: Any) -> str:
        return request

    async def unary_stream(self, argument: Any, context: Any) -> AsyncIterator[str]:
        for message in ("1", "2", "3"):
            yield message
        self.ended.set()

    stream_stream = unary_stream


@STREAMING
async def test_a06_a_stream_that_is_read_late_is_read_whole(kind: Kind) -> None:
    """Messages that wait while nobody reads are all there when somebody does, though the server has long ended."""
    service = Prompt()

    async with opened(service, passing) as link:
        call = link.start(kind)
        await within(service.ended.wait())
        await link.call(Kind.UNARY_UNARY)  # on the same connection, so the stream's end has come before its answer
        messages = await within(answered(call))

    assert messages == ["1", "2", "3"]


class Unserializable:
    """A message that no serializer takes."""


def raising(message: Any) -> bytes:
    raise ValueError("no message of mine")


SERIALIZERS = pytest.mark.parametrize("serialize", [raising, encode], ids=["raises", "gives no bytes"])


@ALL
@SERIALIZERS
async def test_a07_a_message_that_cannot_be_serialized_ends_the_call(kind: Kind, serialize: Any) -> None:
    """A request that cannot be serialized fails the call for whoever awaits it, and is told once, with its cause."""
    watch = Watch()

    async with opened(Gate(), watch) as link:
        message: Any = Unserializable()
        stub = getattr(link.channel, kind.value)(path(kind), serialize, decode)
        call = stub(iter([message]) if kind.request_streaming else message)
        with pytest.raises(errors.Internal) as caught:
            await within(answered(call))

    outcome = await watch.outcome()
    assert caught.value.local
    assert outcome.local
    assert isinstance(caught.value.__cause__, ValueError if serialize is raising else type(None))


@ALL
@SERIALIZERS
async def test_a07_asking_for_the_code_of_such_a_call_does_not_hang(kind: Kind, serialize: Any) -> None:
    """`code()` of a call whose request cannot be serialized is answered, though nobody awaits or reads it."""
    watch = Watch()

    async with opened(Gate(), watch) as link:
        message: Any = Unserializable()
        stub = getattr(link.channel, kind.value)(path(kind), serialize, decode)
        call = stub(iter([message]) if kind.request_streaming else message)
        code = await within(call.code())

    assert code is (await watch.outcome()).code
    assert code is not OK


@ALL
async def test_a08_a_call_knows_the_time_it_has(kind: Kind) -> None:
    """`time_remaining()` of an intercepted call works, with and without a deadline, also while it waits to be sent."""
    async with opened(Gate(), late) as link:
        timed, endless = link.start(kind, timeout=PATIENCE), link.start(kind)
        left, never = timed.time_remaining(), endless.time_remaining()
        timed.cancel()
        endless.cancel()

    assert 0 < left <= PATIENCE
    assert never is None


@UPLOADING
@WRITABLE
async def test_a08_writing_to_a_cancelled_call_is_an_error(kind: Kind, flow: Interceptor) -> None:
    """After cancel(), `write` says what grpc's own bare call says, and `done_writing` does nothing."""
    async with opened(Gate(), flow) as link:
        calls = link.stub(kind)(), link.stub(kind, bare=True)()
        said = []
        for call in calls:
            await within(call.write("a"))
            call.cancel()
            with pytest.raises(asyncio.InvalidStateError) as caught:
                await within(call.write("b"))
            said.append(str(caught.value))
            await within(call.done_writing())

    assert said[0] == said[1]


async def _counted() -> AsyncIterator[str]:
    for message in ("a", "b"):
        yield message


def _plainly() -> Iterator[str]:
    yield from ("a", "b")


@UPLOADING
@WRITABLE
@pytest.mark.parametrize(
    "make", [lambda: ["a", "b"], lambda: iter(("a", "b")), _plainly, _counted], ids=["list", "iter", "plain", "async"]
)
async def test_a09_request_streams_of_every_sort(kind: Kind, flow: Interceptor, make: Callable[[], Any]) -> None:
    """Lists, iterators, generators and asynchronous generators of requests all arrive."""
    async with opened(Echo(), flow) as link:
        messages = await within(answered(link.stub(kind)(make())))

    assert messages == FULL[kind]


@ALL
async def test_a10_a_channel_that_exists_is_intercepted(kind: Kind) -> None:
    """A channel that somebody else made gets interceptors, and keeps what a channel can do."""
    watch = Watch()

    async with opened(Echo()) as link:
        native = grpc.aio.insecure_channel(link.target)
        async with intercept_channel(native, watch) as channel:
            await within(channel.channel_ready())
            state = channel.get_state()
            await within(answered(getattr(channel, kind.value)(path(kind), encode, decode)(requested(kind))))
        closed = native.get_state()

    assert isinstance(channel, grpc.aio.Channel)
    assert state is grpc.ChannelConnectivity.READY
    assert closed is grpc.ChannelConnectivity.SHUTDOWN
    assert (await watch.outcome()).ok


async def test_a10_changes_of_the_connection_are_seen() -> None:
    """`wait_for_state_change` and `get_state(try_to_connect=True)` are the native channel's."""
    async with opened(Echo(), passing) as link:
        before = link.channel.get_state(try_to_connect=True)
        await within(link.channel.wait_for_state_change(before))
        after = link.channel.get_state()

    assert before is grpc.ChannelConnectivity.IDLE
    assert after is not grpc.ChannelConnectivity.IDLE


class Broken(Exception):
    """What a request stream raises in these tests."""


@UPLOADING
@WRITABLE
@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "plain"])
async def test_a11_c11_an_exception_of_the_request_stream_is_the_cause(
    kind: Kind, flow: Interceptor, asynchronous: bool
) -> None:
    """A request stream that raises fails the call with UNKNOWN, caused by what it raised, not with CancelledError."""
    watch, broken = Watch(), Broken("in the middle")

    def plain() -> Iterator[str]:
        yield "a"
        raise broken

    async def slow() -> AsyncIterator[str]:
        for message in plain():
            yield message

    async with opened(Gate(), watch, flow) as link:
        call = link.stub(kind)(slow() if asynchronous else plain())
        with pytest.raises(errors.Unknown) as caught:
            await within(answered(call))

    assert caught.value.__cause__ is broken
    assert caught.value.local
    outcome = await watch.outcome()
    assert outcome.code is UNKNOWN
    assert outcome.error is not None
    assert outcome.error.__cause__ is broken


@STREAMING
async def test_a12_c22_cancel_after_an_early_break_is_told_at_once(kind: Kind) -> None:
    """`break` and `cancel()` are one outcome, while the call is still held."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        call = link.start(kind)
        async for _ in call:
            break
        call.cancel()
        told = list(watch.outcomes)
        await within(gate.ended.acquire())

    assert [(outcome.code, outcome.responses) for outcome in told] == [(CANCELLED, 1)]
    assert call.cancelled()


@ALL
@pytest.mark.parametrize("way", ["call.cancel", "task.cancel", "wait_for"])
async def test_a13_a_flow_cannot_swallow_a_cancellation(kind: Kind, way: str) -> None:
    """A flow that answers a cancelled call with a success breaks neither `wait_for` nor whoever cancelled."""
    gate, outcomes = Gate(), list[Outcome]()

    def swallow(call: Call) -> Flow:
        outcomes.append((yield call))
        return Outcome.success()

    async with opened(gate, swallow) as link:
        call = link.start(kind)
        task = asyncio.create_task(answered(call))
        await within(gate.begun.acquire())
        await asyncio.sleep(0)
        if way == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.05)
        else:
            (call if way == "call.cancel" else task).cancel()
            if way == "task.cancel":
                with pytest.raises(asyncio.CancelledError):
                    await within(task)
            else:
                await within(asyncio.wait({task}))
        await within(gate.ended.acquire())

    assert [outcome.code for outcome in outcomes] == [CANCELLED]
    assert call.cancelled()


@UNARY
async def test_a13_closing_the_channel_ends_a_hedged_call(kind: Kind) -> None:
    """A channel that closes cancels every copy of a hedged call; nothing more is sent on it."""
    watch, gate = Watch(), Gate()

    def hedge(call: Call) -> Flow:
        yield call.hedged(copies=3, delay=0.02)

    async with opened(gate, watch, hedge) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        for _ in range(2):
            await within(gate.begun.acquire())
        await within(link.channel.close())
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED


@UNARY
async def test_a13_cancelling_a_hedged_call_cancels_every_copy(kind: Kind) -> None:
    """cancel() reaches all copies of a hedged call on the server, and is one outcome."""
    watch, gate = Watch(), Gate()

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=3, delay=0)

    async with opened(gate, watch, hedge) as link:
        call = link.start(kind)
        for _ in range(3):
            await within(gate.begun.acquire())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        for _ in range(3):
            await within(gate.ended.acquire())

    assert (await watch.outcome()).code is CANCELLED
    assert gate.cancelled == 3


@ALL
async def test_a14_c12_time_spent_in_a_flow_is_not_given_again(kind: Kind) -> None:
    """What a flow took of the deadline is missing at the server, at each attempt."""
    echo = Echo([failed(UNAVAILABLE)])

    def slow(call: Call) -> Flow:
        yield from wait(asyncio.sleep(0.2))
        yield call.buffered()
        yield from wait(asyncio.sleep(0.2))
        yield call.buffered()

    async with opened(echo, slow) as link:
        await link.call(kind, timeout=5)

    left = [attempt.time_remaining for attempt in echo.attempts]
    assert left[0] is not None
    assert left[1] is not None
    assert left[0] <= 4.85
    assert left[1] <= 4.65


@ALL
async def test_c12_a_timeout_of_one_attempt_stays_within_the_deadline(kind: Kind) -> None:
    """An attempt's own timeout shortens what is left, and never lengthens it."""
    echo = Echo([failed(UNAVAILABLE)])

    def short_then_long(call: Call) -> Flow:
        yield call.buffered().with_timeout(2)
        yield call.buffered().with_timeout(3600)

    async with opened(echo, short_then_long) as link:
        await link.call(kind, timeout=5)

    left = [attempt.time_remaining or 0 for attempt in echo.attempts]
    assert 0 < left[0] <= 2.1
    assert 2.1 < left[1] <= 5.1


@UNARY
async def test_a15_the_slower_of_two_copies_is_cancelled(kind: Kind) -> None:
    """Once a copy has answered, the other is cancelled on the server."""

    class SlowFirst(Gate):
        served = 0

        async def unary_unary(self, argument: Any, context: Any) -> str:
            self.served += 1
            first = self.served == 1
            async with self._handling():
                if first:
                    await self.go.wait()
            return "first" if first else "second"

        stream_unary = unary_unary

    watch, gate = Watch(), SlowFirst()

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=2, delay=0.02)

    async with opened(gate, watch, hedge) as link:
        [answer] = await link.call(kind)
        for _ in range(2):
            await within(gate.ended.acquire())

    assert answer == "second"
    assert gate.cancelled == 1
    assert (await watch.outcome()).ok


@ALL
async def test_a16_a_callback_that_comes_late_is_called_at_once(kind: Kind) -> None:
    """`add_done_callback` on a call that has ended calls back, with the call."""
    told: list[Any] = []

    async with opened(Echo(), passing) as link:
        call = link.start(kind)
        await within(answered(call))
        call.add_done_callback(told.append)

    assert told == [call]


# --- awaiting ---------------------------------------------------------------------------------------------------------


@UNARY
@pytest.mark.parametrize("flow", [passing, kept], ids=["once", "retried"])
async def test_awaiting_twice_gives_the_same(kind: Kind, flow: Interceptor) -> None:
    """A call may be awaited again, and gives its response again."""
    async with opened(Echo([failed(UNAVAILABLE)] if flow is kept else []), flow) as link:
        call = link.start(kind)
        first, second = await within(call), await within(call)

    assert first == second == "a"


@UNARY
async def test_awaiting_a_failure_twice_raises_twice(kind: Kind) -> None:
    """A failed call raises each time it is awaited."""
    async with opened(Echo([failed(NOT_FOUND)]), passing) as link:
        call = link.start(kind)
        for _ in range(2):
            with pytest.raises(errors.NotFound):
                await within(call)


@UNARY
@pytest.mark.parametrize("flow", [passing, kept, hooked], ids=["once", "retried", "hooked"])
async def test_two_tasks_may_await_one_call(kind: Kind, flow: Interceptor) -> None:
    """Two tasks that await one call, before it has ended, both get the response; a third gets it afterwards."""
    watch = Watch()

    async with opened(
        Echo([failed(UNAVAILABLE, delay=0.02)] if flow is kept else [ok(delay=0.02)]), watch, flow
    ) as link:
        call = link.start(kind)
        early = await within(asyncio.gather(answered(call), answered(call)))
        later = await within(call)

    assert list(early) == [["a"], ["a"]]
    assert later == "a"
    assert (await watch.outcome()).ok


@UNARY
async def test_a_call_is_awaited_before_while_and_after(kind: Kind) -> None:
    """Awaiting starts anywhere in the life of a call: while it waits to be sent, is under way, or has ended."""
    gate = Gate()

    def delayed(call: Call) -> Flow:
        yield call.after(0.05)

    async with opened(gate, delayed) as link:
        call = link.start(kind)
        before = asyncio.create_task(answered(call))
        await within(gate.begun.acquire())
        during = asyncio.create_task(answered(call))
        await asyncio.sleep(0)
        gate.go.set()
        first, second = await within(before), await within(during)
        third = await within(call)

    assert first == second == [third] == ["answer"]


@UNARY
async def test_one_of_two_waiters_is_cancelled(kind: Kind) -> None:
    """Cancelling one of two tasks that await a call cancels the RPC for both, as in grpc: one outcome."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        call = link.start(kind)
        one, other = asyncio.create_task(answered(call)), asyncio.create_task(answered(call))
        await within(gate.begun.acquire())
        await asyncio.sleep(0)
        one.cancel()
        for task in (one, other):
            with pytest.raises(asyncio.CancelledError):
                await within(task)

    assert (await watch.outcome()).code is CANCELLED


@ALL
async def test_awaiting_the_code_and_giving_up_leaves_the_rpc_alone(kind: Kind) -> None:
    """Who only asks for the code, and stops asking, has cancelled nothing."""
    gate = Gate()

    async with opened(gate, passing) as link:
        call = link.start(kind)
        await within(gate.begun.acquire())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.code(), 0.02)
        gate.go.set()
        messages = await within(answered(call))

    assert messages[-1] in {"answer", "last"}


# --- waiting for a connection -----------------------------------------------------------------------------------------


@ALL
async def test_wait_for_connection_comes_back_once_connected(kind: Kind) -> None:
    """`wait_for_connection` comes back as a bare call's does."""
    gate = Gate()
    gate.go.set()

    async with opened(gate, passing) as link:
        call = link.start(kind)
        await within(call.wait_for_connection())
        messages = await within(answered(call))

    assert messages[-1] in {"answer", "last"}


@ALL
@pytest.mark.parametrize("flow", [passing, again], ids=["once", "retried"])
async def test_wait_for_connection_raises_the_failure_to_connect(kind: Kind, flow: Interceptor) -> None:
    """Where nobody listens, `wait_for_connection` raises UNAVAILABLE, after the last attempt."""
    watch = Watch()

    with nobody_listens() as target:
        async with intercept_channel(grpc.aio.insecure_channel(target), watch, flow) as channel:
            call = getattr(channel, kind.value)(path(kind), encode, decode)(requested(kind))
            with pytest.raises(errors.Unavailable) as caught:
                await within(call.wait_for_connection())

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert (await watch.outcome()).code is UNAVAILABLE


@ALL
async def test_wait_for_connection_waits_for_a_delayed_attempt(kind: Kind) -> None:
    """A call that waits to be sent is connected once it was sent; cancelling it ends the wait."""
    async with opened(Echo(), late) as link:
        call = link.start(kind)
        waiter = asyncio.create_task(call.wait_for_connection())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(waiter)


# --- flows that wait --------------------------------------------------------------------------------------------------


@ALL
async def test_an_async_generator_is_an_interceptor(kind: Kind) -> None:
    """An `async def` generator may await before, between and after its yields."""
    steps: list[Any] = []

    async def careful(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        outcome = yield call.buffered()
        await asyncio.sleep(0)
        steps.append(outcome.code)
        outcome = yield call.buffered()
        steps.append(outcome.code)
        await asyncio.sleep(0)
        steps.append("end")

    echo = Echo([failed(UNAVAILABLE)])
    async with opened(echo, careful) as link:
        messages = await link.call(kind, "a", "b")

    assert messages == FULL[kind]
    assert steps == [UNAVAILABLE, OK, "end"]
    assert len(echo.attempts) == 2


@ALL
async def test_an_async_generator_may_refuse(kind: Kind) -> None:
    """A status raised by an `async def` generator before it yields ends the RPC; nothing is sent."""
    echo = Echo()

    async def refuse(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        raise errors.Unauthenticated("no token")
        yield call

    async with opened(echo, refuse) as link:
        with pytest.raises(errors.Unauthenticated, match="no token"):
            await link.call(kind)

    assert not echo.attempts


@ALL
async def test_an_async_generator_that_fails_is_named(kind: Kind) -> None:
    """What an `async def` generator raises by mistake is INTERNAL with its name, and without its text."""

    async def buggy(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        raise ValueError("secret")
        yield call

    async with opened(Echo(), buggy) as link:
        with pytest.raises(errors.Internal, match="buggy raised ValueError") as caught:
            await link.call(kind)

    assert "secret" not in caught.value.details()


@ALL
async def test_an_async_generator_is_cancelled_while_it_waits(kind: Kind) -> None:
    """cancel() of a call whose `async def` generator waits throws CancelledError into it, and ends the RPC."""
    watch, waits, thrown = Watch(), asyncio.Event(), asyncio.Event()

    async def stuck(call: Call) -> AsyncFlow:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            thrown.set()
        yield call

    async with opened(Echo(), watch, stuck) as link:
        call = link.start(kind)
        await within(waits.wait())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        await within(thrown.wait())

    assert (await watch.outcome()).code is CANCELLED


@ALL
async def test_an_async_generator_is_finished_when_the_call_is_cancelled(kind: Kind) -> None:
    """An `async def` generator is told of a cancelled RPC, and runs to its end."""
    gate, finished, outcomes = Gate(), asyncio.Event(), list[Outcome]()

    async def careful(call: Call) -> AsyncFlow:
        outcomes.append((yield call))
        await asyncio.sleep(0)
        finished.set()

    async with opened(gate, careful) as link:
        call = link.start(kind)
        await within(gate.begun.acquire())
        call.cancel()
        await within(finished.wait())
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))

    assert [outcome.code for outcome in outcomes] == [CANCELLED]


@ALL
async def test_a_flow_waits_for_a_value(kind: Kind) -> None:
    """`yield from wait(…)` gives what an awaitable gives, and a plain value as it is."""
    echo = Echo()

    async def token() -> str:
        await asyncio.sleep(0)
        return "fetched"

    def bearer(call: Call) -> Flow:
        fetched = yield from wait(token())
        plain = yield from wait("plain")
        yield call.with_metadata(("x-token", fetched), ("x-token", plain))

    async with opened(echo, bearer) as link:
        await link.call(kind)

    assert echo.attempts[0].values("x-token") == ["fetched", "plain"]


@ALL
async def test_a_flow_waits_for_what_raises(kind: Kind) -> None:
    """What an awaitable raises is raised in the flow, which may catch it and go on."""
    echo = Echo()

    async def token() -> str:
        await asyncio.sleep(0)
        raise LookupError("no token")

    def bearer(call: Call) -> Flow:
        try:
            yield from wait(token())
        except LookupError as error:
            call = call.with_metadata(("x-error", str(error.args[0])))
        yield call

    async with opened(echo, bearer) as link:
        await link.call(kind)

    assert echo.attempts[0].values("x-error") == ["no token"]


@ALL
@pytest.mark.parametrize("way", ["call.cancel", "task.cancel", "wait_for"])
async def test_a_flow_is_cancelled_while_it_waits(kind: Kind, way: str) -> None:
    """However a call is cancelled whose flow waits: the awaitable is cancelled, the flow told, and nothing sent."""
    echo, watch, waits, stopped = Echo(), Watch(), asyncio.Event(), asyncio.Event()
    seen: list[BaseException] = []

    async def forever() -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def waiting(call: Call) -> Flow:
        try:
            yield from wait(forever())
        except BaseException as error:
            seen.append(error)
            raise
        yield call

    async with opened(echo, watch, waiting) as link:
        call = link.start(kind)
        task = asyncio.create_task(answered(call))
        await within(waits.wait())
        if way == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.05)
        else:
            (call if way == "call.cancel" else task).cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        await within(stopped.wait())

    assert [type(error) for error in seen] == [errors.Cancelled]
    assert (await watch.outcome()).code is CANCELLED
    assert not echo.attempts


@STREAMING
async def test_a_stream_whose_flow_waits_is_dropped(kind: Kind) -> None:
    """Dropping a response stream whose flow waits cancels what it waits for."""
    watch, waits, stopped = Watch(), asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def waiting(call: Call) -> Flow:
        yield from wait(forever())
        yield call

    async with opened(Echo(), watch, waiting) as link:
        call = link.start(kind)
        await within(waits.wait())
        del call
        gc.collect()
        await within(stopped.wait())
        outcome = await watch.outcome()

    assert outcome.code is CANCELLED


# --- rows of both clients (C) -----------------------------------------------------------------------------------------


@UPLOADING
async def test_c10_a_kept_request_stream_is_sent_again_in_full(kind: Kind) -> None:
    """The second attempt sends what the first had read, and the application's iterator is read once."""
    echo, reads = Echo([failed(UNAVAILABLE)]), list[str]()

    async def messages() -> AsyncIterator[str]:
        for message in ("a", "b"):
            reads.append(message)
            yield message

    async with opened(echo, kept) as link:
        answer = await within(answered(link.stub(kind)(messages())))

    assert answer == FULL[kind]
    assert reads == ["a", "b"]
    assert [attempt.requests for attempt in echo.attempts] == [["a", "b"], ["a", "b"]]


@UPLOADING
@pytest.mark.parametrize("room", [None, 1], ids=["unbuffered", "overflow"])
async def test_c10_a_request_stream_that_is_not_kept_is_not_sent_again(kind: Kind, room: int | None) -> None:
    """Without a buffer, or past its limit, the outcome is not replayable, and the failure is the answer."""
    echo, outcomes = Echo([failed(UNAVAILABLE)]), list[Outcome]()

    def once(call: Call) -> Flow:
        outcomes.append((yield call if room is None else call.buffered(room)))

    async with opened(echo, again, once) as link:
        with pytest.raises(errors.Unavailable):
            await link.call(kind, "a", "b")

    assert [outcome.replayable for outcome in outcomes] == [False]
    assert len(echo.attempts) == 1


@UPLOADING
async def test_c10_a_request_stream_that_nobody_read_is_sent_again(kind: Kind) -> None:
    """A call that failed before its stream was asked for a message can be sent again, unbuffered."""
    echo, outcomes = Echo(), list[Outcome]()

    def hurried(call: Call) -> Flow:
        outcomes.append((yield call.with_timeout(0)))
        yield call.with_timeout(None)

    async with opened(echo, hurried) as link:
        messages = await link.call(kind, "a", "b")

    assert messages == FULL[kind]
    assert [(outcome.code, outcome.replayable) for outcome in outcomes] == [(DEADLINE_EXCEEDED, True)]


@ALL
@pytest.mark.parametrize("timeout", [0, -1])
async def test_c13_row32_without_time_nothing_is_sent(kind: Kind, timeout: float) -> None:
    """A timeout that leaves no time is DEADLINE_EXCEEDED here, and the server is not asked."""
    watch, echo = Watch(), Echo()

    async with opened(echo, watch) as link:
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await link.call(kind, timeout=timeout)

    assert caught.value.local
    assert (await watch.outcome()).code is DEADLINE_EXCEEDED
    assert not echo.attempts


@ALL
async def test_c13_an_attempt_after_the_deadline_is_not_sent(kind: Kind) -> None:
    """Once the deadline has passed in a flow, another attempt is answered here."""
    echo = Echo([failed(UNAVAILABLE)])

    def slow(call: Call) -> Flow:
        yield call.buffered()
        yield from wait(asyncio.sleep(0.3))
        yield call.buffered()

    async with opened(echo, slow) as link:
        with pytest.raises(errors.DeadlineExceeded):
            await link.call(kind, timeout=0.3)

    assert len(echo.attempts) == 1


PAIRS = (("x-a", "1"), ("x-a", "2"), ("x-b", "3"))


@ALL
@pytest.mark.parametrize(
    "metadata", [PAIRS, list(PAIRS), grpc.aio.Metadata(*PAIRS), None], ids=["tuple", "list", "Metadata", "None"]
)
async def test_c14_metadata_of_every_shape_arrives_whole(kind: Kind, metadata: Any) -> None:
    """Whatever shape the application gives, a flow may add to it; no value of a repeated key is lost."""
    echo = Echo()

    def add(call: Call) -> Flow:
        yield call.with_metadata(("x-a", "4"))

    async with opened(echo, add) as link:
        await link.call(kind, metadata=metadata)

    assert echo.attempts[0].values("x-a") == (["4"] if metadata is None else ["1", "2", "4"])
    assert echo.attempts[0].values("x-b") == ([] if metadata is None else ["3"])


@ALL
@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "a\tb", "é"], ids=repr)
async def test_c15_row56_a_flow_cannot_make_a_call_that_grpc_refuses(kind: Kind, value: str) -> None:
    """What would be "Invalid metadata" far from its cause is an error of the flow that set it, by name."""
    echo = Echo()

    def careless(call: Call) -> Flow:
        yield call.with_metadata(("x-user", value))

    async with opened(echo, careless) as link:
        with pytest.raises(errors.Internal, match="careless raised ValueError"):
            await link.call(kind)

    assert not echo.attempts


@ALL
@pytest.mark.parametrize("pair", [("X-Upper", "1"), ("x-user", "a\nb"), ("x-user", 7)], ids=["upper", "newline", "int"])
async def test_c15_row56_what_the_application_sets_wrong_is_a_local_failure(kind: Kind, pair: Any) -> None:
    """Metadata that grpc refuses ends the call, told once as a failure made here; the server is not asked."""
    watch, echo = Watch(), Echo()

    async with opened(echo, watch) as link:
        with contextlib.suppress(Exception):
            call = link.start(kind, metadata=(pair,))
            await within(answered(call))
        outcome = await watch.outcome()

    assert not outcome.ok
    assert outcome.local
    assert not echo.attempts


@ALL
async def test_c15_a_flow_may_set_keys_in_any_case(kind: Kind) -> None:
    """A flow's upper-case key travels in lower case."""
    echo = Echo()

    def add(call: Call) -> Flow:
        yield call.with_metadata(("X-Request-Id", "7"))

    async with opened(echo, add) as link:
        await link.call(kind)

    assert echo.attempts[0].values("x-request-id") == ["7"]


@pytest.mark.parametrize("key", ["grpc-timeout", "grpc-previous-rpc-attempts", "grpc-trace-bin", "grpc-status"])
async def test_c16_row55_keys_of_grpc_itself_are_refused(key: str) -> None:
    """A flow that sets a key which would never arrive, or be misread, is told so."""

    def careless(call: Call) -> Flow:
        yield call.with_metadata((key, b"1" if key.endswith("-bin") else "1"))

    async with opened(Echo(), careless) as link:
        with pytest.raises(errors.Internal, match="careless raised ValueError"):
            await link.call(Kind.UNARY_UNARY)


async def test_c18_channels_put_on_channels_are_one_stack() -> None:
    """Interceptors put on an intercepted channel stand outside those that are there; within a call the first does."""
    order: list[str] = []

    def named(name: str) -> Interceptor:
        def note(call: Call) -> Flow:
            order.append(name)
            yield call

        return note

    async with opened(Echo(), named("c"), named("d")) as link:
        channel = intercept_channel(link.channel, named("a"), named("b"))
        await within(channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)("a"))

    assert order == ["a", "b", "c", "d"]


@ALL
async def test_c18_closing_the_outer_channel_ends_what_waits(kind: Kind) -> None:
    """Of two channels put on one another, closing either ends a call that waits to be sent."""
    watch = Watch()

    async with opened(Echo(), watch, late) as link:
        channel = intercept_channel(link.channel, passing)
        call = getattr(channel, kind.value)(path(kind), encode, decode)(requested(kind))
        task = asyncio.create_task(answered(call))
        await asyncio.sleep(0)
        await within(channel.close())
        with pytest.raises(asyncio.CancelledError):
            await within(task)

    assert (await watch.outcome()).code is CANCELLED


@ALL
async def test_c19_row43_wait_for_ready_waits_to_the_deadline(kind: Kind) -> None:
    """Where nobody listens, wait_for_ready ends at the deadline; without it the call is UNAVAILABLE at once."""
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    with nobody_listens() as target:
        async with intercept_channel(grpc.aio.insecure_channel(target), note) as channel:
            stub = getattr(channel, kind.value)(path(kind), encode, decode)
            with pytest.raises(errors.Unavailable):
                await within(answered(stub(requested(kind))))
            with pytest.raises(errors.DeadlineExceeded):
                await within(answered(stub(requested(kind), wait_for_ready=True, timeout=0.2)))

    assert [outcome.code for outcome in outcomes] == [UNAVAILABLE, DEADLINE_EXCEEDED]


@ALL
async def test_c19_a_flow_sees_wait_for_ready(kind: Kind) -> None:
    """A flow can tell a call that may wait for ever: wait_for_ready, and no timeout."""
    seen: list[tuple[bool | None, float | None]] = []

    def look(call: Call) -> Flow:
        seen.append((call.wait_for_ready, call.timeout))
        yield call

    async with opened(Echo(), look) as link:
        await link.call(kind, wait_for_ready=True)
        await link.call(kind)

    assert seen == [(True, None), (None, None)]


async def test_c20_generated_stubs_work(generated: Generated) -> None:
    """A generated stub, which registers its methods, works on an intercepted channel for every kind."""
    messages, stubs = generated("features_pb2"), generated("features_pb2_grpc")
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    class Features(stubs.FeaturesServicer):  # type: ignore[name-defined,misc]
        async def Ask(self, request: Any, context: Any) -> Any:
            return request

        async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
            yield request

        async def Collect(self, requests: AsyncIterator[Any], context: Any) -> Any:
            return await anext(requests)

        async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                yield request

    server = grpc.aio.server()
    stubs.add_FeaturesServicer_to_server(Features(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with intercept_channel(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), note) as channel:
        stub, text = stubs.FeaturesStub(channel), messages.Text(text="hello")
        asked = await within(stub.Ask(text))
        listed = await within(answered(stub.List(text)))
        collected = await within(stub.Collect(iter([text])))
        chatted = await within(answered(stub.Chat(iter([text]))))
    await server.stop(None)

    assert [asked, *listed, collected, *chatted] == [text] * 4
    assert [outcome.ok for outcome in outcomes] == [True] * 4


# --- rows of the second pass ------------------------------------------------------------------------------------------


@UNARY
async def test_row01_a_local_error_is_an_outcome(kind: Kind) -> None:
    """What grpc raises itself, of credentials on an insecure channel for one, is told to the flow and raised."""
    watch = Watch()

    async with opened(Echo(), watch) as link:
        with pytest.raises(grpc.aio.UsageError) as caught:
            await within(link.stub(kind)(requested(kind), credentials=grpc.access_token_call_credentials("token")))

    outcome = await watch.outcome()
    assert outcome.code is INTERNAL
    assert outcome.local
    assert outcome.error is caught.value


@STREAMING
async def test_row03_the_failure_of_a_stream_is_raised_by_iterating(kind: Kind) -> None:
    """A stream that fails after two messages gives both, then raises; calling the stub raised nothing."""
    async with opened(Echo([failed(NOT_FOUND, after=2)]), passing) as link:
        messages = aiter(link.start(kind, "a", "b", "c"))
        first, second = await within(anext(messages)), await within(anext(messages))
        with pytest.raises(errors.NotFound):
            await within(anext(messages))

    assert len({first, second}) == (2 if kind.request_streaming else 1)


@STREAMING
async def test_row05_the_code_of_a_stream_may_be_asked_before_it_is_read(kind: Kind) -> None:
    """A task that awaits `code()` first gets it once the stream was read, and holds up nobody."""
    async with opened(Echo(), passing) as link:
        call = link.start(kind, "a", "b")
        asker = asyncio.create_task(call.code())
        await asyncio.sleep(0)
        messages = await within(answered(call))
        code = await within(asker)

    assert messages == FULL[kind]
    assert code is OK


@ALL
async def test_row06_a_flow_that_raises_ends_the_rpc_with_a_status_that_names_it(kind: Kind) -> None:
    """A ValueError of a flow is INTERNAL with its name: when awaited, and from `code()`."""

    def buggy(call: Call) -> Flow:
        raise ValueError("secret")
        yield call

    async with opened(Echo(), buggy) as link:
        call = link.start(kind)
        code = await within(call.code())
        with pytest.raises(errors.Internal, match="buggy raised ValueError") as caught:
            await within(answered(call))

    assert code is INTERNAL
    assert "secret" not in caught.value.details()
    assert isinstance(caught.value, grpc.aio.AioRpcError)


@STREAMING
async def test_row07_cancel_reaches_the_attempt_that_runs(kind: Kind) -> None:
    """cancel() of a stream that was sent again cancels its second attempt on the server."""
    watch = Watch()

    class SecondHangs(Gate):
        served = 0

        async def unary_stream(self, argument: Any, context: Any) -> AsyncIterator[str]:
            self.served += 1
            if self.served == 1:
                await context.abort(UNAVAILABLE, "not yet")
            async with self._handling():
                yield "first"
                await self.go.wait()

        stream_stream = unary_stream

    gate = SecondHangs()
    async with opened(gate, watch, kept) as link:
        call = link.start(kind)
        assert await within(anext(aiter(call))) == "first"
        call.cancel()
        await within(gate.ended.acquire())

    assert gate.cancelled == 1
    assert (await watch.outcome()).attempts == 2


@ALL
async def test_row09_whoever_waits_a_cancel_reaches_the_server(kind: Kind) -> None:
    """A task that asks for the code or metadata does not keep a cancel from the server."""
    gate = Gate()

    async with opened(gate, passing) as link:
        call = link.start(kind)
        askers = [asyncio.create_task(ask()) for ask in (call.code, call.details, call.trailing_metadata)]
        await within(gate.begun.acquire())
        call.cancel()
        code, details, _ = await within(asyncio.gather(*askers))
        await within(gate.ended.acquire())

    assert code is CANCELLED
    assert details == "Locally cancelled by application!"
    assert gate.cancelled == 1


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@ALL
async def test_row10_what_a_flow_sets_stays_in_its_flows(kind: Kind) -> None:
    """A context variable that a flow sets is there at its later steps and in inner flows, and nowhere else."""
    seen: dict[str, str] = {}

    def setting(call: Call) -> Flow:
        variable.set("of the flow")
        yield call
        seen["later"] = variable.get()

    def inner(call: Call) -> Flow:
        seen["inner"] = variable.get()
        yield call

    async with opened(Echo(), setting, inner) as link:
        call = link.start(kind, "a", "b")
        seen["after the call"] = variable.get()
        if kind.response_streaming:
            async for _ in call:
                seen["in the loop"] = variable.get()
        else:
            await within(call)
        seen["after the end"] = variable.get()

    assert seen.pop("later") == seen.pop("inner") == "of the flow"
    assert set(seen.values()) == {"unset"}


@ALL
async def test_row10_a_flow_sees_what_the_application_set(kind: Kind) -> None:
    """A flow, and what it waits for, runs in a copy of the caller's context; what an awaitable sets stays in it."""
    seen: list[str] = []

    async def look() -> None:
        seen.append(variable.get())
        variable.set("of the awaitable")

    def looking(call: Call) -> Flow:
        seen.append(variable.get())
        yield from wait(look())
        seen.append(variable.get())
        yield call
        seen.append(variable.get())

    token = variable.set("of the application")
    try:
        async with opened(Echo(), looking) as link:
            await link.call(kind)
        after = variable.get()
    finally:
        variable.reset(token)

    assert seen == ["of the application", "of the application", "of the awaitable", "of the awaitable"]
    assert after == "of the application"


@ALL
async def test_row30_without_a_deadline_there_is_none(kind: Kind) -> None:
    """Without a timeout a flow sees None, and so does who asks the call."""
    seen: list[tuple[float | None, float | None]] = []

    def look(call: Call) -> Flow:
        seen.append((call.timeout, call.deadline))
        yield call

    async with opened(Echo(), look) as link:
        call = link.start(kind)
        left = call.time_remaining()
        await within(answered(call))

    assert seen == [(None, None)]
    assert left is None


@ALL
@pytest.mark.parametrize("timeout", [float("inf"), 9.3e18, 9e9], ids=str)
async def test_row31_a_timeout_of_ages_is_no_deadline(kind: Kind, timeout: float) -> None:
    """A timeout that grpc would read as passed, as of a call without one, is none: of the caller and of a flow."""
    echo = Echo()

    def forward(call: Call) -> Flow:
        yield call.with_timeout(timeout)

    async with opened(echo, forward) as link:
        await link.call(kind)
        await link.call(kind, timeout=timeout)

    assert [attempt.time_remaining for attempt in echo.attempts] == [None, None]


@ALL
async def test_row31_a_timeout_that_is_no_number_ends_the_call(kind: Kind) -> None:
    """A timeout of nan ends the call, one way or the other, with one outcome."""
    watch = Watch()

    async with opened(Echo(), watch) as link:
        with contextlib.suppress(grpc.RpcError, ValueError):
            call = link.start(kind, timeout=float("nan"))
            await within(answered(call))

    assert len(watch.outcomes) <= 1


@ALL
@pytest.mark.parametrize("timeout", [None, 0.2], ids=["cancel", "deadline"])
async def test_row33_the_end_of_a_call_reaches_the_server(kind: Kind, timeout: float | None) -> None:
    """A cancel and a deadline stop the handler on the server."""
    gate = Gate()

    async with opened(gate, passing) as link:
        call = link.start(kind, timeout=timeout)
        await within(gate.begun.acquire())
        if timeout is None:
            call.cancel()
        await within(gate.ended.acquire())
        code = await within(call.code())

    assert gate.cancelled == 1
    assert code is (CANCELLED if timeout is None else DEADLINE_EXCEEDED)


@ALL
async def test_row36_a_callback_that_raises_stops_no_other(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """A done callback that raises is logged; the others are called, and the call ends well."""
    told: list[Any] = []

    def broken(call: Any) -> None:
        raise Broken("in a callback")

    async with opened(Echo(), passing) as link:
        call = link.start(kind)
        call.add_done_callback(broken)
        call.add_done_callback(told.append)
        with caplog.at_level(logging.ERROR, "interpose"):
            messages = await within(answered(call))

    assert messages
    assert told == [call]
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["interpose"]


@STREAMING
async def test_row38_c22_a_stream_that_is_left_early_ends(kind: Kind) -> None:
    """`break` out of a stream that nobody holds: the server is told, the flow once, and no task is left."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        before = asyncio.all_tasks()
        async for message in link.start(kind):
            assert message == "first"
            break
        gc.collect()
        outcome = await watch.outcome()
        await within(gate.ended.acquire())
        await no_task_left(before)

    assert outcome.code is CANCELLED
    assert outcome.responses == 1
    assert gate.cancelled == 1


@STREAMING
async def test_row38_streams_that_are_dropped_unread_end(kind: Kind) -> None:
    """Fifty streams that are started and dropped are fifty cancelled handlers, and no task is left."""
    gate, outcomes = Gate(), list[Outcome]()

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with opened(gate, note) as link:
        before = asyncio.all_tasks()
        calls = [link.start(kind) for _ in range(50)]
        for _ in calls:
            await within(gate.begun.acquire())
        calls.clear()
        gc.collect()
        for _ in range(50):
            await within(gate.ended.acquire())
        await no_task_left(before)

    assert [outcome.code for outcome in outcomes] == [CANCELLED] * 50
    assert gate.cancelled == 50


@STREAMING
async def test_row38_a_stream_in_a_reference_cycle_ends_when_it_is_collected(kind: Kind) -> None:
    """A stream that is dropped as part of a cycle ends with the next garbage collection."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        cycle: list[Any] = [link.start(kind)]
        cycle.append(cycle)
        await within(gate.begun.acquire())
        del cycle
        gc.collect()
        outcome = await watch.outcome()
        await within(gate.ended.acquire())

    assert outcome.code is CANCELLED


async def test_row38_a_stream_is_dropped_while_its_requests_wait() -> None:
    """A dropped bidi call lets go of a request stream that waits for its next message."""
    watch, gate, closed = Watch(), Gate(), asyncio.Event()

    async def messages() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with opened(gate, watch) as link:
        call = link.stub(Kind.STREAM_STREAM)(messages())
        assert await within(anext(aiter(call))) == "first"
        del call
        gc.collect()
        outcome = await watch.outcome()
        await within(closed.wait())

    assert outcome.code is CANCELLED
    assert outcome.requests == 1


@pytest.mark.parametrize("flow", [passing, late], ids=["streaming", "delayed"])
async def test_row41_a_finalizer_runs_no_flow(flow: Interceptor) -> None:
    """A stream collected inside code that holds a lock, which its flow wants at the end, does not dead-lock."""
    lock, ended, gate, inside = threading.Lock(), asyncio.Event(), Gate(), list[bool]()

    def locking(call: Call) -> Flow:
        yield call
        inside.append(lock.locked())
        ended.set()

    async with opened(gate, locking, flow) as link:
        cycle: list[Any] = [link.start(Kind.UNARY_STREAM)]
        cycle.append(cycle)
        if flow is passing:
            await within(gate.begun.acquire())
        with lock:
            del cycle
            gc.collect()
        await within(ended.wait())

    assert inside == [False]


async def test_row41_a_finalizer_may_run_on_another_thread() -> None:
    """A stream that is collected on another thread ends on the loop's own."""
    gate, ended, threads = Gate(), asyncio.Event(), list[int]()

    def note(call: Call) -> Flow:
        yield call
        threads.append(threading.get_ident())
        ended.set()

    async with opened(gate, note) as link:
        held: list[Any] = [link.start(Kind.UNARY_STREAM)]
        await within(gate.begun.acquire())
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join(PATIENCE)
        await within(ended.wait())

    assert threads == [threading.get_ident()]


async def flood(call: Any, message: str = "x") -> None:
    """Write until it fails."""
    while True:
        await call.write(message)


async def _several(count: int = 20, size: int = 10) -> AsyncIterator[str]:
    for _ in range(count):
        yield "x" * size


@UPLOADING
@WRITABLE
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
async def test_row42_a_server_may_refuse_before_it_reads(kind: Kind, flow: Interceptor, size: int) -> None:
    """A call that is refused while it sends ends with the server's status, never with grpc.aio's "Internal error"."""
    codes: collections.Counter[tuple[grpc.StatusCode, str | None]] = collections.Counter()
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with opened(Refusing(), note, flow) as link:
        for _ in range(50):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await within(answered(link.stub(kind)(_several(size=size))))
            codes[caught.value.code(), caught.value.details()] += 1

    assert codes == {(UNAUTHENTICATED, "who are you"): 50}
    assert {outcome.code for outcome in outcomes} == {UNAUTHENTICATED}
    assert {outcome.trailing_metadata["x-why"] for outcome in outcomes} == {"no token"}
    assert len(outcomes) == 50


@UPLOADING
@WRITABLE
async def test_row42_a_writer_is_told_why(kind: Kind, flow: Interceptor) -> None:
    """`write` to a call that the server refused raises the server's status, or that the RPC has finished."""
    codes: set[grpc.StatusCode] = set()

    async def press(call: Any) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            for _ in range(20):
                await call.write("x")
        await answered(call)

    async with opened(Refusing(), flow) as link:
        for _ in range(50):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await within(press(link.stub(kind)()))
            codes.add(caught.value.code())

    assert codes == {UNAUTHENTICATED}


@WRITABLE
async def test_row42_a_server_may_end_well_before_it_reads(flow: Interceptor) -> None:
    """A bidi call that the server ends with OK while requests are on their way gives all messages, and its trailers."""
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with opened(Early(), note, flow) as link:
        stub = link.stub(Kind.STREAM_STREAM)
        answers = [await within(answered(stub(_several()))) for _ in range(50)]

    assert answers == [["1", "2", "3"]] * 50
    assert {(outcome.code, outcome.responses) for outcome in outcomes} == {(OK, 3)}
    assert {outcome.trailing_metadata["x-early"] for outcome in outcomes} == {"yes"}


@WRITABLE
async def test_row42_messages_in_front_of_the_status_are_not_lost(flow: Interceptor) -> None:
    """Who writes until it fails, and reads only then, reads everything that the server sent."""
    async with opened(Early(), flow) as link:
        call = link.stub(Kind.STREAM_STREAM)()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await within(flood(call))
        messages = await within(answered(call))
        code, trailing = await within(call.code()), await within(call.trailing_metadata())

    assert messages == ["1", "2", "3"]
    assert code is OK
    assert trailing["x-early"] == "yes"


async def test_row42_a_refused_call_that_nobody_reads_ends() -> None:
    """The flow is told of a refused bidi call although the application neither reads nor writes any more."""
    watch = Watch()

    async with opened(Refusing(), watch) as link:
        call = link.stub(Kind.STREAM_STREAM)(_several())
        code = await within(call.code())

    assert code is UNAUTHENTICATED
    assert (await watch.outcome()).code is UNAUTHENTICATED


@ALL
async def test_row44_a_closed_channel_raises_what_grpc_raises(kind: Kind) -> None:
    """A call on a closed channel is a UsageError, told to the flow as a failure made here."""
    watch = Watch()

    async with opened(Echo(), watch) as link:
        await within(link.channel.close())
        with pytest.raises(grpc.aio.UsageError):
            await link.call(kind)

    outcome = await watch.outcome()
    assert outcome.code is INTERNAL
    assert outcome.local


@ALL
async def test_row45_a_server_that_stops_with_grace_finishes_what_it_has_begun(kind: Kind) -> None:
    """An RPC that runs when its server stops with grace ends well, once."""
    watch, gate = Watch(), Gate()

    async with opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await within(gate.begun.acquire())
        stopping = asyncio.create_task(link.server.stop(PATIENCE))
        await asyncio.sleep(0)
        gate.go.set()
        messages = await within(task)
        await within(stopping)

    assert messages[-1] in {"answer", "last"}
    assert (await watch.outcome()).ok


SERVER = """
import sys, threading
from concurrent import futures
import grpc

def forever(argument, context):
    print("begun\\n", end="", flush=True)  # in one piece: all four print
    threading.Event().wait()

def stream(argument, context):
    yield b"first"
    forever(argument, context)

methods = {
    "unary_unary": grpc.unary_unary_rpc_method_handler(forever),
    "stream_unary": grpc.stream_unary_rpc_method_handler(forever),
    "unary_stream": grpc.unary_stream_rpc_method_handler(stream),
    "stream_stream": grpc.stream_stream_rpc_method_handler(stream),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interpose.testing.Echo", methods),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


async def test_row46_a_killed_server_is_one_failure() -> None:
    """A server that is killed in the middle of RPCs of all kinds ends each of them as UNAVAILABLE, once."""
    outcomes: dict[str, list[Outcome]] = collections.defaultdict(list)

    def note(call: Call) -> Flow:
        outcomes[str(call.method)].append((yield call))

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        target = f"127.0.0.1:{int(await within(process.stdout.readline()))}"
        async with intercept_channel(grpc.aio.insecure_channel(target), note) as channel:
            calls = [getattr(channel, kind.value)(path(kind), encode, decode)(requested(kind)) for kind in Kind]
            for call in calls:
                if isinstance(call, (grpc.aio.UnaryStreamCall, grpc.aio.StreamStreamCall)):
                    assert await within(anext(aiter(call))) == "first"
            tasks = [asyncio.create_task(answered(call)) for call in calls]
            for _ in tasks:
                assert await within(process.stdout.readline()) == b"begun\n"
            os.kill(process.pid, signal.SIGKILL)
            ends = await within(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await within(process.wait())
        process._transport.close()  # type: ignore[attr-defined]  # else it is closed when the loop is gone

    assert [type(end).__mro__[1] for end in ends] == [errors.Unavailable] * 4
    for kind in Kind:
        [outcome] = outcomes[path(kind)]
        assert outcome.code is UNAVAILABLE
        assert outcome.responses == (1 if kind.response_streaming else 0)


async def test_row48_a_channel_outlives_its_server() -> None:
    """A channel whose server went away and came back on the same port serves calls again."""
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with opened(Echo(), note) as link:
        await link.call(Kind.UNARY_UNARY)
        await within(link.server.stop(None))
        with pytest.raises(errors.Unavailable):
            await link.call(Kind.UNARY_UNARY)
        async with serving(Echo(), link.target):
            await link.call(Kind.UNARY_UNARY, wait_for_ready=True, timeout=PATIENCE)

    assert [outcome.code for outcome in outcomes] == [OK, UNAVAILABLE, OK]


def core_retry(attempts: int) -> list[tuple[str, Any]]:
    """Channel options with which grpc's core sends again by itself."""
    config = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": %d, "initialBackoff": "0.01s",
        "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
    return [("grpc.service_config", config % attempts)]


@DOWNLOADING
async def test_row50_flows_see_one_call_where_the_core_sends_three(kind: Kind) -> None:
    """The core's own attempts are one attempt for flows; only the server can tell them apart, by the core's key."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 2)

    async with opened(echo, watch, options=core_retry(3)) as link:
        await link.call(kind)

    previous = [attempt.values("grpc-previous-rpc-attempts") for attempt in echo.attempts]
    assert previous == [[], ["1"], ["2"]]
    assert (await watch.outcome()).attempts == 1


async def test_row51_the_core_stops_at_five() -> None:
    """Ten attempts asked of the core are five; the caller and the flow see the last failure, once."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 10)

    async with opened(echo, watch, options=core_retry(10)) as link:
        with pytest.raises(errors.Unavailable):
            await link.call(Kind.UNARY_UNARY)

    assert len(echo.attempts) == 5
    assert (await watch.outcome()).attempts == 1


@pytest.mark.parametrize(("pushback", "told"), [("-1", "-1"), ("garbage", str(-(2**63)))])
async def test_row52_row55_pushback_reaches_flows(pushback: str, told: str) -> None:
    """A server's pushback that stops the core is in the trailing metadata of the outcome, as grpc has read it."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE, trailing=(("grpc-retry-pushback-ms", pushback),))])

    async with opened(echo, watch, options=core_retry(3)) as link:
        with pytest.raises(errors.Unavailable):
            await link.call(Kind.UNARY_UNARY)

    assert len(echo.attempts) == 1
    assert (await watch.outcome()).trailing_metadata["grpc-retry-pushback-ms"] == told


@UNARY
async def test_row53_hedging_is_ours(kind: Kind) -> None:
    """Grpc's core has no hedging: here a failing first copy lets the second go at once, long before its delay."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)])

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=2, delay=60)

    async with opened(echo, watch, hedge) as link:
        [answer] = await link.call(kind)

    assert answer == "a"
    assert len(echo.attempts) == 2
    assert (await watch.outcome()).attempts == 2


@pytest.mark.parametrize(("enabled", "sends"), [(1, 6), (0, 2)], ids=["core too", "ours only"])
async def test_row54_attempts_of_the_core_multiply_with_ours(enabled: int, sends: int) -> None:
    """Two attempts here over three of the core's are six; a channel with the core's retries off makes two."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 10)

    async with opened(echo, watch, again, options=[*core_retry(3), ("grpc.enable_retries", enabled)]) as link:
        with pytest.raises(errors.Unavailable):
            await link.call(Kind.UNARY_UNARY)

    assert len(echo.attempts) == sends
    assert (await watch.outcome()).attempts == 2


async def test_row55_a_key_of_ones_own_counts_attempts() -> None:
    """A flow that numbers its attempts does it under a key of its own: the core's would be stripped."""
    echo = Echo([failed(UNAVAILABLE)])

    def numbering(call: Call) -> Flow:
        outcome = yield call.with_metadata(("x-retry-attempt", "0"))
        while not outcome.ok:
            outcome = yield call.with_metadata(("x-retry-attempt", str(outcome.attempts)))

    async with opened(echo, numbering) as link:
        await link.call(Kind.UNARY_UNARY)

    assert [attempt.values("x-retry-attempt") for attempt in echo.attempts] == [["0"], ["1"]]


@ALL
async def test_row56_binary_values_carry_anything(kind: Kind) -> None:
    """Under a -bin key every byte travels, from a flow to the server."""
    echo, everything = Echo(), bytes(range(256))

    def add(call: Call) -> Flow:
        yield call.with_metadata(("x-all-bin", everything))

    async with opened(echo, add) as link:
        await link.call(kind)

    assert echo.attempts[0].values("x-all-bin") == [everything]


# --- rows without a test of their own ---------------------------------------------------------------------------------
#
# held by another test of this file
#   C-11   test_a11_c11                        row 8    test_a01
#   C-12   test_a14_c12, test_c12              row 32   test_c13_row32
#   C-22   test_a12_c22, test_row38_c22        row 43   test_c19_row43, test_wait_for_connection_raises…
#   A-10   also test_c18, test_c20             row 55   test_c16_row55, test_row52_row55, test_row55
#   row 38, a request iterator that blocks: test_row38_a_stream_is_dropped_while_its_requests_wait
#   row 45, at the end of grace, and new RPCs that get CANCELLED: test_one_outcome_after_the_server_stopped
#
# not yet
#   A-16   callbacks lost on a call that has ended: seen on older grpcio only; what is held is that ours never are
#   C-10   no retry past the cap               what Retry does with it is held by its own tests; replayable is held here
#   C-19   wait_for_ready without a deadline   a warning belongs to describe() or the deadline battery of later issues
#   C-13   timeout of a millisecond            it may succeed, and rightly; only no time at all is answered here
#   51     retry buffer, throttling            of the core alone: nothing of ours takes part
#   52, 54 parsing pushback, channel options   come with Retry and its helper for channels
#
# not here
#   C-1…C-9, C-17, C-21, rows 2, 4, 37         of the sync client: test_sync_client.py
#   11-29, 34, 35, 39, 40 and the server's view of 30-33: server tests
#   47-49, 57-62                               of the server, the runner, or the core alone; 48 is held as it is cheap
