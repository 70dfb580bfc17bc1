"""Hedge: which copies are sent, when, and which answer is taken."""

import logging
import math
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Kind, Outcome, Side, errors
from interpose.interceptors import BY_CONVENTION, Hedge, HedgeDetails, RetryBudget
from interpose.interceptors.hedge import ATTEMPT, quantile
from interpose.mechanisms.budget import Unlimited
from interpose.testing import PLACES, Place, failed, ok, play, raised
from interpose.testing.acts import Act
from tests.interceptors.driving import Told, codes, each, hedge, is_server, requests, retry_info, times
from tests.support.patience import PATIENCE, TIMEOUTS

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL

FAR = 3600.0  # a delay that no test waits for
SOON = 0.01

HANG = Act(hang=True)
DOWN = failed(UNAVAILABLE)

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
UPLOADS = [place for place in CLIENTS if place.kind.request_streaming]
STREAMED = [place for place in CLIENTS if place.kind.response_streaming]
KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


def answers(place: Place) -> list[str]:
    """What the service echoes there."""
    return ok().answer(place.kind, requests(place))


# --- in all places --------------------------------------------------------------------------------------------------


def test_a_failure_lets_the_next_copy_go_at_once(place: Place) -> None:
    """On a client the second copy, which carries its number, answers; on a server nothing is hedged."""
    outcomes: list[Outcome] = []
    script = [failed(UNAVAILABLE, unread=is_server(place)), ok()]

    with place.open(each(outcomes), hedge(delay=FAR), script=script) as rpc:
        reply = rpc.call(*requests(place))

    if is_server(place):
        assert [outcome.code for outcome in outcomes] == [UNAVAILABLE]
        assert len(rpc.attempts) == 1
    else:
        assert reply.ok
        assert reply.messages == answers(place)
        assert [attempt.values(ATTEMPT) for attempt in rpc.attempts] == [[], ["1"]]
        assert [attempt.requests for attempt in rpc.attempts] == [list(requests(place))] * 2
        assert [outcome.attempts for outcome in outcomes] == [2]


def test_a_quick_answer_needs_no_copy(place: Place) -> None:
    """One attempt, without a number."""
    with place.open(hedge(delay=FAR)) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [attempt.values(ATTEMPT) for attempt in rpc.attempts] == [[]]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_copy_that_hangs_is_overtaken(place: Place) -> None:
    """The second copy goes after the delay and answers; the first is cancelled, and its handler knows."""
    with place.open(hedge(delay=SOON), script=[HANG, ok("second"), ...]) as rpc:
        reply = rpc.call(*requests(place))
        rpc.echo.wait_ended(2)

    assert (reply.ok, reply.messages) == (True, ["second"])
    assert rpc.attempts[0].cancelled
    assert not rpc.attempts[1].cancelled


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_when_all_have_failed(place: Place) -> None:
    """The last failure is the answer, as the server told it; a note says how many copies there were."""
    script = [failed(UNAVAILABLE, f"copy {number}") for number in range(1, 4)]

    with place.open(hedge(3, FAR), script=script) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.details) == (UNAVAILABLE, "copy 3")
    assert getattr(reply.error, "__notes__", []) == ["Hedge: none of 3 copies had a good answer"]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_deadline_ends_all_copies(place: Place) -> None:
    """It is that of the RPC: no copy outlives it, and none is sent when it has passed."""
    ended: list[HedgeDetails] = []
    told = Told()

    with place.open(told, hedge(2, SOON, on_hedge=ended.append), script=[HANG, ...]) as rpc:
        for timeout in TIMEOUTS:
            ended.clear()
            reply = rpc.call(*requests(place), timeout=timeout)
            assert told.ended.acquire(timeout=PATIENCE)
            copies = told.outcomes[-1].attempts
            while len(ended) < copies:
                pass  # time is over for all at once, and the hook is told of each where it ends
            if copies == 2:
                break
        rpc.echo.wait_ended(len(rpc.attempts))

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert all(attempt.cancelled for attempt in rpc.attempts)
    assert sorted(details.number for details in ended) == [0, 1]


@pytest.mark.parametrize("place", STREAMED, ids=str)
def test_a_stream_that_breaks_after_its_first_message_has_failed(place: Place) -> None:
    """It had won, so no other copy is sent, and no message comes twice."""
    with place.open(hedge(3, FAR), script=[failed(UNAVAILABLE, after=1)]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.messages) == (UNAVAILABLE, ["a"])
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", UPLOADS, ids=str)
@pytest.mark.parametrize(("size", "copies"), [(100_000, 2), (200_000, 1)])
def test_a_request_stream_is_kept_up_to_a_quarter_of_a_mebibyte(place: Place, size: int, copies: int) -> None:
    """Two messages that fit go with the second copy; beyond that there is none."""
    with place.open(hedge(delay=FAR), script=[DOWN, ok("second")]) as rpc:
        reply = rpc.call("x" * size, "y" * size)

    assert [len(attempt.requests) for attempt in rpc.attempts] == [2] * copies
    assert reply.messages == (["second"] if copies == 2 else [])


