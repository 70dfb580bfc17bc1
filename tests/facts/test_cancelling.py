"""Cancelling: by the call, by the task that waits, by dropping it; what was begun is over on the server too."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.experimental
import pytest

from interpose import Call, Flow, Kind, Outcome, wait
from interpose.testing import Echo
from tests.facts.calling import (
    FUTURES,
    GIVEN_UP,
    STARTED,
    STREAMS,
    SYNC_FUTURES,
    Gate,
    SlowFirst,
    Watch,
    Way,
    aio_opened,
    answered,
    in_time,
    kept,
    late,
    opened,
    passing,
    ways,
)
from tests.facts.hosting import LOOP, no_task_left, on_the_loop, reached, within
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

all_kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
unary = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
SINGLE_THREADED = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)


@pytest.mark.fact("R-33")
@pytest.mark.parametrize("timeout", [None, 0.2], ids=["cancel", "deadline"])
@ways(STARTED)
def test_the_end_of_a_call_reaches_the_server(way: Way, timeout: float | None) -> None:
    """A cancel, or the deadline, of an intercepted call is told to the server's handler."""
    gate = Gate()

    with opened(way, gate, passing) as link:
        call = link.start(timeout=timeout)
        gate.wait_begun()
        if timeout is None:
            call.cancel()
        gate.wait_ended()
        code = in_time(call.code)

    assert code is (CANCELLED if timeout is None else DEADLINE_EXCEEDED)


@pytest.mark.fact("R-7")
@ways(STREAMS)
def test_cancel_reaches_the_attempt_that_runs(way: Way) -> None:
    """cancel() of a stream that was sent again cancels its second attempt on the server."""
    watch = Watch()

    class SecondHangs(Gate):
        served = 0

        def unary_stream(self, argument: Any, context: Any) -> Iterator[str]:
            self.served += 1
            if self.served == 1:
                context.abort(UNAVAILABLE, "not yet")
            yield from super().unary_stream(argument, context)

        stream_stream = unary_stream

    gate = SecondHangs()
    with opened(way, gate, watch, kept) as link:
        call = link.start()
        assert call.next() == "first"
        call.cancel()
        gate.wait_ended()

    assert watch.outcome().attempts == 2


# --- by the task that waits -------------------------------------------------------------------------------------------


@pytest.mark.fact("A-13", "R-9")
@all_kinds
@pytest.mark.parametrize("by", ["task.cancel", "wait_for"])
@on_the_loop
async def test_cancelling_the_task_that_waits_cancels_the_rpc(kind: Kind, by: str) -> None:
    """A task that is cancelled, or a `wait_for` that runs out, while it awaits the response: here and on the server."""
    gate, watch = Gate(), Watch()

    async with aio_opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await reached(gate.begun)
        if by == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.02)
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        await reached(gate.ended)
        outcome = await watch.told()

    assert outcome.code is CANCELLED


@pytest.mark.fact("A-13")
@all_kinds
@on_the_loop
async def test_giving_up_on_a_call_that_waits_to_be_sent_ends_it(kind: Kind) -> None:
    """A `wait_for` that runs out while a delayed call is awaited ends the call with it; nothing is sent."""
    echo, watch = Echo(), Watch()

    async with aio_opened(echo, watch, late) as link:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answered(link.start(kind)), 0.02)
        outcome = await watch.told()

    assert outcome.code is CANCELLED
    assert not echo.attempts


@pytest.mark.fact("A-13")
@all_kinds
@pytest.mark.parametrize("by", ["call.cancel", "task.cancel", "wait_for"])
@on_the_loop
async def test_a_flow_cannot_swallow_a_cancellation(kind: Kind, by: str) -> None:
    """A flow that answers a cancelled call with a success breaks neither `wait_for` nor whoever cancelled."""
    gate, outcomes = Gate(), list[Outcome]()

    def swallow(call: Call) -> Flow:
        outcomes.append((yield call))
        return Outcome.success()

    async with aio_opened(gate, swallow) as link:
        call = link.start(kind)
        task = asyncio.create_task(answered(call))
        await reached(gate.begun)
        if by == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.02)
        elif by == "task.cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        else:
            call.cancel()
            await within(asyncio.wait({task}))
        await reached(gate.ended)

    assert [outcome.code for outcome in outcomes] == [CANCELLED]
    assert call.cancelled()


@pytest.mark.fact("E-3")
@unary
@on_the_loop
async def test_one_of_two_waiters_is_cancelled(kind: Kind) -> None:
    """Cancelling one of two tasks that await a call cancels the RPC for both, as in grpc: one outcome."""
    gate, watch = Gate(), Watch()

    async with aio_opened(gate, watch) as link:
        call = link.start(kind)
        one, other = asyncio.create_task(answered(call)), asyncio.create_task(answered(call))
        await reached(gate.begun)
        one.cancel()
        for task in (one, other):
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        outcome = await watch.told()

    assert outcome.code is CANCELLED


