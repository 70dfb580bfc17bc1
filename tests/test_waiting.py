"""`yield from wait(future)`: a flow waits for what another thread or RPC sets, everywhere, and no longer than it may."""

import asyncio
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import CancelledError, Future
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, errors, intercept_channel, wait
from interpose.testing import PLACES, Echo, FakeClock, Place, ok, play
from interpose.testing.echo import Stub
from interpose.testing.play import ScriptError
from tests.support.patience import TIMEOUTS

BOUND = 10  # seconds; what takes so long has hung
CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
SERVERS = [place for place in PLACES if place.side is Side.SERVER]

# Plain handlers exist on asyncio servers only.
WAYS = [(place, False) for place in PLACES] + [(place, True) for place in SERVERS if place.asyncio]

everywhere = pytest.mark.parametrize(
    ("place", "plain"), WAYS, ids=[f"{place}{'-plain' * plain}" for place, plain in WAYS]
)


class Waits:
    """Waits for a Future before it sends the call."""

    def __init__(self, future: Future[Any] | None = None, deadline: Callable[[Call], float | None] | None = None):
        self.future: Future[Any] = Future() if future is None else future
        self.waiting = threading.Event()
        self.told: list[Any] = []
        self._deadline = deadline

    def __call__(self, call: Call) -> Flow:
        self.waiting.set()
        try:
            given = yield from wait(self.future, deadline=self._deadline and self._deadline(call))
        except BaseException as error:
            self.told.append(error)
            raise
        self.told.append(given)
        yield call


@everywhere
def test_it_is_given_what_comes_later(place: Place, plain: bool) -> None:
    """The RPC goes on when another thread sets the Future."""
    waits = Waits()

    def set_it() -> None:
        assert waits.waiting.wait(BOUND)
        waits.future.set_result("here")

    setter = threading.Thread(target=set_it)
    setter.start()
    with place.open(waits, plain=plain) as rpc:
        reply = rpc.call("a")
        setter.join()

    assert reply.ok and len(rpc.attempts) == 1
    assert waits.told == ["here"]


@everywhere
def test_what_has_come_already_is_given_at_once(place: Place, plain: bool) -> None:
    """A Future that is done, and one that failed, which raises in the flow."""
    done, broken = Waits(), Waits()
    done.future.set_result("here")
    broken.future.set_exception(errors.PermissionDenied("not for you"))

    with place.open(done, broken, plain=plain) as rpc:
        reply = rpc.call("a")

    assert done.told == ["here"]
    assert (reply.code, reply.details) == (grpc.StatusCode.PERMISSION_DENIED, "not for you")
    assert not rpc.attempts


@everywhere
def test_a_cancelled_future_raises_so(place: Place, plain: bool) -> None:
    """That is no cancellation of the RPC: the flow is told, and its failure names it."""
    waits = Waits()
    waits.future.cancel()

    with place.open(waits, plain=plain) as rpc:
        reply = rpc.call("a")

    assert isinstance(waits.told[0], CancelledError)
    assert reply.code is grpc.StatusCode.INTERNAL and "Waits raised CancelledError" in reply.details


@everywhere
def test_the_deadline_of_the_flow_ends_the_wait(place: Place, plain: bool) -> None:
    """Then DEADLINE_EXCEEDED is raised in the flow, and the Future is left alone: others may wait for it."""
    clock = FakeClock()
    waits = Waits(deadline=lambda call: clock.now() + 5)

    def pass_time() -> None:
        clock.wait_for()
        clock.advance(5)

    passing = threading.Thread(target=pass_time)
    passing.start()
    with place.open(waits, clock=clock, plain=plain) as rpc:
        reply = rpc.call("a")
        passing.join()

    assert isinstance(waits.told[0], errors.DeadlineExceeded) and waits.told[0].local
    assert reply.details == "the deadline passed while an interceptor waited"
    assert not waits.future.cancelled() and not rpc.attempts


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_deadline_of_the_call_ends_the_wait(place: Place) -> None:
    """What the caller allowed holds, whatever the flow asks for."""
    clock = FakeClock()
    waits = Waits(deadline=lambda call: clock.now() + 60)

    def pass_time() -> None:
        clock.wait_for()
        clock.advance(5)

    passing = threading.Thread(target=pass_time)
    passing.start()
    with place.open(waits, clock=clock) as rpc:
        reply = rpc.call("a", timeout=5)
        passing.join()

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED and not rpc.attempts


