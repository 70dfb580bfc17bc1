"""Deadline: the earliest of three, fixed once, kept by attempts and handlers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Side, chain
from interpose.interceptors import Deadline, Retry
from interpose.mechanisms.backoff import exponential
from interpose.testing import PLACES, FakeClock, Place, failed, incoming, ok, play
from tests.facts.serving import Watch, serving
from tests.interceptors.driving import requests
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
SERVERS = [place for place in PLACES if place.side is Side.SERVER]


def left(clock: FakeClock, seen: list[float | None]) -> Any:
    """An interceptor that keeps how much is left of the deadline when a call passes."""

    def look(call: Call) -> Flow:
        seen.append(None if call.deadline is None else call.deadline - clock.now())
        yield call

    return look


@pytest.mark.parametrize(
    ("own", "handled", "expected"),
    [(None, None, 5), (3, None, 3), (60, None, 5), (None, 2, 2), (3, 2, 2), (1, 2, 1), (None, 90, 5)],
)
def test_the_earliest_of_three(own: float | None, handled: float | None, expected: float) -> None:
    """What the application asked for, what the option says, what is left of the RPC that is being handled."""
    clock = FakeClock()
    seen: list[float | None] = []
    outer = None if handled is None else incoming(timeout=handled, clock=clock)

    play(chain(Deadline(5), left(clock, seen)), timeout=own, incoming=outer, clock=clock)

    assert seen == [expected]


def test_attempts_and_pauses_share_it() -> None:
    """Each attempt gets what is left; no pause outlives the deadline."""
    clock = FakeClock()
    retry = Retry(attempts=9, safe=True, backoff=exponential(1.5, multiplier=1, cap=1.5, jitter=0))

    played = play(chain(Deadline(4), retry), [failed(UNAVAILABLE, delay=0.5), ...], clock=clock)

    assert [sent.at for sent in played.sent] == [0, 2]
    assert played.outcome.code is UNAVAILABLE


def test_an_attempt_has_its_own_limit() -> None:
    """`per_attempt` ends an attempt that hangs, and the next one has as much, within the deadline."""
    clock = FakeClock()

    def insist(call: Call) -> Flow:
        outcome = yield call
        while outcome.code is DEADLINE_EXCEEDED and not outcome.local:
            outcome = yield call
        return outcome

    played = play(chain(Deadline(5, per_attempt=2), insist), [ok(hang=True), ...], clock=clock)

    assert [sent.outcome.elapsed for sent in played.sent] == [2, 2, 1]
    assert played.elapsed == 5


def test_a_shorter_limit_of_an_attempt_stands() -> None:
    """An application that asked for less gets less."""
    clock = FakeClock()

    played = play(Deadline(5, per_attempt=2), timeout=1, clock=clock)

    assert played.sent[0].timeout == 1


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_nothing_is_sent_when_nothing_is_left(place: Place) -> None:
    """The RPC ends here, with a failure that says so."""
    clock = FakeClock()

    def late(call: Call) -> Flow:
        clock.advance(6)
        yield call

    with place.open(Deadline(5), late, Deadline(9), clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is DEADLINE_EXCEEDED
    assert reply.error is not None and getattr(reply.error, "local", False)
    assert rpc.attempts == []


def test_it_reaches_the_server(place: Place) -> None:
    """The server sees the deadline, or its own limit, in `time_remaining()`."""
    with place.open(Deadline(30)) as rpc:
        reply = rpc.call(*requests(place))

    [attempt] = rpc.attempts
    assert reply.ok
    assert attempt.time_remaining is not None and 20 < attempt.time_remaining < 31  # up to a tenth more: fact S-10


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_a_request_that_is_late_already_is_refused_unrun(place: Place) -> None:
    """Its time passed in front of the handler, as in a queue."""
    clock = FakeClock()

    def queue(call: Call) -> Flow:
        assert call.deadline is not None
        clock.advance(60)
        yield call

    with place.open(queue, Deadline(30), clock=clock) as rpc:
        reply = rpc.call(*requests(place), timeout=50)

    assert reply.code is DEADLINE_EXCEEDED
    assert "before the handler was called" in reply.details
    assert rpc.attempts == []


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_an_asyncio_handler_is_cancelled(kind: Kind) -> None:
    """A handler that takes too long is cancelled where it waits; client and flows are told DEADLINE_EXCEEDED."""
    cancelled, watch, clock = threading.Event(), Watch(), FakeClock()

    async def wait() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("nobody answers")

    async def unary(argument: Any, context: Any) -> str:
        return await wait()

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        yield await wait()

    handler = stream if kind.response_streaming else unary
    with serving("async", {kind.value: handler}, watch, Deadline(5), clock=clock) as client:
        call = client.start(kind=kind.value)
        clock.wait_for()
        clock.advance(5)
        code = call.code()

    assert (code, watch.next().code) == (DEADLINE_EXCEEDED, DEADLINE_EXCEEDED)
    assert cancelled.wait(PATIENCE)


@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_a_plain_stream_ends_at_its_next_message(sort: str) -> None:
    """A thread cannot be stopped: it sees its time in `time_remaining()`, and no message leaves when that is over."""
    clock, watch = FakeClock(), Watch()
    remaining: list[float] = []

    def stream(request: str, context: Any) -> Iterator[str]:
        yield "in time"
        clock.advance(5)
        remaining.append(context.time_remaining())
        yield "too late"

    with serving(sort, {"unary_stream": stream}, watch, Deadline(5), clock=clock) as client:
        reply = client.call(kind="unary_stream")

    assert (reply.messages, reply.code) == (["in time"], DEADLINE_EXCEEDED)
    assert watch.next().responses == 1
    assert remaining == [0]


def test_all_faults_are_told_at_once() -> None:
    """Values that make no sense are refused, with what to write instead."""
    with pytest.raises(ValueError, match=r"seconds must be .* not 0; per_attempt must be .* not -1"):
        Deadline(0, per_attempt=-1)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 1e9, True, "5", None])
def test_a_limit_is_a_number_of_seconds(seconds: Any) -> None:
    """grpc takes 1e9 seconds for a deadline that has passed, and so for nan and inf."""
    with pytest.raises(ValueError, match="seconds must be"):
        Deadline(seconds)


def test_an_rpc_deadline_is_a_finite_time() -> None:
    """`with_deadline` refuses what is no time, and never makes a deadline later."""
    seen: list[Call] = []

    def look(call: Call) -> Flow:
        for when in (float("inf"), float("nan"), None):
            with pytest.raises(ValueError, match="with_deadline"):
                call.with_deadline(when)
        with pytest.raises(TypeError):
            call.with_deadline("soon")  # type: ignore[arg-type]
        seen.extend((call, call.with_deadline(1e7), call.with_deadline(1.5)))
        yield call

    play(look, timeout=5)

    first, later, earlier = seen
    assert later is first and earlier.deadline == 1.5


@pytest.mark.parametrize("timeout", [-1, 0, -1e300])
@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_timeout_that_is_over_before_it_begins(place: Place, timeout: float) -> None:
    """Nothing is sent, whatever the limit is."""
    with place.open(Deadline(30)) as rpc:
        reply = rpc.call(*requests(place), timeout=timeout)

    assert reply.code is DEADLINE_EXCEEDED
    assert rpc.attempts == []


@pytest.mark.parametrize("timeout", [1e8, 1e9, 1e300, float("inf")])
@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_timeout_beyond_all_time_is_none(place: Place, timeout: float) -> None:
    """Bare grpc takes it for one that has passed; here the limit holds."""
    with place.open(Deadline(30)) as rpc:
        reply = rpc.call(*requests(place), timeout=timeout)

    assert reply.ok
    assert rpc.attempts[0].time_remaining is not None and rpc.attempts[0].time_remaining < 31
