"""Retry: attempts that take too long, outcomes that are judged, and streams that go on."""

import logging
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, chain, errors, testing
from interpose.interceptors import Retry, RetryDetails
from interpose.mechanisms.budget import RetryBudget, Unlimited
from interpose.testing import FakeClock, failed, ok
from interpose.testing.acts import Act
from tests.interceptors.driving import at_once, failing, incoming, notes, outgoing, play, retrying

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
KEY = "x-retry-attempt"


# --- what is worth it -----------------------------------------------------------------------------------------------


def test_the_outcome_may_be_judged() -> None:
    """True and False decide whatever the code; None leaves it to the codes."""
    verdicts = {"again": True, "enough": False, "well": None}
    retry = retrying(2, safe=True, retry_if=lambda outcome: verdicts.get(outcome.details))

    def attempts(code: grpc.StatusCode, details: str) -> int:
        return len(testing.play(retry, [failed(code, details), ok("enough"), ...]).sent)

    found = {(code, details): attempts(code, details) for code in (UNAVAILABLE, INTERNAL) for details in verdicts}

    assert found == {
        (UNAVAILABLE, "again"): 2,
        (UNAVAILABLE, "enough"): 1,
        (UNAVAILABLE, "well"): 2,
        (INTERNAL, "again"): 2,
        (INTERNAL, "enough"): 1,
        (INTERNAL, "well"): 1,
    }


