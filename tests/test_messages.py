"""Taps and maps, composed, and what becomes of their faults."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Metadata, Method, Side, errors
from interpose._messages import compose, request_of, show_initial_metadata
from interpose._shell.codec import encoded, encoder
from interpose.testing import Place, ok

CALL = Call(Method("/a/b", Kind.UNARY_UNARY), request="m")


def shout(message: Any) -> Any:
    return message.upper()


def breaks(message: Any) -> Any:
    raise ValueError("a secret")


def refuses(message: Any) -> Any:
    raise errors.InvalidArgument("too long")


def hooks(call: Call) -> tuple[Any, ...]:
    return call._asks.requests


def test_no_hooks_are_none() -> None:
    """Where nobody is interested nothing is called."""
    assert compose(()) is None
    assert request_of(CALL) == "m"


@pytest.mark.parametrize("taps", [1, 2, 3])
def test_taps_see_and_change_nothing(taps: int) -> None:
    """What a tap returns does not matter."""
    seen: list[Any] = []
    call = CALL
    for _ in range(taps):
        call = call.tap(requests=lambda message: seen.append(message) or "ignored")
    passed = compose(hooks(call))

    assert passed is not None
    assert passed("m") == "m"
    assert seen == ["m"] * taps


def test_maps_change() -> None:
    """What a map returns goes on."""
    assert request_of(CALL.map(requests=shout)) == "M"
    assert request_of(CALL.map(requests=shout).map(requests=lambda message: message * 2)) == "MM"


@pytest.mark.parametrize(
    "call",
    [
        CALL.tap(requests=breaks),
        CALL.map(requests=breaks),
        CALL.tap(requests=shout).tap(requests=breaks),
        CALL.map(requests=shout).tap(requests=breaks),
        CALL.tap(requests=shout).map(requests=breaks),
    ],
)
def test_a_hook_that_breaks(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL, made here, which names the hook; what it raised is the cause, and its text is in the log alone."""
    with caplog.at_level(logging.ERROR), pytest.raises(errors.Internal) as failure:
        request_of(call)

    assert failure.value.details() == "breaks raised ValueError"
    assert failure.value.local
    assert isinstance(failure.value.__cause__, ValueError)
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    "call",
    [CALL.tap(requests=refuses), CALL.map(requests=refuses), CALL.tap(requests=shout).tap(requests=refuses)],
)
def test_a_hook_that_refuses(call: Call) -> None:
    """A StatusError of a hook is that status, and its own cause it is not."""
    with pytest.raises(errors.InvalidArgument, match="too long") as failure:
        request_of(call)

    assert failure.value.__cause__ is None


def test_a_hook_without_a_name() -> None:
    """An object that is called goes by its class."""

    class Breaks:
        def __call__(self, message: Any) -> Any:
            raise SystemExit

    with pytest.raises(errors.Internal, match="Breaks raised SystemExit"):
        request_of(CALL.map(requests=Breaks()))


def test_taps_of_initial_metadata_are_given_ours() -> None:
    """They see our Metadata; one that breaks is a fault like any other."""
    seen: list[Metadata] = []

    show_initial_metadata(CALL.tap(initial_metadata=seen.append), (("a", "1"),))

    assert seen == [Metadata([("a", "1")])]
    with pytest.raises(errors.Internal, match="breaks raised ValueError"):
        show_initial_metadata(CALL.tap(initial_metadata=breaks), ())


def test_what_is_kept_is_serialized_once() -> None:
    """A kept message is sent as the bytes that it was made into."""
    encode = encoder(str.encode)
    kept = encoded("m", encode)

    assert kept.message == "m"
    assert kept.data == encode("m") == encode(kept) == b"m"
    assert encoder(None)(b"raw") == b"raw"
    assert encoder(None)(encoded("m", lambda _: b"kept")) == b"kept"


def test_what_cannot_be_serialized() -> None:
    """It becomes a status."""
    with pytest.raises(errors.Internal):
        encoded(5, encoder(str.encode))


Ask = Callable[[Call, Callable[[Any], Any]], Call]
ASKS: dict[str, Ask] = {
    "tap requests": lambda call, hook: call.tap(requests=hook),
    "map requests": lambda call, hook: call.map(requests=hook),
    "tap responses": lambda call, hook: call.tap(responses=hook),
    "map responses": lambda call, hook: call.map(responses=hook),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_hook_that_refuses_ends_the_rpc(place: Place, ask: Ask) -> None:
    """In every place, on each direction: its status reaches the flow and the caller."""
    codes: list[grpc.StatusCode] = []

    def interceptor(call: Call) -> Flow:
        outcome = yield ask(call, refuses)
        codes.append(outcome.code)

    with place.open(interceptor) as rpc:
        reply = rpc.call("a", timeout=10)

    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
    assert reply.details == "too long"
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT]


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_hook_that_breaks_ends_the_rpc(place: Place, ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """In every place, on each direction: INTERNAL that names the hook."""

    def interceptor(call: Call) -> Flow:
        yield ask(call, breaks)

    with place.open(interceptor) as rpc:
        reply = rpc.call("a", timeout=10)

    assert reply.code is grpc.StatusCode.INTERNAL
    assert reply.details == "interceptor test_a_hook_that_breaks_ends_the_rpc.interceptor: breaks raised ValueError"


def test_messages_are_seen_and_changed(place: Place) -> None:
    """In every place, each message of each direction passes the hooks once."""
    seen: list[tuple[str, str]] = []

    def interceptor(call: Call) -> Flow:
        yield call.tap(
            requests=lambda message: seen.append(("request", message)),
            responses=lambda message: seen.append(("response", message)),
        ).map(requests=str.upper, responses=lambda message: message + "!")

    sent = ["a", "b"] if place.kind.request_streaming else ["a"]
    with place.open(interceptor) as rpc:
        reply = rpc.call(*sent)

    assert rpc.attempts[0].requests == [message.upper() for message in sent]
    assert [message for way, message in seen if way == "request"] == sent
    assert all(message.endswith("!") for message in reply.messages)
    # The tap stood above the map, so on the way back it comes last, and sees what the map made.
    assert [message for way, message in seen if way == "response"] == reply.messages


@pytest.mark.parametrize("asyncio", [False, True])
@pytest.mark.parametrize("side", Side)
def test_the_end_of_a_stream_is_no_message(asyncio: bool, side: Side) -> None:
    """A tap sees each response and not what says that there are no more, and as many are counted."""
    seen: list[Any] = []
    counted: list[int] = []

    def looks(call: Call) -> Flow:
        outcome = yield call.tap(responses=seen.append)
        counted.append(outcome.responses)

    with Place(asyncio, side, Kind.UNARY_STREAM).open(looks, script=[ok("a", "b")]) as rpc:
        assert rpc.call("x").messages == ["a", "b"]
    assert seen == ["a", "b"]
    assert counted == [2]