@pytest.mark.fact("E-3")
@all_kinds
@on_the_loop
async def test_awaiting_the_code_and_giving_up_leaves_the_rpc_alone(kind: Kind) -> None:
    """Who only asks for the code, and stops asking, has cancelled nothing."""
    gate = Gate()

    async with aio_opened(gate, passing) as link:
        call = link.start(kind)
        await reached(gate.begun)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.code(), 0.02)
        gate.go.set()
        messages = await within(answered(call))

    assert messages[-1] in {"answer", "last"}


# --- while a flow waits -----------------------------------------------------------------------------------------------


@pytest.mark.fact("E-5", "A-13")
@all_kinds
@pytest.mark.parametrize("by", ["call.cancel", "task.cancel", "wait_for", "close"])
@on_the_loop
async def test_a_flow_is_cancelled_while_it_waits(kind: Kind, by: str) -> None:
    """However a call is cancelled whose flow waits: the awaitable is cancelled, the flow told, and nothing sent."""
    echo, watch, seen = Echo(), Watch(), list[BaseException]()
    waits, stopped = asyncio.Event(), asyncio.Event()

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

    async with aio_opened(echo, watch, waiting) as link:
        call = link.start(kind)
        task = asyncio.create_task(answered(call))
        await within(waits.wait())
        if by == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.02)
        else:
            _ = (
                await within(link.channel.close())
                if by == "close"
                else (call if by == "call.cancel" else task).cancel()
            )
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        await within(stopped.wait())
        outcome = await watch.told()

    assert [type(error).__name__ for error in seen] == ["Cancelled"]
    assert outcome.code is CANCELLED
    assert not echo.attempts


@pytest.mark.fact("E-5", "R-38")
@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
@on_the_loop
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

    async with aio_opened(Echo(), watch, waiting) as link:
        call = link.start(kind)
        await within(waits.wait())
        del call
        gc.collect()
        await within(stopped.wait())
        outcome = await watch.told()

    assert outcome.code is CANCELLED


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("A-15")
@pytest.mark.parametrize("by", ["cancel", "close"])
@ways(FUTURES)
def test_cancelling_a_hedged_call_cancels_every_copy(way: Way, by: str) -> None:
    """cancel(), or closing the channel, reaches all copies of a hedged call on the server, and is one outcome."""
    watch, gate = Watch(), Gate()

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=3, delay=0)

    with opened(way, gate, watch, hedge) as link:
        call = link.start()
        gate.wait_begun(3)
        _ = call.cancel() if by == "cancel" else link.close()
        with pytest.raises(GIVEN_UP):
            call.messages()
        gate.wait_ended(3)

    assert watch.outcome().code is CANCELLED


@pytest.mark.fact("A-15", "R-53")
@ways(FUTURES)
def test_the_slower_of_two_copies_is_cancelled(way: Way) -> None:
    """A slow first copy is overtaken by the second, which grpc's core would not send, and is cancelled on the server."""
    watch, gate = Watch(), SlowFirst()

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=2, delay=0.02)

    with opened(way, gate, watch, hedge) as link:
        [answer] = link.call()
        gate.wait_ended(2)

    assert answer == "second"
    assert watch.outcome().ok


# --- by dropping it ---------------------------------------------------------------------------------------------------


@pytest.mark.fact("C-22", "R-38")
@ways(STREAMS)
def test_leaving_a_loop_early_ends_the_rpc(way: Way) -> None:
    """A stream that is left and dropped is one outcome: CANCELLED, with the messages that were read; no task is left."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        before = LOOP.do(asyncio.all_tasks)
        stream = link.start()
        assert stream.next() == "first"
        stream.drop()
        outcome = watch.outcome()
        gate.wait_ended()
        LOOP.run(no_task_left(before))

    assert outcome.code is CANCELLED
    assert outcome.responses == 1


@pytest.mark.fact("A-12", "C-22")
@ways(STREAMS)
def test_cancel_after_an_early_break_is_told_at_once(way: Way) -> None:
    """`break` and `cancel()` are one outcome, while the call is still held."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        stream = link.start()
        assert stream.next() == "first"
        stream.cancel()
        told = [(outcome.code, outcome.responses) for outcome in watch.outcomes]
        gate.wait_ended()

    assert told == [(CANCELLED, 1)]
    assert stream.native.cancelled()


@pytest.mark.fact("R-38")
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@ways(STREAMS)
def test_streams_that_are_dropped_end_on_the_server(way: Way, read: bool) -> None:
    """Streams begun and dropped: an outcome for each, and the server is told of each."""
    gate, outcomes, told = Gate(), list[Outcome](), threading.Semaphore(0)
    streams = 4  # fewer than the server has threads: each handler holds one

    def note(call: Call) -> Flow:
        outcomes.append((yield call))
        told.release()

    with opened(way, gate, note) as link:
        calls = [link.start() for _ in range(streams)]
        gate.wait_begun(streams)
        for call in calls:
            assert not read or call.next() == "first"
            call.drop()
        assert all(told.acquire(timeout=PATIENCE) for _ in calls)
        gate.wait_ended(streams)

    assert [outcome.code for outcome in outcomes] == [CANCELLED] * streams


