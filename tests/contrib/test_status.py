"""Rich errors: google.rpc messages that travel with a status."""

import importlib
import pickle
import sys
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2, empty_pb2, struct_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Metadata, Outcome, Side, chain, errors
from interpose._shell.closing import trailers
from interpose.contrib import status
from interpose.interceptors import ExceptionToStatus
from interpose.testing import Place, failed, play, raised
from tests.protos.compiled import Generated

KEY = "grpc-status-details-bin"
RETRY = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3))
INFO = error_details_pb2.ErrorInfo(reason="SOLD", domain="shop.example", metadata={"title": "Emma"})


def look_on(call: Call) -> Flow:
    yield call


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
    ],
)
def test_what_cannot_be_read_gives_nothing(packed: Any) -> None:
    """A peer that sends rubbish does not break who looks at it."""
    error = errors.Unavailable("why", trailing_metadata=Metadata.trusted([(KEY, packed)]))

    assert error.error_details == ()


def nested(depth: int) -> struct_pb2.Struct:
    """A message in a message in a message."""
    outermost = innermost = struct_pb2.Struct()
    for _ in range(depth):
        innermost = innermost.fields["a"].struct_value
    return outermost


@pytest.mark.parametrize(
    "broken",
    [any_pb2.Any(type_url="t/google.rpc.RetryInfo", value=b"\xff"), nested(200)],
    ids=["rubbish", "deeper than protobuf reads"],
)
def test_a_message_that_cannot_be_read_stays_packed(broken: Any) -> None:
    """It does not take the others along."""
    unread, *others = errors.Aborted("why", broken, RETRY, INFO).error_details

    assert type(unread) is any_pb2.Any
    assert others == [RETRY, INFO]


@pytest.mark.parametrize("details", ["", "a\0b 😀\r\n", "\ud800", 17, None, b"\xff", "x" * 20_000])
def test_any_text_may_stand_beside_them(details: Any) -> None:
    """What makes no text for a message does not hide the error that is raised."""
    error = errors.Unavailable(details, RETRY)

    assert error.error_details == (RETRY,)
    assert error.details() == str(details)


def test_the_code_is_that_of_the_trailer() -> None:
    """grpc-status is what counts; a packed status that claims another code changes nothing, and still has details."""
    packed = dict(errors.Internal("other", RETRY).trailing_metadata())[KEY]
    error = errors.NotFound("gone", trailing_metadata=[(KEY, packed)])

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "gone"
    assert error.error_details == (RETRY,)


def test_a_message_of_ones_own(generated: Generated) -> None:
    """Any message whose module was imported is opened, also one that stands within another."""
    text = generated("features_pb2").Text(text="hello")
    violation = error_details_pb2.BadRequest.FieldViolation(field="title")

    assert errors.InvalidArgument("why", text, violation).error_details == (text, violation)


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


# --- on the way to the caller -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "details",
    ["why", "a\0b 😀\r\n", "größer " * 3000, "\ud800", "100 % " * 2000],
    ids=["short", "odd", "long", "surrogate", "percent"],
)
def test_both_texts_are_the_same(place: Place, details: str) -> None:
    """However the details are cut, grpcio-status finds them beside the status and in it, and takes the status."""

    def refuse(call: Call) -> Flow:
        raise errors.Unavailable(details, RETRY)
        yield call

    with place.open(refuse) as rpc:
        reply = rpc.call("a")

    packed = status_pb2.Status.FromString(reply.trailing_metadata[KEY])
    assert reply.code is grpc.StatusCode.UNAVAILABLE
    assert packed.message == reply.details.replace("\ud800", "?")
    assert status.unpack(packed.SerializeToString()) == (RETRY,)


def test_what_is_too_large_is_left_out(place: Place) -> None:
    """A server sends those that fit beside the others, in order, and its code stands; nothing cuts what is not sent."""
    large = error_details_pb2.DebugInfo(detail="x" * 20_000)

    def refuse(call: Call) -> Flow:
        raise errors.Internal("broken", RETRY, large, INFO, trailing_metadata=[("x-cost", "7")])
        yield call

    with place.open(refuse) as rpc:
        reply = rpc.call("a")

    assert (reply.code, reply.details) == (grpc.StatusCode.INTERNAL, "broken")
    assert reply.trailing_metadata["x-cost"] == "7"
    assert errors.parse_details(reply.trailing_metadata) == (
        (RETRY, INFO) if place.side is Side.SERVER else (RETRY, large, INFO)
    )


