"""Fallback: what is answered, what is not, and what the caller can tell."""

from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, chain, errors
from interpose.interceptors import Retry
from interpose.interceptors.fallback import Fallback, FallbackDetails
from interpose.testing import PLACES, FakeClock, Place, failed, ok, play
from tests.interceptors.driving import requests

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
AIO = [place for place in PLACES if place.asyncio]
SYNC = [place for place in PLACES if not place.asyncio]
STREAMED = [place for place in PLACES if place.kind.response_streaming]


def stand_in(place: Place) -> Any:
    """An answer for the kind of RPC of this place."""
    return ["old", "older"] if place.kind.response_streaming else "old"


def listed(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


# --- in all places --------------------------------------------------------------------------------------------------


def test_a_failure_is_answered(place: Place) -> None:
    """The caller gets the answer that was made beforehand, and can tell what it stands for."""
    with place.open(Fallback(stand_in(place)), script=[failed(UNAVAILABLE), ...]) as rpc:
        first, second = rpc.call(*requests(place)), rpc.call(*requests(place))

    assert first.ok and second.ok
    assert first.messages == second.messages == listed(stand_in(place))
    assert ("x-fallback", "UNAVAILABLE") in first.trailing_metadata


def test_an_answer_stays_as_it_is(place: Place) -> None:
    """Where nothing fails nothing changes, and the answer is not asked for."""
    with place.open(Fallback(lambda call, outcome: 1 / 0), script=[ok("fresh")]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and reply.messages == ["fresh"]
    assert "x-fallback" not in reply.trailing_metadata


def test_another_code_stands(place: Place) -> None:
    """NOT_FOUND is an answer of the server's."""
    with place.open(Fallback(stand_in(place)), script=[failed(NOT_FOUND, "no such order")]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.details) == (NOT_FOUND, "no such order")


@pytest.mark.parametrize("place", STREAMED, ids=str)
def test_a_stream_that_has_begun_breaks_as_it_does(place: Place) -> None:
    """What was delivered is not mixed with an answer that does not belong to it."""
    broken = failed(UNAVAILABLE, responses=("a", "b", "c"), after=2)

    with place.open(Fallback(["old"]), script=[broken]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is UNAVAILABLE
    assert reply.messages == ["a", "b"]


@pytest.mark.parametrize("place", AIO, ids=str)
def test_an_answer_may_be_awaited(place: Place) -> None:
    """On asyncio a function may be a coroutine function: it asks a store."""

    async def from_store(call: Call, outcome: Outcome) -> Any:
        return stand_in(place)

    with place.open(Fallback(from_store), script=[failed(UNAVAILABLE)]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.messages == listed(stand_in(place))


@pytest.mark.parametrize("place", SYNC, ids=str)
def test_nothing_can_be_awaited_on_sync(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """There the failure stands, and the log names the interceptor."""

    async def from_store(call: Call, outcome: Outcome) -> Any:
        raise AssertionError("never begun")

    with place.open(Fallback(from_store), script=[failed(UNAVAILABLE, "the real one")]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.details) == (UNAVAILABLE, "the real one")
    assert "interceptor Fallback raised TypeError" in caplog.text


@pytest.mark.parametrize("place", [place for place in PLACES if not place.kind.response_streaming], ids=str)
def test_a_unary_response_that_was_refused_here_is_answered(place: Place) -> None:
    """A response came, but an interceptor inside failed the RPC: the caller has seen nothing of it."""

    def refuse(message: Any) -> Any:
        raise errors.Unavailable("its checksum is wrong")

    def checked(call: Call) -> Flow:
        yield call.map(responses=refuse)

    with place.open(Fallback("old"), checked) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and reply.messages == ["old"]


# --- what is answered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("kind", "answer", "seen"),
    [
        (Kind.UNARY_UNARY, "old", ["old"]),
        (Kind.STREAM_UNARY, "old", ["old"]),
        (Kind.UNARY_UNARY, ["a", "json", "list"], [["a", "json", "list"]]),
        (Kind.UNARY_STREAM, "old", ["old"]),
        (Kind.UNARY_STREAM, b"old", [b"old"]),
        (Kind.STREAM_STREAM, ("old", "older"), ["old", "older"]),
        (Kind.STREAM_STREAM, [], []),
        (Kind.UNARY_UNARY, "", [""]),
        (Kind.UNARY_STREAM, lambda call, outcome: iter(["old"]), ["old"]),
    ],
)
def test_one_message_or_several(side: Side, kind: Kind, answer: Any, seen: list[Any]) -> None:
    """A response stream takes a list; one message is a stream of one. A unary response is what it is."""
    played = play(Fallback(answer), [failed(UNAVAILABLE)], side=side, kind=kind)

    assert played.responses == seen
    assert played.outcome.ok
    assert played.outcome.trailing_metadata == (("x-fallback", "UNAVAILABLE"),)


def test_a_function_knows_who_asks_and_why_it_failed() -> None:
    """It is given the call and the outcome, so its answer can be the caller's own."""

    def own(call: Call, outcome: Outcome) -> str:
        return f"{call.metadata.get('x-user')}'s, for {outcome.details}"

    def ask(user: str) -> Any:
        return play(fallback, [failed(UNAVAILABLE, "a reason")], metadata=[("x-user", user)]).outcome.response

    fallback = Fallback(own)

    assert [ask("anna"), ask("bert"), ask("anna")] == [f"{name}'s, for a reason" for name in ("anna", "bert", "anna")]


def test_a_good_answer_is_not_kept_for_the_next_failure() -> None:
    """What one caller got is never given to another: nothing is remembered."""
    seen: list[FallbackDetails] = []
    fallback = Fallback("everybody's", on_fallback=seen.append)

    first = play(fallback, [ok("anna's")], metadata=[("authorization", "anna")])
    second = play(fallback, [failed(UNAVAILABLE)], metadata=[("authorization", "bert")])

    assert (first.outcome.response, second.outcome.response) == ("anna's", "everybody's")
    [details] = seen
    assert details.call.metadata.get("authorization") == "bert"
    assert details.outcome.code is UNAVAILABLE


def test_a_function_may_decline() -> None:
    """None lets the failure stand, with its own error."""
    played = play(Fallback(lambda call, outcome: None), [failed(UNAVAILABLE, "the real one")])

    assert (played.outcome.code, played.outcome.details) == (UNAVAILABLE, "the real one")
    assert "x-fallback" not in played.outcome.trailing_metadata


def test_a_function_may_give_an_outcome() -> None:
    """An answer with metadata of its own is marked like the others; another failure is not."""
    seen: list[FallbackDetails] = []
    whole = Outcome.success("old", trailing_metadata=[("x-age", "3")])
    other = Outcome.failure(errors.FailedPrecondition("closed today"))

    answered = play(Fallback(lambda *_: whole, on_fallback=seen.append), [failed(UNAVAILABLE)]).outcome
    refused = play(Fallback(lambda *_: other, on_fallback=seen.append), [failed(UNAVAILABLE)]).outcome

    assert answered.response == "old"
    assert answered.trailing_metadata == (("x-age", "3"), ("x-fallback", "UNAVAILABLE"))
    assert (refused.code, refused.details) == (grpc.StatusCode.FAILED_PRECONDITION, "closed today")
    assert "x-fallback" not in refused.trailing_metadata
    assert len(seen) == 1


def test_a_status_that_is_raised_takes_the_place() -> None:
    """A function may say it better."""

    def closed(call: Call, outcome: Outcome) -> Any:
        raise errors.FailedPrecondition("closed today")

    played = play(Fallback(closed), [failed(UNAVAILABLE)])

    assert played.outcome.code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_function_that_fails_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The failure stands, and the log has the exception."""
    played = play(Fallback(lambda call, outcome: {}["price"]), [failed(UNAVAILABLE, "the real one")])

    assert (played.outcome.code, played.outcome.details) == (UNAVAILABLE, "the real one")
    assert "interceptor Fallback raised KeyError" in caplog.text


def test_a_hook_that_fails_costs_nobody_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """What `on_fallback` raises is logged."""

    def broken(details: FallbackDetails) -> None:
        raise OSError("metrics are down")

    played = play(Fallback("old", on_fallback=broken), [failed(UNAVAILABLE)])

    assert played.outcome.response == "old"
    assert "on_fallback failed" in caplog.text


def test_all_attempts_come_first() -> None:
    """Outside of a Retry it answers once, when the last attempt has failed; the outcome has their number."""
    clock = FakeClock()
    stack = chain(Fallback("old"), Retry(3, safe=True, backoff=lambda retry: 1.0))

    played = play(stack, [failed(UNAVAILABLE), ...], clock=clock)

    assert played.outcome.response == "old"
    assert len(played.sent) == played.outcome.attempts == 3


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_what_is_answered_unless_told_otherwise(code: grpc.StatusCode) -> None:
    """The three codes of a bad day; with `codes` others instead."""
    day = {UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}

    by_default = play(Fallback("old"), [failed(code)]).outcome
    for_not_found = play(Fallback("old", codes=[NOT_FOUND]), [failed(code)]).outcome

    assert by_default.ok == (code in day)
    assert for_not_found.ok == (code is NOT_FOUND)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "options", "fault"),
    [
        (None, {}, "answer must be a message"),
        (iter(["old"]), {}, "would answer one RPC"),
        (str, {}, "not the class <class 'str'>"),
        ("old", {"codes": ()}, "codes must be a set"),
        ("old", {"codes": UNAVAILABLE}, "codes must be a set"),
        ("old", {"codes": ["UNAVAILABLE"]}, "codes must be a set"),
        ("old", {"codes": [grpc.StatusCode.OK]}, "without CANCELLED, OK"),
        ("old", {"codes": [grpc.StatusCode.CANCELLED]}, "without CANCELLED, OK"),
        ("old", {"codes": [UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED]}, "PERMISSION_DENIED, UNAUTHENTICATED"),
        ("old", {"codes": [UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED]}, "PERMISSION_DENIED, UNAUTHENTICATED"),
        ("old", {"on_fallback": "count"}, "on_fallback must be a function"),
    ],
)
def test_options_that_make_no_sense(answer: Any, options: dict[str, Any], fault: str) -> None:
    """A ValueError when it is made says what to write instead."""
    with pytest.raises(ValueError, match="Fallback: ") as caught:
        Fallback(answer, **options)

    assert fault in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    """One error for all options."""
    with pytest.raises(ValueError, match=r"answer must be .*; codes must be .*; on_fallback must be"):
        Fallback(None, codes=(), on_fallback=3)  # type: ignore[arg-type]  # that is the question
