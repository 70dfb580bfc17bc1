"""`Fallback(message)`: each caller has an answer of its own, and of the type that the method returns."""

from typing import Any

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from grpc import StatusCode

from interpose import Kind, Outcome
from interpose.interceptors import Fallback
from interpose.testing import failed, play
from tests.protos.compiled import Generated

DOWN = failed(StatusCode.UNAVAILABLE)


def answer(fallback: Fallback, kind: Kind = Kind.UNARY_UNARY) -> Any:
    return play(fallback, [DOWN], kind=kind).outcome.response


@pytest.mark.parametrize(
    "given",
    [timestamp_pb2.Timestamp(seconds=5), Outcome.success(timestamp_pb2.Timestamp(seconds=5))],
    ids=["message", "outcome"],
)
def test_what_a_caller_changes_is_its_own(given: Any) -> None:
    """The next one is given what was given here."""
    fallback = Fallback(given)

    answer(fallback).seconds = 6

    assert answer(fallback).seconds == 5


def test_messages_of_a_stream_are_its_own() -> None:
    """The list, and each message in it."""
    fallback = Fallback([timestamp_pb2.Timestamp(seconds=5)])

    for message in answer(fallback, Kind.UNARY_STREAM):
        message.seconds = 6

    assert [message.seconds for message in answer(fallback, Kind.UNARY_STREAM)] == [5]


def test_without_copies_it_is_the_same() -> None:
    """For messages that nobody can change."""
    given = object()

    assert answer(Fallback(given, copy=None)) is given


def test_what_cannot_be_copied_is_refused() -> None:
    """When the Fallback is made, not on the bad day."""

    class Unique:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("there is only one")

    with pytest.raises(ValueError, match="copy must be a function that copies the answer, or None"):
        Fallback(Unique())


@pytest.mark.parametrize("dynamic", [False, True], ids=["message", "function"])
def test_another_type_is_refused(dynamic: bool, generated: Generated) -> None:
    """A message at the first call, before it is sent; what a function gives when it is given. Both types are named."""
    service = generated("features_pb2").DESCRIPTOR.services_by_name
    method = next(iter(next(iter(service.values())).methods))
    wrong: Any = duration_pb2.Duration(seconds=1)
    fallback = Fallback((lambda call, outcome: wrong) if dynamic else wrong)
    script = [DOWN] if dynamic else []

    outcome = play(fallback, script, method=f"/{method.containing_service.full_name}/{method.name}").outcome

    assert outcome.code is StatusCode.INTERNAL
    assert "google.protobuf.Duration" in outcome.details and method.output_type.full_name in outcome.details