@pytest.mark.parametrize(("place", "plain"), [way for way in WAYS if way[0] in SERVERS], ids=lambda value: str(value))
def test_a_client_that_goes_ends_the_wait(place: Place, plain: bool) -> None:
    """Nobody listens any more, so the handler is not called; by the deadline here, which the client sees as such."""
    waits = Waits()

    with place.open(waits, plain=plain) as rpc:
        for timeout in TIMEOUTS:
            reply = rpc.call("a", timeout=timeout)
            if waits.waiting.is_set():
                break

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert waits.told
    assert all(isinstance(told, (errors.StatusError, asyncio.CancelledError)) for told in waits.told)


def test_a_sync_server_is_told_of_a_cancelled_call() -> None:
    """The thread of the pool is free again when the client has cancelled."""
    waits = Waits()
    ended = threading.Event()

    def noted(call: Call) -> Flow:
        yield call
        ended.set()

    with Place(False, Side.SERVER, Kind.UNARY_UNARY).open(noted, waits) as rpc:
        call = Stub(rpc.channel).unary_unary.future("a")
        assert waits.waiting.wait(BOUND)
        call.cancel()
        assert ended.wait(BOUND)

    assert isinstance(waits.told[0], errors.Cancelled) and waits.told[0].local


def start(place: Place, channel: Any) -> Any:
    """An RPC of this kind that nobody waits for."""
    stub = Stub(channel).method(place.kind)
    request = iter(["a"]) if place.kind.request_streaming else "a"
    return stub(request) if place.kind.response_streaming else stub.future(request)


SYNC = [place for place in CLIENTS if not place.asyncio]
AIO = [place for place in CLIENTS if place.asyncio]


@pytest.mark.parametrize("place", SYNC, ids=str)
def test_cancelling_a_call_that_waits(place: Place) -> None:
    """On a sync channel: it ends at once, the flow is told, and the Future is left alone."""
    waits = Waits()

    with place.open(waits) as rpc:
        call = start(place, rpc.channel)
        running = call.running()
        cancelled = call.cancel()

    assert running and cancelled and call.code() is grpc.StatusCode.CANCELLED
    assert isinstance(waits.told[0], errors.Cancelled)
    assert not waits.future.cancelled() and not rpc.attempts


@pytest.mark.parametrize("place", SYNC, ids=str)
def test_a_call_that_waits_holds_no_thread(place: Place) -> None:
    """Fifty of them wait, and there is no thread more; they all go on when the Future is set."""
    waits = Waits()

    with place.open(waits) as rpc:
        first = start(place, rpc.channel)
        before = threading.active_count()
        calls = [first, *(start(place, rpc.channel) for _ in range(50))]
        after = threading.active_count()
        waits.future.set_result("here")
        answers = [list(call) if place.kind.response_streaming else call.result() for call in calls]

    assert after <= before  # one of an earlier test may end meanwhile
    assert len(answers) == 51 == len(waits.told) == len(rpc.attempts)


@pytest.mark.parametrize("place", SYNC, ids=str)
def test_a_dropped_call_does_not_wait(place: Place) -> None:
    """The application has lost it: the flow is told, and what it waited for is left alone."""
    waits = Waits()
    ended = threading.Event()

    def noted(call: Call) -> Flow:
        yield call
        ended.set()

    with place.open(noted, waits) as rpc:
        del_me = start(place, rpc.channel)
        del del_me
        assert ended.wait(BOUND)

    assert isinstance(waits.told[0], errors.Cancelled) and not waits.future.cancelled()