@pytest.mark.parametrize("side", Side)
def test_a_flow_reads_them(side: Side) -> None:
    """From the outcome, on either side."""
    seen = []

    def look(call: Call) -> Flow:
        outcome = yield call
        seen.append(outcome.error_details)

    play(look, [raised(errors.ResourceExhausted("later", RETRY))], side=side)

    assert seen == [(RETRY,)]


@given(st.lists(st.binary(max_size=3000), max_size=8), st.integers(0, 8000), st.text(max_size=20))
def test_those_that_fit(values: list[bytes], room: int, details: str) -> None:
    """A fitted status keeps code, text and the order of its messages, takes no more than its room, and is never empty."""
    parts = [any_pb2.Any(type_url="t/unheard.Of", value=value) for value in values]
    packed = status.pack(grpc.StatusCode.ABORTED, details, parts)

    fitted = status.fitted(packed, details, room)

    if fitted is None:
        assert all(part.ByteSize() > room - len(details.encode()) - 20 for part in parts)
    else:
        left = iter(parts)
        assert len(fitted) <= room
        assert status.unpack(fitted) or not parts
        assert all(part in left for part in status.unpack(fitted))
        assert status_pb2.Status.FromString(fitted).message == details
        assert len(packed) > room or fitted == packed


@pytest.mark.parametrize("packed", [b"\xff", b"", b"\x08\x05"], ids=["rubbish", "empty", "no details"])
def test_what_has_no_messages_stays_as_it_is(packed: bytes) -> None:
    """If there is room for it."""
    assert status.fitted(packed, "why", 10) == packed
    assert status.fitted(packed + b"\xff" * 11, "why", 10) is None


@pytest.mark.parametrize("packed", [None, "text"])
def test_what_is_no_bytes_is_not_sent(packed: Any) -> None:
    """The wire would refuse it: it is an error where it is made."""
    assert status.fitted(packed, "why", 6000) is None


def test_the_log_tells_of_messages_that_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """How many of how many; a status that fits is not spoken of."""
    packed = status.pack(grpc.StatusCode.ABORTED, "why", [RETRY, error_details_pb2.DebugInfo(detail="x" * 900)])

    status.fitted(packed, "why", 2000)
    status.fitted(packed, "why", 500)

    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 error details are left out: they are too large"
    ]


# --- without the extra ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["google.rpc", "google.protobuf"])
def without_protobuf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `status` were not installed."""
    monkeypatch.delitem(sys.modules, "interpose.contrib.status", raising=False)
    monkeypatch.setitem(sys.modules, request.param, None)


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


@pytest.mark.usefixtures("without_protobuf")
def test_a_caller_without_the_package(place: Place) -> None:
    """A call whose failure carries details fails as it would without them; only who asks for them is told."""
    with place.open(
        look_on, script=[failed(grpc.StatusCode.NOT_FOUND, "gone", trailing=[(KEY, b"\x08\x05")])] * 2
    ) as rpc:
        reply = rpc.call("a")

    assert (reply.code, reply.details) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert reply.trailing_metadata[KEY] == b"\x08\x05"
    with pytest.raises(ImportError, match=r'pip install "interpose\[status\]"'):
        errors.parse_details(reply.trailing_metadata)


@pytest.mark.usefixtures("without_protobuf")
@pytest.mark.parametrize("size", [10, 20_000])
def test_a_server_without_the_package(size: int) -> None:
    """What was packed by hand is sent if it fits, and left out if it does not."""
    error = errors.NotFound("gone", trailing_metadata=[(KEY, b"x" * size), (KEY, b"y" * size), ("a", "1")])

    left = trailers(Outcome.failure(error))

    assert left.get_all(KEY) == ([b"y" * size] if size == 10 else [])
    assert left["a"] == "1"


@pytest.mark.usefixtures("without_protobuf")
def test_a_handler_that_wants_details_without_the_package(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what to install, and the peer is told an id."""

    def refuse(call: Call) -> Flow:
        try:
            raise errors.NotFound("why", RETRY)
        except ImportError as missing:
            return Outcome(grpc.StatusCode.UNKNOWN, None, error=missing)
        yield call

    played = play(chain(ExceptionToStatus(), refuse), [], side=Side.SERVER)

    assert played.outcome.code is grpc.StatusCode.INTERNAL
    assert "interpose[status]" not in played.outcome.details
    assert 'pip install "interpose[status]"' in caplog.text


def test_the_package_is_imported_late() -> None:
    """Importing interpose imports neither protobuf nor the rich errors."""
    import subprocess

    program = (
        "import sys, interpose; sys.exit('google.protobuf' in sys.modules or 'interpose.contrib.status' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
    assert importlib.import_module("interpose.contrib.status")
