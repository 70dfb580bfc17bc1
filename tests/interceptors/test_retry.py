"""Retry: what is sent again, when, and what is not."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, chain, errors
from interpose.interceptors import Retry, RetryDetails
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import RetryBudget, Unlimited
from interpose.testing import PLACES, FakeClock, Place, failed, ok, raised
from interpose.testing.acts import Act
from tests.facts.serving import serving
from tests.interceptors.driving import (
    at_once,
    each,
    failing,
    incoming,
    is_server,
    outgoing,
    play,
    refused,
    requests,
    retry_info,
    retrying,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
KEY = "x-retry-attempt"

STREAMED = [place for place in PLACES if place.kind.response_streaming]
CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
SERVERS = [place for place in PLACES if place.side is Side.SERVER]
WATCHES = [place for place in CLIENTS if place.kind is Kind.UNARY_STREAM]
UPLOADS = [place for place in PLACES if place.kind.request_streaming and place.side is Side.CLIENT]


# --- in all places --------------------------------------------------------------------------------------------------


def test_two_failures_then_an_answer(place: Place) -> None:
    """Three sends, and the caller sees the answer; a client numbers its retries."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), retrying(backoff=at_once), script=[*refused(place, 2), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [outcome.attempts for outcome in outcomes] == [3]
    numbered = [attempt.values(KEY) for attempt in rpc.attempts]
    assert numbered == ([[], [], []] if is_server(place) else [[], ["1"], ["2"]])


def test_it_gives_up_after_the_last_attempt(place: Place) -> None:
    """The caller sees the last failure as the server told it; the outcome and a note tell the attempts."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), retrying(3, backoff=at_once), script=refused(place, 9)) as rpc:
        reply = rpc.call(*requests(place))

    [outcome] = outcomes
    assert len(rpc.attempts) == outcome.attempts == 3
    assert (outcome.code, outcome.details) == (UNAVAILABLE, "refusal 3")
    assert outcome.error is not None
    assert outcome.error.__notes__ == ["Retry: attempt 3 was the last: all 3 were made"]
    if not is_server(place):  # grpc.aio's own client may tell INTERNAL when a stream is refused unread
        assert (reply.code, reply.details) == (UNAVAILABLE, "refusal 3")
        assert reply.error is not None
        assert reply.error.__notes__ == outcome.error.__notes__


def test_other_codes_are_not_tried_again(place: Place) -> None:
    """NOT_FOUND is an answer."""
    with place.open(retrying(backoff=at_once), script=[failed(grpc.StatusCode.NOT_FOUND)]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is grpc.StatusCode.NOT_FOUND
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", STREAMED, ids=str)
def test_never_after_a_message_was_delivered(place: Place) -> None:
    """A stream that breaks after its first message has failed, no message comes twice, and a note says why."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), retrying(backoff=at_once), script=[failed(UNAVAILABLE, after=1)]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.messages) == (UNAVAILABLE, ["a"])
    assert len(rpc.attempts) == 1
    why = "its handler had begun to answer" if is_server(place) else "a response had been delivered"
    assert outcomes[0].error.__notes__ == [f"Retry: attempt 1 was the last: {why}"]