@pytest.mark.parametrize("place", SYNC, ids=str)
def test_a_channel_that_closes_ends_the_wait(place: Place) -> None:
    """Nothing could be sent on it any more."""
    waits = Waits()
    replies: list[Any] = []

    with place.open(waits) as rpc:
        calling = threading.Thread(target=lambda: replies.append(rpc.call("a")))
        calling.start()
        assert waits.waiting.wait(BOUND)
        rpc.channel.close()
        calling.join(BOUND)

    assert replies[0].code is grpc.StatusCode.CANCELLED
    assert isinstance(waits.told[0], errors.Cancelled) and not waits.future.cancelled()


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
async def test_cancelling_an_asyncio_call_that_waits(kind: Kind) -> None:
    """It ends at once, the flow is told, and the Future is left alone."""
    waits = Waits()

    async with Echo().serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), waits) as channel:
        stub = Stub(channel).method(kind)
        call = stub(iter(["a"]) if kind.request_streaming else "a")
        await asyncio.sleep(0)
        assert call.cancel()
        code = await asyncio.wait_for(call.code(), BOUND)

    assert code is grpc.StatusCode.CANCELLED
    assert isinstance(waits.told[0], errors.Cancelled)
    assert not waits.future.cancelled()


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
async def test_an_asyncio_channel_that_closes_ends_the_wait(kind: Kind) -> None:
    """Nothing could be sent on it any more."""
    waits = Waits()

    async with Echo().serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), waits) as channel:
        stub = Stub(channel).method(kind)
        call = stub(iter(["a"]) if kind.request_streaming else "a")
        await asyncio.sleep(0)
        await channel.close()
        code = await asyncio.wait_for(call.code(), BOUND)

    assert code is grpc.StatusCode.CANCELLED
    assert isinstance(waits.told[0], errors.Cancelled) and not waits.future.cancelled()


async def test_a_loop_that_has_gone() -> None:
    """A Future that is set when nobody's loop runs any more is set without a word."""
    waits = Waits()

    async def leave() -> None:
        channel = intercept_channel(grpc.aio.insecure_channel("localhost:1"), waits)
        call = Stub(channel).unary_unary("a")
        await asyncio.sleep(0)
        call.cancel()
        await channel.close()

    await asyncio.to_thread(asyncio.run, leave())
    waits.future.set_result("late")

    assert isinstance(waits.told[0], errors.Cancelled)


def test_played_by_hand() -> None:
    """`play` gives what a Future has, or what the test says; without either it says what to do."""
    done = Waits()
    done.future.set_result("here")
    answered, lost = Waits(), Waits()

    play(done, [ok()])
    play(answered, [ok()], answers=["by hand"])
    with pytest.raises(ScriptError, match=r"Waits waits for a Future.*answers=\[…\]"):
        play(lost, [ok()])

    assert done.told == ["here"] and answered.told == ["by hand"]


@pytest.mark.slow
def test_a_future_that_is_set_in_the_middle_of_the_wait_for_it() -> None:
    """However it falls: a thousand RPCs whose Future is set by another thread just then."""
    outcomes: list[Outcome] = []

    def waits(call: Call) -> Flow:
        future: Future[int] = Future()
        pool.submit(future.set_result, 1)
        yield from wait(future)
        outcomes.append((yield call))

    with (
        futures.ThreadPoolExecutor(2) as pool,
        Place(False, Side.CLIENT, Kind.UNARY_UNARY).open(waits) as rpc,
    ):
        stub = Stub(rpc.channel).unary_unary
        calls = [stub.future("a") for _ in range(1000)]
        answers = {call.result(BOUND) for call in calls}

    assert answers == {"a"} and len(outcomes) == 1000


def test_ctrl_c_ends_the_wait_of_a_blocking_call() -> None:
    """It reaches the application as what it is; the flow is told, and the Future is left alone."""

    class Interrupted(FakeClock):
        def sleep(self, seconds: float, woken: threading.Event) -> None:
            raise KeyboardInterrupt

    waits = Waits()

    with (
        Echo().serve() as target,
        intercept_channel(grpc.insecure_channel(target), waits, clock=Interrupted()) as channel,
        pytest.raises(KeyboardInterrupt),
    ):
        Stub(channel).unary_unary("a")

    assert isinstance(waits.told[0], KeyboardInterrupt) and not waits.future.cancelled()