@pytest.mark.parametrize("place", UPLOADS, ids=str)
@pytest.mark.parametrize(("room", "copies"), [(4, 2), (3, 1)])
def test_the_buffer_may_be_chosen(place: Place, room: int, copies: int) -> None:
    """In bytes, as serialized."""
    with place.open(hedge(delay=FAR, buffer=room), script=[DOWN, ok()]) as rpc:
        reply = rpc.call("ab", "cd")

    assert len(rpc.attempts) == copies
    assert reply.ok is (copies == 2)


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_server_asks_for_no_more(place: Place) -> None:
    """A negative `grpc-retry-pushback-ms`: the failure is the answer, and no copy is sent."""
    with place.open(hedge(3, FAR), script=[failed(UNAVAILABLE, pushback="-1")]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is UNAVAILABLE
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_an_error_detail_asks_for_no_haste(place: Place) -> None:
    """`google.rpc.RetryInfo` chooses the pause as the trailer does: none at all here, or it would take an hour."""
    busy = raised(errors.Unavailable("busy", retry_info(0)))

    with place.open(hedge(2, FAR), script=[busy, ok("second")]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.ok, reply.messages) == (True, ["second"])


# --- the five responses of gRFC A6 ----------------------------------------------------------------------------------


@KINDS
def test_ok(kind: Kind) -> None:
    """The first good answer is taken; the others are cancelled."""
    played = play(hedge(3), [ok("late", delay=9), ok("first", delay=1.5), ok("later", delay=5)], kind=kind)

    assert times(played) == [0, 1, 2]
    assert codes(played) == ["CANCELLED", "OK", "CANCELLED"]
    assert (played.responses, played.elapsed, played.outcome.attempts) == (["first"], 2.5, 3)


@KINDS
def test_fatal(kind: Kind) -> None:
    """Any other code than those of `codes` is the answer; the others are cancelled."""
    played = play(hedge(3), [ok(delay=9), failed(NOT_FOUND, "no such", delay=0.5)], kind=kind)

    assert times(played) == [0, 1]
    assert codes(played) == ["CANCELLED", "NOT_FOUND"]
    assert (played.outcome.details, played.elapsed) == ("no such", 1.5)


@KINDS
def test_not_fatal(kind: Kind) -> None:
    """The next copy goes at once, and from then on the delay begins anew."""
    played = play(hedge(4), [ok(delay=9), failed(UNAVAILABLE, delay=0.25), ok(delay=9), ok("fourth")], kind=kind)

    assert times(played) == [0, 1, 1.25, 2.25]
    assert played.responses == ["fourth"]


@KINDS
@pytest.mark.parametrize("word", ["-1", "soon", "2147483648", ""])
def test_pushback_do_not_retry(kind: Kind, word: str) -> None:
    """No more copies; those that run are waited for."""
    played = play(hedge(4), [ok("first", delay=9), failed(UNAVAILABLE, pushback=word)], kind=kind)

    assert times(played) == [0, 1]
    assert (played.responses, played.elapsed) == (["first"], 9)


@KINDS
def test_pushback_in_so_many_milliseconds(kind: Kind) -> None:
    """The next copy goes then, be that sooner or later than it would have, and from then on the delay begins anew."""
    script = [
        ok(delay=9),
        failed(UNAVAILABLE, pushback=3.5),
        failed(UNAVAILABLE, pushback=0.25),
        ok(delay=9),
        ok("fifth"),
    ]
    played = play(hedge(5), script, kind=kind)

    assert times(played) == [0, 1, 4.5, 4.75, 5.75]
    assert played.responses == ["fifth"]


def test_pushback_of_a_fatal_failure() -> None:
    """It makes no failure less fatal."""
    played = play(hedge(3), [failed(NOT_FOUND, pushback=1)])

    assert (played.outcome.code, played.elapsed) == (NOT_FOUND, 0)


def test_retry_info() -> None:
    """`google.rpc.RetryInfo` in the error details counts as the trailer does."""
    played = play(hedge(), [raised(errors.Unavailable("busy", retry_info(7))), ok()])

    assert times(played) == [0, 7]


def test_codes_may_be_chosen() -> None:
    """What is not fatal is a matter of the service."""
    busy = failed(grpc.StatusCode.RESOURCE_EXHAUSTED)

    chosen = play(hedge(codes={grpc.StatusCode.RESOURCE_EXHAUSTED}), [busy, ok()])
    none = play(hedge(codes=()), [DOWN])

    assert times(chosen) == [0, 0]
    assert none.outcome.code is UNAVAILABLE


def test_all_at_once() -> None:
    """Without a delay no copy waits for another."""
    played = play(hedge(3, 0), [ok(delay=3), ok(delay=2), ok("third", delay=1)])

    assert times(played) == [0, 0, 0]
    assert played.responses == ["third"]


def test_the_pause_would_outlive_the_deadline() -> None:
    """With nothing else under way, the failure is the answer at once."""
    played = play(hedge(), [failed(UNAVAILABLE, pushback=60)], timeout=10)

    assert (played.outcome.code, played.elapsed) == (UNAVAILABLE, 0)


@KINDS
def test_an_empty_stream_that_ends_well_wins(kind: Kind) -> None:
    """No message is an answer as well, where responses are a stream."""
    empty = Outcome(replayable=True, elapsed=0.5)
    played = play(hedge(), [Act(hang=True), empty], kind=kind)

    assert played.outcome.ok
    assert (played.responses, played.elapsed) == ([] if kind.response_streaming else [None], 1.5)


# --- the hook -------------------------------------------------------------------------------------------------------


def test_the_hook_is_told_of_every_copy() -> None:
    """Of the winner, and of those that were cancelled: what was sent, how it ended, and its number."""
    told: list[HedgeDetails] = []

    play(hedge(3, on_hedge=told.append), [ok(delay=9), DOWN, ok()])

    assert [(details.number, details.outcome.code) for details in told] == [
        (1, UNAVAILABLE),
        (2, grpc.StatusCode.OK),
        (0, CANCELLED),
    ]
    assert [details.call.metadata.get(ATTEMPT) for details in told] == ["1", "2", None]
    assert told[2].outcome.local


def test_a_hook_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The RPC goes on."""

    def fail(details: HedgeDetails) -> None:
        raise KeyError(details.number)

    with caplog.at_level(logging.ERROR, "interpose"):
        played = play(hedge(on_hedge=fail), [DOWN, ok("second")])

    assert played.responses == ["second"]
    logged = [record.getMessage() for record in caplog.records if record.name == "interpose"]
    assert logged == ["on_hedge failed; the RPC goes on all the same"] * 2


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_hook_is_told_when_all_is_over(place: Place) -> None:
    """When the caller has its answer, each copy has ended, and was told once."""
    told: list[HedgeDetails] = []

    with place.open(hedge(2, SOON, on_hedge=told.append), script=[HANG, ok("second"), ...]) as rpc:
        rpc.call(*requests(place))

    assert sorted(details.number for details in told) == [0, 1]
    assert sorted(details.outcome.code.name for details in told) == ["CANCELLED", "OK"]


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"copies": 1}, "copies must be a whole number from 2 to 100, not 1"),
        ({"copies": 101}, "copies must be a whole number from 2 to 100, not 101"),
        ({"copies": 2.0}, "copies must be a whole number from 2 to 100, not 2.0"),
        ({"delay": -1}, r"delay must be 0 or more seconds, or quantile\(0.95\), not -1"),
        ({"delay": True}, r"delay must be 0 or more seconds, or quantile\(0.95\), not True"),
        ({"delay": math.inf}, "delay must be 0 or more seconds, or .*, not inf"),
        ({"delay": math.nan}, "delay must be 0 or more seconds, or .*, not nan"),
        ({"delay": "1s"}, "delay must be 0 or more seconds, or .*, not '1s'"),
        ({"codes": UNAVAILABLE}, "codes must be a set like"),
        ({"codes": {14}}, "codes must be a set like"),
        ({"codes": {grpc.StatusCode.OK}}, "codes must be a set like .*, without OK, not "),
        ({"budget": RetryBudget}, r"budget must be None or a budget like RetryBudget\(\) or Unlimited\(\), not <class"),
        ({"budget": 10}, "budget must be None or a budget like"),
        ({"safe": False}, "safe must be None, True or a function .*, not False: what is not safe cannot be hedged"),
        ({"safe": "yes"}, "safe must be None, True or a function of the call, not 'yes'"),
        ({"safe": BY_CONVENTION}, "safe must be None, True or a function of the call, not <Convention.BY_CONVENTION"),
        ({"buffer": -1}, "buffer must be a whole number of bytes from 0 to 2147483647, not -1"),
        ({"buffer": 2**31}, "buffer must be a whole number of bytes from 0 to 2147483647, not 2147483648"),
        ({"on_hedge": 7}, "on_hedge must be a function of HedgeDetails, not 7"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """They are a ValueError that says what to write instead."""
    with pytest.raises(ValueError, match=f"^Hedge: {fault}"):
        Hedge(**options)


def test_all_faults_at_once() -> None:
    """One error tells every one of them."""
    with pytest.raises(ValueError, match=r"^Hedge: copies .*; delay .*; codes .*; budget .*; safe .*; buffer .*; on"):
        Hedge(1, delay=-1, codes=7, budget=7, safe=7, buffer=-1, on_hedge=7)  # type: ignore[arg-type]


def test_options_that_make_sense() -> None:
    """The ends of the ranges are in them."""
    Hedge(2, delay=0, codes=[], safe=True, buffer=0)
    Hedge(100, delay=quantile(), codes=frozenset({UNAVAILABLE}), budget=Unlimited(), safe=bool, buffer=2**31 - 1)


def test_delays_are_observed_of_so_many_methods() -> None:
    """What a proxy passes on may have any name; beyond a thousand they share one delay."""
    hedge = Hedge(delay=quantile(), safe=True)

    for number in range(1100):
        play(hedge, [ok(), ...], method=f"/proxied.S/M{number}")

    assert len(hedge.delays()) == 1025 and "other methods" in hedge.delays()
