"""PropagateContext: time, cancellation, ids and metadata of an incoming RPC reach the calls that its handler makes."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Side, chain, context, errors, intercept_channel
from interpose._clock import SYSTEM
from interpose.interceptors import PropagateContext, RequestId
from interpose.testing import Echo, FakeClock, Stub, failed, incoming, ok, play
from interpose.testing.echo import decode, encode
from tests.facts.serving import Client, serving
from tests.support.patience import PATIENCE

SORTS = ["sync", "plain", "async"]
NO_RETRIES = [("grpc.enable_retries", 0)]
MARGIN = 0.3  # seconds; what grpc says to be left is up to a tenth more than was asked (fact S-10)


# --- by hand ----------------------------------------------------------------------------------------------------------


def handed_on(propagate: PropagateContext, arrived: Call, **options: Any) -> Any:
    """Play a call that is made while `arrived` is handled."""
    scopes: list[Any] = []

    def inside(call: Call) -> Flow:
        scopes.append(play(propagate, **options))
        yield call

    play(
        chain(propagate, inside),
        side=Side.SERVER,
        metadata=arrived.metadata,
        timeout=arrived.timeout,
        clock=options.get("clock"),
    )
    return scopes[0]


def test_chosen_metadata_is_handed_on() -> None:
    """The keys named, with all their values; what the call has itself stands; nothing else goes."""
    propagate = PropagateContext(metadata=("x-tenant", "X-Roles", "x-own"))
    arrived = incoming(
        metadata=[
            ("x-tenant", "acme"),
            ("x-roles", "a"),
            ("x-roles", "b"),
            ("x-own", "theirs"),
            ("authorization", "secret"),
        ]
    )

    played = handed_on(propagate, arrived, metadata=[("x-own", "mine")])

    assert list(played.sent[0].metadata) == [
        ("x-own", "mine"),
        ("x-tenant", "acme"),
        ("x-roles", "a"),
        ("x-roles", "b"),
    ]


def test_the_deadline_less_a_margin() -> None:
    """What is left of the incoming RPC, less what the handler keeps for itself."""
    clock = FakeClock()
    propagate = PropagateContext(margin=0.5)

    played = handed_on(propagate, incoming(timeout=2, clock=clock), clock=clock)

    assert played.sent[0].call.deadline == clock.now() + 1.5


def test_no_time_left_sends_nothing() -> None:
    """The call ends here, and says whose time it was."""
    clock = FakeClock()

    played = handed_on(PropagateContext(margin=3), incoming(timeout=2, clock=clock), script=[], clock=clock)

    assert played.outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED and played.outcome.local
    assert played.outcome.details == "no time is left of the incoming RPC for this call"
    assert played.sent == []


def test_outside_a_handler_nothing_is_changed() -> None:
    """A client that serves nobody sends what it sends."""
    played = play(PropagateContext(metadata=("x-tenant",)))

    [sent] = played.sent
    assert tuple(sent.metadata) == () and sent.timeout is None


def test_the_request_id_goes_along() -> None:
    """Also where the channel has no `RequestId`; a call that has an id keeps it."""
    propagate = PropagateContext()
    ids: list[Any] = []

    def inside(call: Call) -> Flow:
        for pairs in ((), [("x-request-id", "own")]):
            sent = play(propagate, metadata=pairs).sent[0]
            ids.append(sent.metadata.get_all("x-request-id"))
        yield call

    play(chain(RequestId(), propagate, inside), side=Side.SERVER, metadata=[("x-request-id", "req-7")])

    assert ids == [["req-7"], ["own"]]


def test_detached_calls_inherit_nothing() -> None:
    """In `context.detached()` there is no incoming RPC; behind it there is again."""
    propagate, seen = PropagateContext(metadata=("x-tenant",)), []

    def inside(call: Call) -> Flow:
        with context.detached():
            assert context.current_call() is None and context.deadline() is None
            seen.append(play(propagate).sent[0])
        assert context.current_call() is not None
        seen.append(play(propagate).sent[0])
        yield call

    play(chain(propagate, inside), side=Side.SERVER, metadata=[("x-tenant", "acme")], timeout=5)

    assert [(tuple(sent.metadata), sent.call.deadline is None) for sent in seen] == [
        ((), True),
        ((("x-tenant", "acme"),), False),
    ]


def test_all_faults_are_told_at_once() -> None:
    """Values that make no sense are refused, with what to write instead."""
    with pytest.raises(ValueError, match=r"not one text; margin must be .*; cancel must be"):
        PropagateContext("x-tenant", margin=-1, cancel="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be metadata keys"):
        PropagateContext(("a b",))


# --- three hops -------------------------------------------------------------------------------------------------------

# client → A → B → C. Every hop keeps what it saw, and asks the next one.


class Hop:
    """A service that answers with what the next one answers; its handlers in each sort."""

    def __init__(self, target: str, propagate: Any, *, streaming: bool = False) -> None:
        self.target = target
        self.propagate = propagate
        self.seen: list[tuple[str | None, float | None, Any]] = []
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._channels: list[Any] = []
        self._streaming = streaming

    def note(self, context_: Any) -> None:
        left = context_.time_remaining()
        tenant = dict(context_.invocation_metadata()).get("x-tenant")
        self.seen.append((context.request_id(), None if left is None or left > 1e8 else left, tenant))
        self.begun.set()

    def channel(self, grpc_: Any) -> Any:
        if not self._channels:
            native = grpc_.insecure_channel(self.target, NO_RETRIES)
            self._channels.append(intercept_channel(native, RequestId(), self.propagate))
        return self._channels[0]

    def plain(self, request: str, context_: Any) -> str:
        self.note(context_)
        try:
            stub = Stub(self.channel(grpc))
            return "".join(stub.unary_stream(request)) if self._streaming else str(stub.unary_unary(request))
        finally:
            self.ended.set()

    async def asynchronous(self, request: str, context_: Any) -> str:
        self.note(context_)
        try:
            stub = Stub(self.channel(grpc.aio))
            if self._streaming:
                return "".join([message async for message in stub.unary_stream(request)])
            return str(await stub.unary_unary(request))
        finally:
            self.ended.set()

    def handler(self, sort: str) -> grpc.GenericRpcHandler:
        """It stands in for the echo service."""
        function = self.asynchronous if sort == "async" else self.plain
        make = grpc.unary_unary_rpc_method_handler(function, decode, encode)
        return grpc.method_handlers_generic_handler("interpose.testing.Echo", {"unary_unary": make})

    def close(self) -> None:
        for channel in self._channels:
            if isinstance(channel, grpc.Channel):
                channel.close()


@contextmanager
def three_hops(sorts: tuple[str, str], echo: Echo, streaming: bool = False) -> Iterator[tuple[Client, list[Hop]]]:
    """Services A and B of these sorts, and C, the echo."""
    propagate = PropagateContext(metadata=("x-tenant",), margin=MARGIN)
    flows = (RequestId(), propagate)
    with ExitStack() as stack:
        c = stack.enter_context(echo.serve(*flows))
        b = Hop(c, propagate, streaming=streaming)
        stack.callback(b.close)
        serving_b = stack.enter_context(serving(sorts[1], {}, *flows, services=[b.handler(sorts[1])]))
        a = Hop(serving_b.target, propagate)
        stack.callback(a.close)
        serving_a = stack.enter_context(serving(sorts[0], {}, *flows, services=[a.handler(sorts[0])]))
        yield serving_a, [a, b]


MIXED = [(first, second) for first in SORTS for second in SORTS]


@pytest.mark.parametrize("sorts", MIXED, ids="-".join)
def test_id_metadata_and_deadline_reach_every_hop(sorts: tuple[str, str]) -> None:
    """The same request id and tenant everywhere, and less time at every hop."""
    echo = Echo([ok("answer")])

    with three_hops(sorts, echo) as (client, hops):
        stub = Stub(client.channel).unary_unary
        answer = stub("ask", timeout=PATIENCE, metadata=[("x-request-id", "req-1"), ("x-tenant", "acme")])

    [last] = echo.attempts
    seen = [seen for hop in hops for seen in hop.seen]
    assert answer == "answer"
    assert [(request_id, tenant) for request_id, _, tenant in seen] == [("req-1", "acme")] * 2
    assert (last.values("x-request-id"), last.values("x-tenant")) == (["req-1"], ["acme"])
    times = [*(left for _, left, _ in seen), last.time_remaining]
    assert all(later is not None and later < earlier for earlier, later in pairwise(times)), times


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("sorts", MIXED, ids="-".join)
def test_a_cancel_at_the_top_stops_the_last(sorts: tuple[str, str], streaming: bool) -> None:
    """The client cancels its call to A; B and C are told, though A's and B's handlers are blocked in their calls."""
    echo = Echo([ok(hang=True)])

    with three_hops(sorts, echo, streaming) as (client, hops):
        call = Stub(client.channel).unary_unary.future("ask")
        echo.wait_begun()
        call.cancel()
        echo.wait_ended(timeout=PATIENCE)
        ended = [hop.ended.wait(PATIENCE) for hop in hops]

    assert echo.attempts[0].cancelled
    assert ended == [True, True]


@pytest.mark.parametrize("sorts", [("sync", "async"), ("async", "sync"), ("plain", "async")], ids="-".join)
def test_a_deadline_at_the_top_stops_the_last(sorts: tuple[str, str]) -> None:
    """Every hop gives up by itself, the last one first."""
    echo = Echo([ok(hang=True)])

    with three_hops(sorts, echo) as (client, hops):
        with pytest.raises(grpc.RpcError) as raised:
            Stub(client.channel).unary_unary("ask", timeout=1)
        ended = [hop.ended.wait(PATIENCE) for hop in hops]
        echo.wait_ended(timeout=PATIENCE)

    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert ended == [True, True]


# --- threads and tasks ------------------------------------------------------------------------------------------------


@contextmanager
def one_hop(sort: str, handler: Callable[..., Any], echo: Echo) -> Iterator[Client]:
    """A service whose handler calls the echo, by a channel that it makes from `handler.target`."""
    propagate = PropagateContext(metadata=("x-tenant",))
    with echo.serve() as target:
        handler.target, handler.propagate = target, propagate  # type: ignore[attr-defined]  # for the handler itself
        with serving(sort, {"unary_unary": handler}, propagate) as client:
            yield client


@pytest.mark.parametrize("copied", [True, False])
def test_a_thread_with_a_copy_of_the_context_belongs_to_the_rpc(copied: bool) -> None:
    """In a ThreadPoolExecutor the context is copied by who submits; without a copy nothing is handed on."""
    echo = Echo()

    def handler(request: str, context_: Any) -> str:
        native = grpc.insecure_channel(handler.target, NO_RETRIES)  # type: ignore[attr-defined]
        with intercept_channel(native, handler.propagate) as channel, ThreadPoolExecutor(1) as pool:  # type: ignore[attr-defined]
            run = contextvars.copy_context().run if copied else (lambda function, *args: function(*args))
            return str(pool.submit(run, Stub(channel).unary_unary, request).result())

    with one_hop("sync", handler, echo) as client:
        reply = client.call("a", metadata=[("x-tenant", "acme")], timeout=PATIENCE)

    [attempt] = echo.attempts
    assert reply.ok
    assert attempt.values("x-tenant") == (["acme"] if copied else [])
    assert (attempt.time_remaining is not None) == copied


@pytest.mark.parametrize("way", ["create_task", "gather", "TaskGroup"])
def test_tasks_belong_to_the_rpc(way: str) -> None:
    """Calls made in tasks are cancelled with the RPC, whether the handler awaits them or not."""
    echo = Echo([ok(hang=True), ...])
    kept: list[Any] = []

    async def handler(request: str, context_: Any) -> str:
        native = grpc.aio.insecure_channel(handler.target, NO_RETRIES)  # type: ignore[attr-defined]
        async with intercept_channel(native, handler.propagate) as channel:  # type: ignore[attr-defined]

            async def ask() -> None:
                await Stub(channel).unary_unary(request)

            if way == "gather":
                await asyncio.gather(ask(), ask())
            elif way == "TaskGroup":
                async with asyncio.TaskGroup() as group:
                    group.create_task(ask())
                    group.create_task(ask())
            else:
                kept.extend(asyncio.create_task(ask()) for _ in range(2))
                await asyncio.get_running_loop().create_future()
        return ""

    with one_hop("async", handler, echo) as client:
        call = client.start("a")
        echo.wait_begun(2)
        call.cancel()
        echo.wait_ended(2, timeout=PATIENCE)

    assert [attempt.cancelled for attempt in echo.attempts] == [True, True]


@pytest.mark.parametrize("detached", [False, True])
def test_calls_that_outlive_their_rpc(detached: bool) -> None:
    """A task that goes on behind the answer: its call is cancelled, or refused, unless it was detached."""
    echo, ends, answered, done = (
        Echo([ok("late") if detached else ok(hang=True)]),
        [],
        threading.Event(),
        threading.Event(),
    )
    loops: list[asyncio.AbstractEventLoop] = []

    async def later(stub: Any, request: str) -> None:
        await loops[0].run_in_executor(None, answered.wait, PATIENCE)
        try:
            ends.append(await stub.unary_unary(request))
        except grpc.RpcError as error:
            ends.append(error)
        done.set()

    tasks: list[Any] = []

    async def handler(request: str, context_: Any) -> str:
        loops.append(asyncio.get_running_loop())
        native = grpc.aio.insecure_channel(handler.target, NO_RETRIES)  # type: ignore[attr-defined]
        stub = Stub(intercept_channel(native, handler.propagate))  # type: ignore[attr-defined]
        if detached:
            with context.detached():
                tasks.append(asyncio.create_task(later(stub, request)))
        else:
            tasks.append(asyncio.create_task(later(stub, request)))
        return "now"

    with one_hop("async", handler, echo) as client:
        reply = client.call("a")
        answered.set()
        finished = done.wait(PATIENCE)

    assert reply.ok and finished
    if detached:
        assert ends == ["late"]
    else:
        [error] = ends
        assert isinstance(error, errors.Cancelled) and error.local


def test_a_call_behind_the_end_is_refused() -> None:
    """A thread that goes on when its RPC has ended is told what to do instead, and nothing is sent."""
    propagate, contexts = PropagateContext(), []

    def handler(request: str, context_: Any) -> str:
        contexts.append(contextvars.copy_context())
        over.add(context_.add_callback(ended.set))
        return ""

    over: set[bool] = set()
    ended = threading.Event()
    with serving("sync", {"unary_unary": handler}, propagate) as client:
        client.call("a")
        assert ended.wait(PATIENCE)
        while not contexts[0].run(lambda: context.inherited().scope.over):  # type: ignore[union-attr]
            pass  # it is told on a thread of the clock, right behind
        # The deadline it would inherit is by the system's clock, which counts from the machine's start.
        played = contexts[0].run(play, propagate, [], clock=FakeClock(SYSTEM.now()))

    assert played.outcome.code is grpc.StatusCode.CANCELLED and played.outcome.local
    assert "detached" in played.outcome.details


@pytest.mark.parametrize("cancel", [True, False])
def test_a_stream_that_is_kept_ends_with_the_rpc(cancel: bool) -> None:
    """A sync handler leaves a stream open when it answers: its calls end with it, if they shall."""
    echo, kept = Echo([ok(hang=True)]), []
    ended = threading.Event()

    def handler(request: str, context_: Any) -> str:
        native = grpc.insecure_channel(handler.target, NO_RETRIES)  # type: ignore[attr-defined]
        channel = intercept_channel(native, PropagateContext(cancel=cancel))
        stream = Stub(channel).unary_stream(request)
        stream.add_done_callback(lambda _: ended.set())
        kept.extend((channel, stream))
        echo.wait_begun()
        return "answered"

    with one_hop("sync", handler, echo) as client:
        reply = client.call("a")
        over = ended.wait(PATIENCE if cancel else 0.05)
        kept[0].close()

    assert reply.ok and over is cancel


def test_a_retry_of_an_ended_rpc_is_not_sent() -> None:
    """An inner flow that sends again after the incoming RPC has ended is told CANCELLED at once."""
    echo = Echo([failed(grpc.StatusCode.UNAVAILABLE), ...])
    told: list[Any] = []
    failed_once, gone = threading.Event(), threading.Event()

    def stubborn(call: Call) -> Flow:
        told.append((yield call))
        failed_once.set()
        assert gone.wait(PATIENCE)
        told.append((yield call))

    def handler(request: str, context_: Any) -> str:
        context_.add_callback(lambda: SYSTEM.call_later(0, gone.set))  # behind the end of the scope, by the same way
        native = grpc.insecure_channel(handler.target, NO_RETRIES)  # type: ignore[attr-defined]
        with intercept_channel(native, handler.propagate, stubborn) as channel:  # type: ignore[attr-defined]
            return str(Stub(channel).unary_unary(request))

    with one_hop("sync", handler, echo) as client:
        call = client.start("a")
        assert failed_once.wait(PATIENCE)
        call.cancel()
        assert gone.wait(PATIENCE)

    assert [outcome.code.name for outcome in told] == ["UNAVAILABLE", "CANCELLED"]
    assert len(echo.attempts) == 1