@pytest.mark.fact("C-22", "R-38")
@ways(STREAMS)
def test_a_stream_in_a_reference_cycle_ends_when_it_is_collected(way: Way) -> None:
    """A stream that is dropped as part of a cycle ends with the next garbage collection."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        stream = link.start()
        cycle: list[Any] = [stream.native]
        cycle.append(cycle)
        gate.wait_begun()
        del cycle
        stream.drop()
        outcome = watch.outcome()
        gate.wait_ended()

    assert outcome.code is CANCELLED


@pytest.mark.fact("C-22", "R-38")
@ways(SYNC_FUTURES)
def test_a_future_that_is_dropped_ends(way: Way) -> None:
    """A sync future that the application drops is cancelled, as grpc's own is: its answer would not be read."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        future = link.start()
        gate.wait_begun()
        future.drop()
        outcome = watch.outcome()
        gate.wait_ended()

    assert outcome.code is CANCELLED


@pytest.mark.fact("C-22")
@ways(SYNC_FUTURES)
def test_a_future_with_a_callback_is_kept(way: Way) -> None:
    """A future that only its own callback knows is not dropped: the callback is called with the answer."""
    gate, answers, over = Gate(), list[str](), threading.Event()

    def note(future: Any) -> None:
        answers.append(future.result())
        over.set()

    with opened(way, gate, passing) as link:
        future = link.start()
        future.add_done_callback(note)
        gate.wait_begun()
        future.drop()
        gate.go.set()
        assert over.wait(PATIENCE)

    assert answers == ["answer"]


@pytest.mark.fact("E-1", "R-38")
@ways(way for way in FUTURES if way.aio)
def test_a_call_that_is_never_awaited_is_performed(way: Way) -> None:
    """A unary call of asyncio that nobody awaits, nor even holds, is performed all the same, as grpc's own is."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        link.start().drop()
        gate.wait_begun()
        gate.go.set()
        outcome = watch.outcome()

    assert outcome.ok


@pytest.mark.fact("R-38")
@ways(way for way in STREAMS if way.uploads)
def test_a_stream_is_dropped_while_its_requests_wait(way: Way) -> None:
    """A stream whose request iterator waits ends when it is dropped, and an async iterator is closed."""
    watch, gate, more, closed = Watch(), Gate(), threading.Event(), threading.Event()

    def messages() -> Iterator[str]:
        yield "a"
        more.wait(PATIENCE)

    async def slowly() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.set()

    with opened(way, gate, watch) as link:
        stream = link.start(argument=slowly() if way.aio else messages())
        assert stream.next() == "first"
        stream.drop()
        outcome = watch.outcome()
        assert not way.aio or closed.wait(PATIENCE)
        more.set()

    assert outcome.code is CANCELLED
    assert outcome.requests == 1


@pytest.mark.fact("R-41")
@pytest.mark.parametrize("delay", [0, 60], ids=["streaming", "delayed"])
@pytest.mark.parametrize(
    ("way", "options"),
    [(STREAMS[0], ()), (STREAMS[0], (SINGLE_THREADED,)), (STREAMS[2], ())],
    ids=["sync", "single-threaded", "aio"],
)
def test_a_finalizer_runs_no_flow(way: Way, options: tuple[tuple[str, Any], ...], delay: float) -> None:
    """A stream collected inside code that holds a lock, which its flow wants at the end, does not block it."""
    lock, ended, gate = threading.Lock(), threading.Event(), Gate()

    def locking(call: Call) -> Flow:
        yield call.after(delay)
        with lock:
            ended.set()

    with opened(way, gate, locking, options=options) as link:
        stream = link.start()
        cycle: list[Any] = [stream.native]
        cycle.append(cycle)
        held = [cycle]
        del cycle
        if not delay:
            gate.wait_begun()

        def drop() -> None:
            with lock:
                held.clear()
                stream.native = None
                gc.collect()

        _ = LOOP.do(drop) if way.aio else in_time(drop)
        assert ended.wait(PATIENCE)


@pytest.mark.fact("R-41")
@on_the_loop
async def test_a_finalizer_may_run_on_another_thread() -> None:
    """A stream that is collected on another thread ends on the loop's own."""
    gate, ended, threads = Gate(), asyncio.Event(), list[int]()

    def note(call: Call) -> Flow:
        yield call
        threads.append(threading.get_ident())
        ended.set()

    async with aio_opened(gate, note) as link:
        held: list[Any] = [link.start(Kind.UNARY_STREAM)]
        await reached(gate.begun)
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join(PATIENCE)
        await within(ended.wait())

    assert threads == [threading.get_ident()]
