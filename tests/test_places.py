"""What holds in all sixteen places."""

import grpc

from interpose import Call, Flow, Outcome, errors
from interpose.testing import Place, failed, ok

FULL = {"unary_unary": ["a"], "unary_stream": ["a"] * 3, "stream_unary": ["a,b"], "stream_stream": ["a", "b"]}


def requests(place: Place) -> tuple[str, ...]:
    return ("a", "b") if place.kind.request_streaming else ("a",)


def test_a_flow_is_given_the_outcome(place: Place) -> None:
    """A flow resumes once the RPC has ended, and is told how many messages passed."""
    outcomes: list[Outcome] = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    with place.open(watch) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and reply.messages == FULL[place.kind.value]
    [outcome] = outcomes
    assert outcome.ok and outcome.requests == len(requests(place)) and outcome.responses == len(reply.messages)
    assert outcome.attempts == 1 and len(rpc.attempts) == 1


def test_a_failure_is_an_outcome(place: Place) -> None:
    """What the service aborts with reaches the flow and the caller, code, text and trailers."""
    outcomes: list[Outcome] = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    with place.open(
        watch, script=[failed(grpc.StatusCode.NOT_FOUND, "no such thing", trailing=(("x-why", "gone"),))]
    ) as rpc:
        reply = rpc.call(*requests(place))

    [outcome] = outcomes
    assert outcome.code is reply.code is grpc.StatusCode.NOT_FOUND
    assert outcome.details == reply.details == "no such thing"
    assert outcome.trailing_metadata["x-why"] == reply.trailing_metadata["x-why"] == "gone"


def test_raising_a_status_ends_the_rpc(place: Place) -> None:
    """A flow that raises a StatusError before its yield: nothing is sent, the caller sees that status."""

    def refuse(call: Call) -> Flow:
        raise errors.PermissionDenied("not you")
        yield call

    with place.open(refuse) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is grpc.StatusCode.PERMISSION_DENIED and reply.details == "not you"
    assert not rpc.attempts


def test_yielding_again_sends_again(place: Place) -> None:
    """A flow may yield again as long as the outcome is replayable; on a server that calls the handler again."""
    outcomes: list[Outcome] = []

    def twice(call: Call) -> Flow:
        outcome = yield call.buffered()
        if outcome.replayable and not outcome.ok:
            outcomes.append(outcome)
            outcome = yield call.after(0.001)
        outcomes.append(outcome)
        return outcome

    with place.open(
        twice, script=[failed(grpc.StatusCode.UNAVAILABLE, unread=place.side.value == "server"), ok()]
    ) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and reply.messages == FULL[place.kind.value]
    assert len(rpc.attempts) == 2 and [outcome.attempts for outcome in outcomes] == [1, 2]