def test_no_retry_outlives_the_deadline(place: Place) -> None:
    """If the pause would end after it, the last failure is the answer at once, not DEADLINE_EXCEEDED later."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), retrying(backoff=lambda _: 60.0), script=refused(place, 1)) as rpc:
        rpc.call(*requests(place), timeout=30)

    assert [(outcome.code, outcome.details) for outcome in outcomes] == [(UNAVAILABLE, "refusal 1")]
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", UPLOADS, ids=str)
@pytest.mark.parametrize(("size", "attempts"), [(100_000, 2), (200_000, 1)])
def test_a_request_stream_is_kept_up_to_a_quarter_of_a_mebibyte(place: Place, size: int, attempts: int) -> None:
    """Two messages that fit are sent again; beyond that the call is sent once, and a note says why."""
    with place.open(retrying(2, backoff=at_once), script=[failed(UNAVAILABLE), ok()]) as rpc:
        reply = rpc.call("x" * size, "y" * size)

    assert [len(attempt.requests) for attempt in rpc.attempts] == [2] * attempts
    notes = getattr(reply.error, "__notes__", [])
    too_long = ["Retry: attempt 1 was the last: more of its requests was sent than `buffer` keeps"]
    assert (reply.ok, notes) == ((True, []) if attempts == 2 else (False, too_long))


@pytest.mark.parametrize("place", [place for place in PLACES if is_server(place)], ids=str)
def test_on_a_server_nothing_is_kept(place: Place) -> None:
    """A handler that has read of its request stream is not called again, and a note says so; one with a unary request is."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), retrying(2, backoff=at_once), script=[failed(UNAVAILABLE), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok is not place.kind.request_streaming
    assert len(rpc.attempts) == (1 if place.kind.request_streaming else 2)
    read = ["Retry: attempt 1 was the last: its handler had read of its requests"]
    assert getattr(outcomes[0].error, "__notes__", []) == (read if place.kind.request_streaming else [])


def test_what_refuses_inside_is_asked_again(place: Place) -> None:
    """A limit or breaker further in refuses with UNAVAILABLE without sending; the next attempt passes it anew."""
    asked: list[Call] = []

    def refuse_once(call: Call) -> Flow:
        asked.append(call)
        if len(asked) == 1:
            return Outcome.failure(failing(UNAVAILABLE, local=True).error)  # type: ignore[arg-type]
        yield call
        return None

    with place.open(retrying(backoff=at_once), refuse_once) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert (len(asked), len(rpc.attempts)) == (2, 1)


