"""The kit with protobuf: what interceptors see, on both sides and stacks, and what they may change."""

from typing import Any

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from grpc import StatusCode

from interpose import Call, Flow, Kind, Side, errors
from interpose.testing import FakeClock, Place, failed, ok, play
from interpose.testing.codec import decode, encode
from tests.protos.compiled import Generated


def valid(call: Call) -> Flow:
    """An interceptor for protobuf: it looks at a field, and changes one."""

    def check(message: Any) -> None:
        if message.seconds < 0:
            raise errors.InvalidArgument("before 1970")

    def later(message: Any) -> Any:
        return type(message)(seconds=message.seconds + 1)

    yield call.tap(requests=check).map(responses=later)


def test_messages_of_protobuf_in_all_places(place: Place) -> None:
    """They are echoed as they are; the service saw them too."""
    sent = [timestamp_pb2.Timestamp(seconds=5)] * (2 if place.kind.request_streaming else 1)

    with place.open(valid) as rpc:
        reply = rpc.call(*sent)
        refused = rpc.call(timestamp_pb2.Timestamp(seconds=-5))

    assert reply.ok and {(type(message).__name__, message.seconds) for message in reply.messages} == {("Timestamp", 6)}
    assert rpc.attempts[0].requests == sent
    assert refused.code is StatusCode.INVALID_ARGUMENT


def test_a_script_may_answer_with_another_type(place: Place) -> None:
    """As methods do."""
    with place.open(script=[ok(duration_pb2.Duration(seconds=3))]) as rpc:
        reply = rpc.call(timestamp_pb2.Timestamp(seconds=5))

    assert reply.messages == [duration_pb2.Duration(seconds=3)]


@pytest.mark.parametrize("message", ["text", "größer", "", timestamp_pb2.Timestamp(), timestamp_pb2.Timestamp(nanos=1)])
def test_what_is_encoded_is_decoded(message: Any) -> None:
    """Text and messages."""
    assert decode(encode(message)) == message


# - play -


def test_a_kind_that_the_method_does_not_have(generated: Generated) -> None:
    """ValueError with the right one: of a method whose proto is loaded, and of the echo service."""
    service = next(iter(generated("features_pb2").DESCRIPTOR.services_by_name.values()))
    method = service.methods[0]
    kind = Kind.of(method.client_streaming, method.server_streaming)
    wrong = next(other for other in Kind if other is not kind)

    with pytest.raises(ValueError, match=f"is of another kind: write kind=Kind.{kind.name}, not {wrong.name}"):
        play(valid, method=f"/{service.full_name}/{method.name}", kind=wrong)
    with pytest.raises(ValueError, match=r"write kind=Kind\.UNARY_STREAM, not UNARY_UNARY"):
        play(valid, method="/interpose.testing.Echo/unary_stream", side=Side.SERVER)


@pytest.mark.parametrize("start", [0.0, 1000.0, 1e6])
def test_elapsed_is_exact(start: float) -> None:
    """Three pauses of 0.1 seconds are 0.3, whatever the clock shows."""

    def patient(call: Call) -> Flow:
        yield call.after(0.1)
        yield call.after(0.1)
        yield call.after(0.1)

    played = play(patient, [failed(StatusCode.UNAVAILABLE), ...], clock=FakeClock(start))

    assert played.elapsed == 0.3
    assert [sent.at for sent in played.sent] == [0.1, 0.2, 0.3]
