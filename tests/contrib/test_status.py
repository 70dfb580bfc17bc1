"""Rich errors: google.rpc messages that travel with a status."""

import importlib
import pickle
import sys
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Metadata, Outcome, errors
from interpose.contrib import status
from interpose.testing import Place

KEY = "grpc-status-details-bin"
RETRY = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3))
INFO = error_details_pb2.ErrorInfo(reason="SOLD", domain="shop.example", metadata={"title": "Emma"})


def test_messages_travel_with_an_error() -> None:
    """What is put into an error comes out of it, in order, with its type."""
    error = errors.Unavailable("later", RETRY, INFO)

    assert error.error_details == (RETRY, INFO)
    assert Outcome.failure(error).error_details == (RETRY, INFO)
    assert pickle.loads(pickle.dumps(error)).error_details == (RETRY, INFO)


def test_they_are_what_grpc_status_reads() -> None:
    """The package grpcio-status finds the same status in it."""
    error: Any = errors.Unavailable("later", RETRY)

    found = rpc_status.from_call(error)

    assert found.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert found.message == "later"
    assert found.details[0].Unpack(error_details_pb2.RetryInfo()) is True


def test_they_stand_beside_other_metadata() -> None:
    """Pairs that were given stay in front of the packed status."""
    trailing = errors.Unavailable("later", RETRY, trailing_metadata=[("a", "1")]).trailing_metadata()

    assert [key for key, _ in trailing] == ["a", KEY]


def test_they_reach_the_caller(place: Place) -> None:
    """Raised in a flow, in whichever place, they are in the caller's trailing metadata."""

    def refuse(call: Call) -> Flow:
        raise errors.ResourceExhausted("too many", RETRY, INFO)
        yield call

    with place.open(refuse) as rpc:
        reply = rpc.call("a")

    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert errors.parse_details(reply.trailing_metadata) == (RETRY, INFO)


def test_a_type_that_is_not_known_here_stays_packed() -> None:
    """Whoever knows it may unpack it."""
    unknown = any_pb2.Any(type_url="type.googleapis.com/shop.v1.Unheard", value=b"\x08\x01")
    error = errors.Aborted("why", unknown, RETRY)

    assert error.error_details == (unknown, RETRY)


def test_an_any_is_taken_as_it_is() -> None:
    """A message that was packed before is not packed again."""
    packed = any_pb2.Any()
    packed.Pack(RETRY)

    assert errors.Aborted("why", packed).error_details == (RETRY,)


def test_an_empty_message_is_a_message() -> None:
    """A type says something even without fields."""
    assert errors.Aborted("why", empty_pb2.Empty()).error_details == (empty_pb2.Empty(),)


@pytest.mark.parametrize(
    "packed",
    [
        b"\xff",
        b"not a status",
        "text, though the key ends in -bin",
        None,
        status_pb2.Status(details=[any_pb2.Any(type_url="t/google.rpc.RetryInfo", value=b"\xff")]).SerializeToString(),
    ],
)
def test_what_cannot_be_read_gives_nothing(packed: Any) -> None:
    """A peer that sends rubbish does not break who looks at it."""
    error = errors.Unavailable("why", trailing_metadata=Metadata.trusted([(KEY, packed)]))

    assert error.error_details == ()


@given(st.binary(max_size=64), st.text(max_size=30))
def test_no_bytes_break_it(value: bytes, url: str) -> None:
    """Any bytes, and any name of a type, give a tuple of messages."""
    sent = status_pb2.Status(details=[any_pb2.Any(type_url=url, value=value)]).SerializeToString()

    assert isinstance(status.unpack(value), tuple)
    assert isinstance(status.unpack(sent), tuple)


def test_an_empty_status_has_no_details() -> None:
    """No details are no details."""
    assert errors.Unavailable(trailing_metadata=[(KEY, b"")]).error_details == ()


@pytest.mark.parametrize("part", ["text", 5, None, {"reason": "SOLD"}, error_details_pb2.RetryInfo])
def test_what_is_no_message(part: Any) -> None:
    """Where text was meant for the details, the line that did it is told."""
    with pytest.raises(TypeError, match="rich error details are protobuf messages"):
        errors.NotFound("no book called %s", part)


@pytest.fixture
def without_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `status` were not installed."""
    monkeypatch.delitem(sys.modules, "interpose.contrib.status", raising=False)
    monkeypatch.setitem(sys.modules, "google.rpc", None)


@pytest.mark.usefixtures("without_protobuf")
def test_without_the_package() -> None:
    """ImportError with the line to install, where rich details are used; and not before."""
    plain = errors.NotFound("no such book")
    carrying = errors.NotFound(trailing_metadata=[(KEY, b"\x08\x05")])

    assert plain.error_details == ()
    for use in (lambda: errors.NotFound("why", RETRY), lambda: carrying.error_details):
        with pytest.raises(ImportError, match=r'pip install "interpose\[status\]"') as refusal:
            use()
        assert isinstance(refusal.value.__cause__, ImportError)


def test_the_package_is_imported_late() -> None:
    """Importing interpose imports neither protobuf nor the rich errors."""
    import subprocess

    program = (
        "import sys, interpose; sys.exit('google.protobuf' in sys.modules or 'interpose.contrib.status' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
    assert importlib.import_module("interpose.contrib.status")