def test_a_judge_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The codes decide, and an answer is not lost."""
    retry = retrying(retry_if=lambda outcome: outcome.response["state"] == "pending", backoff=at_once)

    with caplog.at_level(logging.ERROR, "interpose"):
        played = testing.play(retry, [failed(UNAVAILABLE), ok("answer")])

    assert played.outcome.response == "answer"
    assert "retry_if failed; the status code decides" in caplog.text


def test_what_was_cancelled_here_is_never_sent_again() -> None:
    """Nobody waits for it, whatever the options say."""
    retry = retrying(codes={grpc.StatusCode.CANCELLED}, safe=True, retry_if=lambda outcome: True)
    here, there = (failing(grpc.StatusCode.CANCELLED, local=local) for local in (True, False))

    assert len(play(retry, outgoing(), here)[0]) == 1
    assert len(play(retry, outgoing(), there, Outcome())[0]) == 2


def test_errors_are_for_servers() -> None:
    """What a client's own machinery raises is no handler's."""
    broken = Outcome(grpc.StatusCode.UNKNOWN, error=OSError("bug"), replayable=True)
    retry = retrying(2, errors=(OSError,), safe=True)

    assert len(play(retry, outgoing(), broken)[0]) == 1
    assert len(play(retry, incoming(), broken, Outcome())[0]) == 2


# --- an attempt's own time ------------------------------------------------------------------------------------------

HANG = Act(hang=True)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_each_attempt_has_its_time(kind: Kind) -> None:
    """Three times two seconds, and the pauses in between; then the failure stands."""
    clock = FakeClock()
    retry = retrying(3, per_attempt=2, safe=True, backoff=lambda _: 1.0)

    played = testing.play(retry, [HANG, ...], kind=kind, clock=clock)

    assert (played.outcome.code, len(played.sent), played.elapsed) == (DEADLINE_EXCEEDED, 3, 8)
    assert notes(played.outcome) == ["Retry: attempt 3 was the last: all 3 were made"]


def test_the_deadline_of_the_rpc_is_not_an_attempts_time() -> None:
    """When that has passed nothing is sent, no token is taken, and there is nothing to note."""
    clock, budget = FakeClock(), RetryBudget()
    retry = retrying(per_attempt=2, safe=True, budget=budget)

    played = testing.play(retry, [HANG], timeout=1, clock=clock)

    assert (played.outcome.code, played.elapsed) == (DEADLINE_EXCEEDED, 1)
    assert budget.tokens == 10
    assert notes(played.outcome) == []


def test_a_stream_that_has_begun_has_all_the_time() -> None:
    """`per_attempt` is for its beginning."""
    slow = ok("a", initial=(("x-node", "7"),), delay=60)

    played = testing.play(retrying(per_attempt=2, safe=True), [slow], kind=Kind.UNARY_STREAM)

    assert played.outcome.ok and played.elapsed == 60


def test_without_it_a_deadline_is_a_failure_like_others() -> None:
    """DEADLINE_EXCEEDED that a server tells is retried if it is among the codes."""
    script: list[Any] = [failed(DEADLINE_EXCEEDED), ok(), ...]

    assert len(testing.play(retrying(safe=True), script).sent) == 1
    assert len(testing.play(retrying(safe=True, codes={DEADLINE_EXCEEDED}), script).sent) == 2


def test_on_a_server_it_changes_nothing() -> None:
    """A handler is limited by `Deadline`."""
    played = testing.play(retrying(per_attempt=2), [ok(delay=60)], side=Side.SERVER)

    assert played.outcome.ok and played.elapsed == 60


# --- resuming -------------------------------------------------------------------------------------------------------

BROKEN = failed(UNAVAILABLE, after=1)


def onwards(call: Call, last: str) -> Call:
    return call.with_request(f"after {last}").with_metadata(("x-from", last))


def watch(retry: Retry, *script: Any, **given: Any) -> testing.Played:
    options: dict[str, Any] = {"kind": Kind.UNARY_STREAM, "requests": ["a"]} | given
    return testing.play(retry, script, **options)


def test_a_stream_is_resumed_behind_its_last_message() -> None:
    """From the first call each time, so that nothing piles up; numbers and pauses begin anew with each message."""
    told: list[RetryDetails] = []
    retry = retrying(3, resume=onwards, backoff=lambda number: 1.0 * number, on_retry=told.append)

    played = watch(retry, failed(UNAVAILABLE), BROKEN, failed(UNAVAILABLE), BROKEN, ok("b", "c"))

    assert [sent.call.request for sent in played.sent] == ["a", "a", "after a", "after a", "after after a"]
    assert [sent.metadata.get_all("x-from") for sent in played.sent] == [[], [], ["a"], ["a"], ["after a"]]
    assert [sent.metadata.get_all(KEY) for sent in played.sent] == [[], ["1"], ["1"], ["2"], ["1"]]
    assert [(details.number, details.pause) for details in told] == [(1, 1), (1, 1), (2, 2), (1, 1)]
    assert [message for sent in played.sent for message in sent.responses] == ["a", "after a", "b", "c"]
    assert played.outcome.ok


def test_a_stream_that_makes_no_progress_is_given_up() -> None:
    """After as many attempts as any call has; that is all that there is to note."""
    played = watch(retrying(3, resume=onwards), BROKEN, failed(UNAVAILABLE), failed(UNAVAILABLE, "the last"))

    assert len(played.sent) == 3
    assert played.outcome.details == "the last"
    assert notes(played.outcome) == ["Retry: attempt 3 was the last: 2 attempts brought no message"]


def test_it_goes_on_for_much_longer_than_any_call_is_retried() -> None:
    """As long as messages come, it is no retry that counts."""
    played = watch(retrying(2, resume=onwards, budget=Unlimited(), backoff=at_once), *[BROKEN] * 1500, ok("end"))

    assert played.outcome.ok and len(played.sent) == 1501


def test_each_break_costs_a_token() -> None:
    """The budget holds for streams that are resumed as for calls."""
    played = watch(retrying(resume=onwards, backoff=at_once), *[BROKEN] * 5)

    assert notes(played.outcome) == ["Retry: attempt 5 was the last: the budget for retries is used up"]


@pytest.mark.parametrize("options", [{"resume": lambda call, last: None}, {"resume": onwards, "safe": False}, {}])
def test_a_stream_that_is_not_resumed(options: dict[str, Any]) -> None:
    """If the function says None, or the call is not safe, or there is no function, the failure stands."""
    played = watch(retrying(**options), BROKEN)

    assert played.outcome.code is UNAVAILABLE
    assert notes(played.outcome) == ["Retry: attempt 1 was the last: a response had been delivered"]


@pytest.mark.parametrize("answer", [lambda last: last["id"], lambda last: "after"])
def test_a_function_that_fails_is_logged(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """So is one that gives no call: the failure stands, and says so."""
    with caplog.at_level(logging.ERROR, "interpose"):
        played = watch(retrying(resume=lambda call, last: answer(last)), BROKEN)

    (note,) = notes(played.outcome)
    assert played.outcome.code is UNAVAILABLE
    assert note.startswith("Retry: attempt 1 was the last: resume raised ")
    assert "resume failed" in caplog.text


def test_other_codes_do_not_resume() -> None:
    """What is not worth a retry is not worth going on."""
    assert len(watch(retrying(resume=onwards), failed(INTERNAL, after=1)).sent) == 1


@pytest.mark.parametrize("given", [{"kind": Kind.STREAM_STREAM, "requests": ["a", "b"]}, {"side": Side.SERVER}])
def test_what_cannot_be_resumed(given: dict[str, Any]) -> None:
    """A call with a request stream, or one on a server."""
    assert len(watch(retrying(resume=onwards), BROKEN, **given).sent) == 1


def test_a_stream_that_ended_may_be_resumed() -> None:
    """A watch that the server closes with OK goes on if `retry_if` wants it to."""
    retry = retrying(retry_if=lambda outcome: outcome.ok and outcome.responses == 1, resume=onwards, backoff=at_once)

    played = watch(retry, ok("b"), ok("c", "d"))

    assert [sent.call.request for sent in played.sent] == ["a", "after b"]


def test_a_message_that_was_refused_further_out_is_not_skipped() -> None:
    """It has been heard here but never reached the caller, so what comes after it would leave a gap."""

    def refuse(message: str) -> None:
        raise errors.Unavailable("no", local=True)

    def refusing(call: Call) -> Flow:
        yield call.tap(responses=refuse)

    played = testing.play(chain(refusing, retrying(resume=onwards)), [ok("b", "c")], kind=Kind.UNARY_STREAM)

    assert len(played.sent) == 1
    assert played.outcome.details == "no"
