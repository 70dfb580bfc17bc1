"""Hedge: among other interceptors, and ends from outside."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, Side, chain, errors, intercept_channel, wait
from interpose.interceptors import CircuitBreaker, HedgeDetails, Retry
from interpose.interceptors.hedge import ATTEMPT
from interpose.testing import Place, failed, ok, play
from interpose.testing.acts import Act
from interpose.testing.echo import Echo, Stub
from tests.interceptors.driving import codes, each, hedge, notes, times
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL

FAR = 3600.0  # a delay that no test waits for
SOON = 0.01

HANG = Act(hang=True)
DOWN = failed(UNAVAILABLE)


# --- among others ---------------------------------------------------------------------------------------------------


def test_a_copy_that_is_refused_inside() -> None:
    """An open breaker refuses each copy with UNAVAILABLE, at once: nothing is sent, and no time is lost."""
    breaker = CircuitBreaker()
    breaker.force_open()

    played = play(chain(hedge(3), breaker), [])

    assert (played.outcome.code, played.outcome.local, played.elapsed) == (UNAVAILABLE, True, 0)
    assert played.outcome.attempts == 0
    assert notes(played.outcome) == []


def test_a_copy_that_is_refused_inside_for_good() -> None:
    """What an interceptor further in refuses with another status is the answer."""

    def forbid(call: Call) -> Flow:
        raise errors.PermissionDenied("not you", local=True)
        yield call

    played = play(chain(hedge(3, codes={grpc.StatusCode.PERMISSION_DENIED}), forbid), [])

    assert played.outcome.details == "not you"


def test_a_retry_outside_sends_the_race_again() -> None:
    """Two times two copies, each race with numbers of its own."""
    retry = Retry(2, backoff=lambda number: 10.0, safe=True)

    played = play(chain(retry, hedge()), [DOWN, DOWN, DOWN, ok()])

    assert times(played) == [0, 0, 10, 10]
    assert [sent.metadata.get(ATTEMPT) for sent in played.sent] == [None, "1", "1", "1"]
    assert played.outcome.attempts == 4


def test_a_retry_inside_makes_several_attempts_of_a_copy() -> None:
    """A copy pauses and tries again while the next one is under way."""
    retry = Retry(2, backoff=lambda number: 10.0, safe=True)

    played = play(chain(hedge(), retry), [DOWN, ok(delay=20), ok("third")])

    assert times(played) == [0, 1, 10]
    assert played.responses == ["third"]


def test_a_copy_that_has_lost_is_not_tried_again() -> None:
    """A retry inside is told that its copy was cancelled, and lets it be."""
    retry = Retry(3, codes={UNAVAILABLE, CANCELLED}, safe=True)

    played = play(chain(hedge(), retry), [HANG, ok("second")])

    assert played.responses == ["second"]
    assert codes(played) == ["CANCELLED", "OK"]


def test_what_a_copy_waits_for_inside() -> None:
    """A flow below that has something to await does so for each copy."""

    def with_token(call: Call) -> Flow:
        token = yield from wait(fetch())
        yield call.with_metadata(("x-token", token))

    async def fetch() -> str:
        return "secret"

    played = play(chain(hedge(), with_token), [DOWN, ok()])

    assert [sent.metadata.get("x-token") for sent in played.sent] == ["secret", "secret"]


def test_there_is_no_note_for_one_copy() -> None:
    """Nor for an answer."""
    fatal = play(hedge(), [failed(NOT_FOUND)])
    good = play(hedge(), [DOWN, ok()])
    both = play(hedge(), [DOWN, failed(NOT_FOUND)])

    assert [notes(played.outcome) for played in (fatal, good, both)] == [
        [],
        [],
        ["Hedge: none of 2 copies had a good answer"],
    ]


def test_a_buffer_that_is_there_is_kept() -> None:
    """An interceptor further out that asks for more has it; unary requests need none."""

    def keeps_more(call: Call) -> Flow:
        yield call.buffered(10**6)

    hedging = hedge(buffer=1000)
    calls = [
        play(stack, kind=kind).sent[0].call
        for stack, kind in [
            (hedging, Kind.STREAM_UNARY),
            (chain(keeps_more, hedging), Kind.STREAM_STREAM),
            (hedging, Kind.UNARY_STREAM),
        ]
    ]

    assert [call._asks.buffer for call in calls] == [1000, 10**6, None]


def test_the_callers_own_number_is_replaced() -> None:
    """A server that passes its metadata on does not confuse the next one."""
    played = play(hedge(), [DOWN, ok()], metadata=((ATTEMPT, "7"), ("x-id", "1")))

    assert [list(sent.metadata) for sent in played.sent] == [
        [(ATTEMPT, "7"), ("x-id", "1")],
        [("x-id", "1"), (ATTEMPT, "1")],
    ]


# --- an end from outside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_cancelling_a_sync_call_cancels_every_copy(kind: Kind) -> None:
    """Also while none has answered; the hook is told of each."""
    told: list[HedgeDetails] = []

    with Place(False, Side.CLIENT, kind).open(hedge(2, SOON, on_hedge=told.append), script=[HANG, ...]) as rpc:
        stub = getattr(Stub(rpc.channel), kind.value)
        call = stub("a") if kind.response_streaming else stub.future("a")
        rpc.echo.wait_begun(2)
        assert call.cancel()
        assert call.code() is CANCELLED
        rpc.echo.wait_ended(2)

    assert [attempt.cancelled for attempt in rpc.attempts] == [True, True]
    assert sorted(details.number for details in told) == [0, 1]


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
async def test_cancelling_an_asyncio_call_cancels_every_copy(kind: Kind) -> None:
    """On asyncio as well."""
    echo, told = Echo([HANG, ...]), list[HedgeDetails]()

    async with echo.serve_aio() as target, hedged_channel(target, hedge(2, SOON, on_hedge=told.append)) as channel:
        call = getattr(Stub(channel), kind.value)("a")
        await asyncio.to_thread(echo.wait_begun, 2)
        assert call.cancel()
        assert await call.code() is CANCELLED
        await asyncio.to_thread(echo.wait_ended, 2)

    assert [attempt.cancelled for attempt in echo.attempts] == [True, True]
    assert sorted(details.number for details in told) == [0, 1]


def hedged_channel(target: str, *stack: Interceptor) -> Any:
    return intercept_channel(grpc.aio.insecure_channel(target), *stack)


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_closing_a_sync_channel_ends_it(kind: Kind) -> None:
    """The copies under way end, the one that was to come is never sent, and the caller is told."""
    outcomes: list[Outcome] = []

    with Echo([HANG, ...]).serve() as target:
        channel = intercept_channel(grpc.insecure_channel(target), each(outcomes), hedge(3, FAR))
        stub = getattr(Stub(channel), kind.value)
        call = stub("a") if kind.response_streaming else stub.future("a")
        channel.close()
        assert call.code() is CANCELLED

    assert [outcome.code for outcome in outcomes] == [CANCELLED]


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
async def test_closing_an_asyncio_channel_ends_it(kind: Kind) -> None:
    """On asyncio as well."""
    echo, outcomes = Echo([HANG, ...]), list[Outcome]()

    async with echo.serve_aio() as target:
        channel = hedged_channel(target, each(outcomes), hedge(3, FAR))
        call = getattr(Stub(channel), kind.value)("a")
        await asyncio.to_thread(echo.wait_begun)
        await channel.close()
        assert await call.code() is CANCELLED

    assert [outcome.code for outcome in outcomes] == [CANCELLED]
    assert len(echo.attempts) == 1


def test_a_future_is_hedged() -> None:
    """What `.future()` gives does not block, and is hedged as any other call."""
    with Place(False, Side.CLIENT, Kind.UNARY_UNARY).open(hedge(2, SOON), script=[HANG, ok("second")]) as rpc:
        assert Stub(rpc.channel).unary_unary.future("a").result(PATIENCE) == "second"
        rpc.echo.wait_ended(2)

    assert rpc.attempts[0].cancelled