@pytest.mark.parametrize("unread", [False, True])
def test_the_server_chooses_the_pause(place: Place, unread: bool) -> None:
    """`grpc-retry-pushback-ms` is the pause, to the millisecond."""
    clock = FakeClock(auto=True)
    told: list[RetryDetails] = []
    busy = failed(UNAVAILABLE, pushback=0.302, unread=unread or is_server(place))

    with place.open(retrying(on_retry=told.append), script=[busy, ok()], clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [details.pause for details in told] == [0.302]
    assert clock.pauses == [0.302]


@pytest.mark.parametrize("word", ["-1", "soon", "2147483648"])
def test_the_server_asks_for_no_more(place: Place, word: str) -> None:
    """A negative number, or none that can be read: the failure stands, and says why."""
    outcomes: list[Outcome] = []
    over = failed(UNAVAILABLE, pushback=word, unread=is_server(place))

    with place.open(each(outcomes), retrying(backoff=at_once), script=[over]) as rpc:
        rpc.call(*requests(place))

    [outcome] = outcomes
    assert len(rpc.attempts) == 1
    assert outcome.code is UNAVAILABLE and outcome.error is not None
    assert outcome.error.__notes__ == ["Retry: attempt 1 was the last: the server asked not to be tried again"]


def test_a_retry_info_chooses_the_pause(place: Place) -> None:
    """`google.rpc.RetryInfo` in the error details counts as well."""
    clock = FakeClock(auto=True)
    told: list[RetryDetails] = []
    busy = raised(errors.Unavailable("busy", retry_info(1.5)), unread=is_server(place))

    with place.open(retrying(on_retry=told.append), script=[busy, ok()], clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [details.pause for details in told] == [1.5]


def test_the_budget_is_used_up(place: Place) -> None:
    """Of four tokens two are left after the second failure: the third attempt is not made, and the note says why."""
    outcomes: list[Outcome] = []
    retry = retrying(backoff=at_once, budget=RetryBudget(4))

    with place.open(each(outcomes), retry, script=refused(place, 9)) as rpc:
        rpc.call(*requests(place))

    [outcome] = outcomes
    assert len(rpc.attempts) == 2
    assert outcome.error is not None
    assert outcome.error.__notes__ == ["Retry: attempt 2 was the last: the budget for retries is used up"]


def test_an_answer_that_is_not_good_enough(place: Place) -> None:
    """`retry_if` may want another one although the code is OK; a stream has been delivered, and stands."""
    script = [ok("pending"), ok("done")]

    def is_pending(outcome: Outcome) -> bool | None:
        return outcome.ok and outcome.response in ("pending", None)

    with place.open(retrying(backoff=at_once, safe=True, retry_if=is_pending), script=script) as rpc:
        reply = rpc.call("a")

    read = place.kind.response_streaming or (is_server(place) and place.kind.request_streaming)
    assert reply.messages == (["pending"] if read else ["done"])
    assert len(rpc.attempts) == (1 if read else 2)


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_a_handler_that_raises_may_be_called_again(place: Place) -> None:
    """On one of `errors`, and on no other."""
    conflict, bug = raised(ConnectionError("conflict"), unread=True), raised(KeyError("bug"), unread=True)
    outcomes: list[Outcome] = []
    retry = retrying(5, backoff=at_once, errors=(OSError,))

    with place.open(each(outcomes), retry, script=[conflict, conflict, ok(), conflict, bug]) as rpc:
        good = rpc.call(*requests(place))
        bad = rpc.call(*requests(place))

    assert good.ok
    assert not bad.ok and isinstance(outcomes[1].error, KeyError)
    assert [outcome.attempts for outcome in outcomes] == [3, 2]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_an_attempt_that_takes_too_long(place: Place) -> None:
    """The next one is sent after `per_attempt` seconds, though DEADLINE_EXCEEDED is not among the codes."""
    told: list[RetryDetails] = []
    retry = retrying(
        99, backoff=at_once, budget=Unlimited(), safe=True, per_attempt=0.3, codes={INTERNAL}, on_retry=told.append
    )

    # The first never begins to answer. On a busy machine another may be too late as well: it is tried again.
    with place.open(retry, script=[Act(hang=True), ok(), ...]) as rpc:
        reply = rpc.call(*requests(place), timeout=20)

    assert reply.ok
    assert told and {details.outcome.code for details in told} == {DEADLINE_EXCEEDED}
    assert len(rpc.attempts) == len(told) + 1


@pytest.mark.parametrize("place", WATCHES, ids=str)
def test_a_stream_that_broke_goes_on(place: Place) -> None:
    """Behind the last message, as often as it breaks, for what the application reads as one stream."""
    broken = [ok("0", "1", "2"), failed(UNAVAILABLE), *(failed(UNAVAILABLE, after=1) for _ in "123456")]
    script = [*reversed(broken[1:]), broken[0]]
    asked: list[str] = []

    def go_on(call: Call, last: str) -> Call:
        asked.append(last)
        return call.with_request(f"after {last}")

    with place.open(retrying(3, backoff=at_once, budget=Unlimited(), resume=go_on), script=script) as rpc:
        reply = rpc.call("a")

    echoes = ["a", "after a", "after after a", "after after after a", "after after after after a"]
    assert reply.ok, reply
    assert asked[:4] == echoes[:4]
    assert reply.messages[:5] == echoes
    assert reply.messages[-3:] == ["0", "1", "2"]
    assert [attempt.requests for attempt in rpc.attempts][-1] == [f"after {asked[-1]}"]


# --- played by hand -------------------------------------------------------------------------------------------------


def test_pauses_follow_the_backoff() -> None:
    """Each retry asks to be sent later, by the number of the retry; the first attempt at once."""
    retry = retrying(4, backoff=exponential(0.1, jitter=0))

    sent, outcome = play(retry, outgoing(), *[failing(UNAVAILABLE)] * 4)

    assert [call.delay for call in sent] == pytest.approx([0, 0.1, 0.2, 0.4])
    assert outcome.code is UNAVAILABLE


def test_one_attempt_is_never_again() -> None:
    """`attempts=1` switches it off, without a note."""
    sent, outcome = play(retrying(1), outgoing(), failing(UNAVAILABLE))

    assert len(sent) == 1
    assert not hasattr(outcome.error, "__notes__")


def test_the_deadline_is_read_from_the_clock() -> None:
    """A pause that ends before the deadline is made; one that would end at it is not."""
    clock = FakeClock()
    retry = retrying(backoff=lambda number: number * 1.0)

    sent, outcome = play(
        retry, outgoing(timeout=2, clock=clock), failing(UNAVAILABLE), failing(UNAVAILABLE, "the last")
    )

    assert [call.delay for call in sent] == [0, 1]
    assert outcome.details == "the last"


def test_only_one_number_is_sent() -> None:
    """A number that the application or an outer Retry had set is replaced by ours, on retries."""
    sent, _ = play(retrying(3), outgoing(metadata=((KEY, "7"), ("a", "b"))), *[failing(UNAVAILABLE)] * 3)

    assert [call.metadata.get_all(KEY) for call in sent] == [["7"], ["1"], ["2"]]
    assert all(call.metadata["a"] == "b" for call in sent)


def test_what_is_not_replayable_is_not_replayed() -> None:
    """The core says whether the call bears it."""
    sent, _ = play(retrying(), outgoing(), failing(UNAVAILABLE, replayable=False))

    assert len(sent) == 1


def test_a_fault_on_this_side_stays() -> None:
    """INTERNAL made locally, a bug of an interceptor or a hook, is the same next time; a refusal is not."""
    retry = retrying(2, codes={UNAVAILABLE, INTERNAL}, safe=True)

    fault, _ = play(retry, outgoing(), failing(INTERNAL, local=True))
    refusal, _ = play(retry, outgoing(), failing(UNAVAILABLE, local=True), Outcome())

    assert (len(fault), len(refusal)) == (1, 2)


@pytest.mark.parametrize("make", [incoming, outgoing])
def test_a_bug_is_not_repeated(make: Callable[[], Any]) -> None:
    """An exception that is no status: a handler's bug, or grpc's ValueError for a closed channel."""
    broken = Outcome(grpc.StatusCode.UNKNOWN, error=ValueError("bug"), replayable=True)

    sent, _ = play(retrying(codes={grpc.StatusCode.UNKNOWN}, safe=True), make(), broken)

    assert len(sent) == 1


def test_request_streams_are_kept_on_clients() -> None:
    """Without an interceptor asking for more, up to 256 KiB; a server has nothing to keep."""

    def keeps_more(call: Call) -> Flow:
        yield call.buffered(10**6)

    sent, _ = play(retrying(), outgoing(Kind.STREAM_UNARY), Outcome())
    more, _ = play(chain(keeps_more, retrying()), outgoing(Kind.STREAM_UNARY), Outcome())
    server, _ = play(retrying(), incoming(Kind.STREAM_UNARY), Outcome())

    assert [calls[0]._asks.buffer for calls in (sent, more, server)] == [256 * 1024, 10**6, None]


def test_the_hook_is_told_of_each_retry() -> None:
    """Before it is sent: which, after what, and the pause."""
    told: list[RetryDetails] = []
    last = failing(UNAVAILABLE, "second")

    play(
        retrying(backoff=lambda number: number / 10, on_retry=told.append),
        outgoing(),
        failing(UNAVAILABLE),
        last,
        Outcome(),
    )

    assert [(details.number, details.pause) for details in told] == [(1, 0.1), (2, 0.2)]
    assert told[1].outcome.error is last.error
    assert told[1].call.method.name == "Charge"


def test_a_hook_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The RPC goes on."""

    def broken(details: RetryDetails) -> None:
        raise KeyError("no such counter")

    with caplog.at_level(logging.ERROR, "interpose"):
        sent, outcome = play(retrying(on_retry=broken), outgoing(), failing(UNAVAILABLE), Outcome())

    assert outcome.ok
    assert len(sent) == 2
    assert "on_retry failed" in caplog.text


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"attempts": 0}, "attempts must be a whole number from 1"),
        ({"attempts": True}, "attempts must be a whole number from 1"),
        ({"attempts": 1001}, "to 1000, not 1001"),
        ({"codes": UNAVAILABLE}, "codes must be a set like"),
        ({"codes": {"UNAVAILABLE"}}, "codes must be a set like"),
        ({"codes": {grpc.StatusCode.OK}}, "without OK"),
        ({"codes": ()}, "codes must be a set like"),
        ({"backoff": 0.1}, "backoff must be a function like exponential"),
        ({"budget": 10}, r"budget must be None or a budget like RetryBudget\(\)"),
        ({"budget": RetryBudget}, "budget must be None or a budget like"),
        ({"safe": "yes"}, "safe must be None, True, False, BY_CONVENTION or a function"),
        ({"retry_if": True}, "retry_if must be a function of the outcome, not True"),
        ({"per_attempt": 0}, "per_attempt must be None or above 0 and below 1e\\+08 seconds, not 0"),
        ({"per_attempt": 1e8}, "per_attempt must be None or above 0"),
        ({"buffer": -1}, "buffer must be a whole number of bytes from 0 to 2147483647, not -1"),
        ({"buffer": 1.5}, "buffer must be a whole number of bytes from 0 to 2147483647, not 1.5"),
        ({"resume": 1}, "resume must be a function of"),
        ({"errors": [KeyError]}, "errors must be a tuple of exception classes"),
        ({"errors": KeyError}, "errors must be a tuple of exception classes"),
        ({"errors": (KeyboardInterrupt,)}, "errors must be a tuple of exception classes"),
        ({"on_retry": 1}, "on_retry must be a function of RetryDetails"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Each with what to write instead."""
    with pytest.raises(ValueError, match=f"^Retry: .*{complaint}"):
        Retry(**options)


def test_every_fault_is_told_at_once() -> None:
    """One error names all that is wrong."""
    wrong: dict[str, Any] = dict.fromkeys(
        ("attempts", "codes", "backoff", "budget", "safe", "retry_if", "per_attempt", "resume", "errors"), "x"
    )
    with pytest.raises(ValueError, match=f"{' .*; '.join(wrong)} .*; on_retry ") as refused:
        Retry(**wrong, buffer=-1, on_retry=1)  # type: ignore[arg-type]

    assert str(refused.value).count(";") == 10


def test_the_buffer_may_be_another() -> None:
    """In bytes, for request streams; 0 keeps nothing."""
    kept = [play(Retry(buffer=size), outgoing(Kind.STREAM_UNARY), Outcome())[0][0] for size in (0, 1_000_000)]

    assert [call._asks.buffer for call in kept] == [0, 1_000_000]


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_handler_that_sent_metadata_is_not_called_again(sort: str) -> None:
    """The response has begun, as with a client: metadata cannot be sent a second time."""
    called: list[str] = []

    def begin(request: str, context: Any) -> str:
        called.append(request)
        context.send_initial_metadata((("x-node", "7"),))
        context.abort(UNAVAILABLE, "not now")
        return request

    async def begin_later(request: str, context: Any) -> str:
        called.append(request)
        await context.send_initial_metadata((("x-node", "7"),))
        await context.abort(UNAVAILABLE, "not now")
        return request

    handlers = {"unary_unary": begin_later if sort == "async" else begin}
    with serving(sort, handlers, Retry(backoff=at_once, safe=True)) as client:
        reply = client.call("a")

    assert (reply.code, reply.details) == (UNAVAILABLE, "not now")
    assert called == ["a"]
