"""The outcome: how an attempt ended, as a value."""

from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Metadata, Outcome, Side, errors
from interpose.testing import Place

OUTCOME = Outcome.success("one book", trailing_metadata=[("x-cost", "3")])


class Ended:
    """A native call that has ended, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def initial_metadata(self) -> Any:
        self.asked += 1
        return (("x-first", "1"),)

    def trailing_metadata(self) -> Any:
        self.asked += 1
        return (("x-last", "2"),)


def test_a_success() -> None:
    """An answer made here: OK, a response, nothing sent."""
    assert OUTCOME.ok
    assert OUTCOME.code is grpc.StatusCode.OK
    assert OUTCOME.response == "one book"
    assert OUTCOME.trailing_metadata["x-cost"] == "3"
    assert OUTCOME.initial_metadata == Metadata()
    assert OUTCOME.details == ""
    assert OUTCOME.error is None
    assert OUTCOME.error_details == ()
    assert not OUTCOME.local
    assert OUTCOME.replayable
    assert OUTCOME.attempts == OUTCOME.requests == OUTCOME.responses == OUTCOME.elapsed == 0


def test_a_failure() -> None:
    """What an error describes, as an outcome: the error itself is in it."""
    error = errors.NotFound("no such book", trailing_metadata=[("x-why", "sold")], local=True)
    outcome = Outcome.failure(error)

    assert not outcome.ok
    assert outcome.code is grpc.StatusCode.NOT_FOUND
    assert outcome.details == "no such book"
    assert outcome.error is error
    assert outcome.response is None
    assert outcome.trailing_metadata["x-why"] == "sold"
    assert outcome.local


def test_who_made_a_failure() -> None:
    """A status from a peer is not local; one made here is, and so is an exception that is no status."""
    assert not Outcome.failure(errors.NotFound("from afar")).local
    assert Outcome(grpc.StatusCode.UNKNOWN, error=ValueError()).local
    assert not Outcome(grpc.StatusCode.UNKNOWN).local


def test_metadata_is_read_when_it_is_asked_for() -> None:
    """The native call is asked once, and only if somebody looks."""
    ended = Ended()
    outcome = Outcome(ended=ended)

    assert ended.asked == 0
    assert outcome.initial_metadata is outcome.initial_metadata
    assert outcome.initial_metadata["x-first"] == "1"
    assert outcome.trailing_metadata is outcome.trailing_metadata
    assert outcome.trailing_metadata["x-last"] == "2"
    assert ended.asked == 2


def test_changes_are_copies() -> None:
    """Another response or more trailing metadata stand on a copy."""
    changed = OUTCOME.with_response("two books").with_trailing_metadata(("x-more", "4"))

    assert changed.response == "two books"
    assert list(changed.trailing_metadata) == [("x-cost", "3"), ("x-more", "4")]
    assert OUTCOME.response == "one book"
    assert list(OUTCOME.trailing_metadata) == [("x-cost", "3")]
    with pytest.raises(ValueError, match="x-bad"):
        OUTCOME.with_trailing_metadata(("x-bad", "ü"))
    with pytest.raises(ValueError, match="x-bad"):
        Outcome.success(trailing_metadata=[("x-bad", "\n")])


def test_trailing_metadata_of_a_failure_adds_up() -> None:
    """A failure's own pairs stay in front."""
    outcome = Outcome.failure(errors.NotFound(trailing_metadata=[("a", "1")])).with_trailing_metadata(("b", "2"))

    assert list(outcome.trailing_metadata) == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize("name", sorted(name for name in vars(Outcome) if isinstance(vars(Outcome)[name], property)))
def test_no_attribute_can_be_set(name: str) -> None:
    """An outcome cannot be changed."""
    with pytest.raises(AttributeError):
        setattr(OUTCOME, name, None)
    with pytest.raises(AttributeError):
        delattr(OUTCOME, name)


def test_no_attribute_can_be_added() -> None:
    """Nothing can be put on it either."""
    with pytest.raises(AttributeError):
        OUTCOME.seen = True  # type: ignore[attr-defined]


def test_how_it_prints() -> None:
    """It names the code, the details, and how many messages passed; never a message."""
    assert repr(OUTCOME) == "<Outcome OK, 0 requests, 0 responses>"
    assert repr(Outcome.failure(errors.NotFound("no such book"))) == (
        "<Outcome NOT_FOUND 'no such book', 0 requests, 0 responses>"
    )


def test_a_failure_without_an_error_is_raised_as_one(place: Place) -> None:
    """A flow may answer with code and details alone: the caller gets that status; a client of ours, its typed error."""

    def answers(call: Call) -> Flow:
        return Outcome(grpc.StatusCode.NOT_FOUND, None, "no such card", trailing_metadata=Metadata([("x-why", "lost")]))
        yield call

    with place.open(answers) as rpc:
        reply = rpc.call("a")

    assert place.side is Side.SERVER or isinstance(reply.error, errors.NotFound)
    assert (reply.code, reply.details) == (grpc.StatusCode.NOT_FOUND, "no such card")
    assert reply.trailing_metadata.get_all("x-why") == ["lost"]
    assert rpc.attempts == []
