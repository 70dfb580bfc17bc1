"""The call: each wish gives a new one, and none changes."""

import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from interpose import Call, Kind, Metadata, Method, Side
from interpose._call import DEFAULT_BUFFER, NOTHING
from interpose._clock import FOREVER
from interpose._messages import compose, request_of

METHOD = Method("/shop.v1.Orders/Place", Kind.UNARY_UNARY)
CALL = Call(METHOD, request="one book")
SERVED = Call(METHOD, Side.SERVER, "one book")
STREAMED = Call(Method("/shop.v1.Orders/Watch", Kind.STREAM_STREAM))


class Context:
    """What a server's call asks of its context."""

    def received_metadata(self) -> Any:
        return (("x-tenant", "A"),)

    def arrived_with(self) -> float | None:
        return 2.5

    def deadline(self) -> float | None:
        return 102.5

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"


ARRIVED = Call(METHOD, Side.SERVER, "one book", None, None, context=Context())

WISHES: list[Callable[[Call], Call]] = [
    lambda call: call.with_metadata(("a", "1")),
    lambda call: call.without_metadata("a"),
    lambda call: call.with_timeout(3),
    lambda call: call.with_request("two books"),
    lambda call: call.after(0.5),
    lambda call: call.hedged(copies=2, delay=0.1),
    lambda call: call.tap(requests=print),
    lambda call: call.map(responses=str),
    lambda call: call.buffered(),
    lambda call: call.with_compression(grpc.Compression.Gzip),
    lambda call: call.with_wait_for_ready(True),
    lambda call: call.with_credentials(grpc.access_token_call_credentials("t")),
]


def test_what_a_call_is() -> None:
    """A call tells all that one attempt should be."""
    credentials = object()
    call = Call(METHOD, Side.CLIENT, "m", 3.0, (("a", "1"),), credentials, True, grpc.Compression.Gzip, 7.0)

    assert call.method is METHOD
    assert call.kind is Kind.UNARY_UNARY
    assert call.side is Side.CLIENT
    assert call.request == "m"
    assert call.timeout == 3
    assert call.deadline == 7
    assert call.metadata == Metadata([("a", "1")])
    assert call.credentials is credentials
    assert call.wait_for_ready is True
    assert call.compression is grpc.Compression.Gzip
    assert call.peer is None
    assert call.delay == 0


OPTIONS: list[tuple[str, Any, Any]] = [
    ("compression", grpc.Compression.Gzip, "gzip"),
    ("wait_for_ready", True, 1),
    ("credentials", grpc.access_token_call_credentials("t"), "a token"),
]


@pytest.mark.parametrize(("option", "value", "wrong"), OPTIONS, ids=[name for name, _, _ in OPTIONS])
def test_how_it_is_sent(option: str, value: Any, wrong: Any) -> None:
    """Each can be set and taken away; anything else is refused without showing a secret; a server sends no requests."""
    ask = getattr(Call, f"with_{option}")

    assert getattr(ask(CALL, value), option) is value
    assert getattr(ask(ask(CALL, value), None), option) is None
    with pytest.raises(TypeError, match=f"with_{option}: give ") as refused:
        ask(CALL, wrong)
    assert "a token" not in str(refused.value)
    with pytest.raises(ValueError, match=f"with_{option}: "):
        ask(ARRIVED, value)


def test_a_bare_call() -> None:
    """What nobody asked for is None or empty."""
    assert CALL.timeout is CALL.deadline is CALL.credentials is CALL.wait_for_ready is CALL.compression is None
    assert CALL.metadata == Metadata()
    assert CALL._asks is NOTHING
    assert STREAMED.request is None


def test_a_server_asks_its_context() -> None:
    """On a server the call tells what came with it: metadata, time left, deadline and peer."""
    assert ARRIVED.metadata["x-tenant"] == "A"
    assert ARRIVED.metadata is ARRIVED.metadata
    assert ARRIVED.timeout == 2.5
    assert ARRIVED.deadline == 102.5
    assert ARRIVED.peer == "ipv4:127.0.0.1:5000"
    assert ARRIVED.with_timeout(1).timeout == 1


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_gives_a_new_call(wish: Callable[[Call], Call]) -> None:
    """What is asked for stands on a copy; the call itself stays as it is, and so does all else on the copy."""
    before = [getattr(CALL, slot) for slot in Call.__slots__]
    asked = wish(CALL)

    assert type(asked) is Call
    assert asked is not CALL
    assert [getattr(CALL, slot) for slot in Call.__slots__] == before
    changed = [slot for slot in Call.__slots__ if getattr(asked, slot) is not getattr(CALL, slot)]
    assert len(changed) <= 1


@pytest.mark.parametrize("name", sorted(name for name in vars(Call) if isinstance(vars(Call)[name], property)))
def test_no_attribute_can_be_set(name: str) -> None:
    """A call cannot be changed."""
    with pytest.raises(AttributeError):
        setattr(CALL, name, None)
    with pytest.raises(AttributeError):
        delattr(CALL, name)


def test_no_attribute_can_be_added() -> None:
    """What a flow wants to remember it keeps in a variable."""
    with pytest.raises(AttributeError):
        CALL.started = 1.0  # type: ignore[attr-defined]


def test_metadata_wishes_add_up() -> None:
    """Pairs are added behind those that are there, and taken away by key."""
    call = CALL.with_metadata(("a", "1"), ("B", "2")).with_metadata(("a", "3"))

    assert list(call.metadata) == [("a", "1"), ("b", "2"), ("a", "3")]
    assert list(call.without_metadata("A").metadata) == [("b", "2")]
    assert list(call.without_metadata("a", "b").metadata) == []
    with pytest.raises(ValueError, match="x-sum"):
        CALL.with_metadata(("x-sum", "ü"))


@pytest.mark.parametrize("seconds", [0, 1, 0.5, -1, math.inf, None])
def test_a_timeout(seconds: float | None) -> None:
    """Any number of seconds will do, and None takes it away again."""
    assert CALL.with_timeout(9).with_timeout(seconds).timeout == seconds


def test_what_is_no_timeout() -> None:
    """A timeout that would mean nothing is refused where it is set."""
    with pytest.raises(ValueError, match="with_timeout: seconds must be a number or None, not nan"):
        CALL.with_timeout(math.nan)
    for wrong in ("3", True, b"", [3]):
        with pytest.raises(TypeError, match="seconds must be a number of seconds"):
            CALL.with_timeout(wrong)  # type: ignore[arg-type]


def test_another_request() -> None:
    """A unary request may be another message; a stream has none."""
    assert CALL.with_request("two").request == "two"
    assert SERVED.with_request(None).request is None
    with pytest.raises(ValueError, match=r"Watch has a request stream: use map"):
        STREAMED.with_request("one")


def test_later() -> None:
    """`after` sends it later; the last wish holds."""
    assert CALL.after(2).delay == 2
    assert CALL.after(2).after(0).delay == 0
    for wrong in (-1, math.nan, math.inf, FOREVER):
        with pytest.raises(ValueError, match="after: seconds must be from 0"):
            CALL.after(wrong)
    for odd in (None, "1", True):
        with pytest.raises(TypeError, match="number of seconds"):
            CALL.after(odd)  # type: ignore[arg-type]


def test_hedging() -> None:
    """Copies and delay stand on the call."""
    assert CALL.hedged(copies=3, delay=0)._asks.hedging == (3, 0, None, None)


@pytest.mark.parametrize(
    ("copies", "delay", "error"),
    [
        (1, 0, ValueError),
        (0, 0, ValueError),
        (-3, 0, ValueError),
        (2.5, 0, ValueError),
        ("2", 0, ValueError),
        (None, 0, ValueError),
        (2, -1, ValueError),
        (2, math.nan, ValueError),
        (2, math.inf, ValueError),
        (2, None, TypeError),
        (2, "0.1", TypeError),
    ],
)
def test_what_is_no_hedging(copies: Any, delay: Any, error: type[Exception]) -> None:
    """Fewer than two copies, or a delay that is none, is refused where it is asked for."""
    with pytest.raises(error, match=r"hedged: copies must be 2 or more|delay must be a number"):
        CALL.hedged(copies=copies, delay=delay)


def test_what_cannot_be_hedged() -> None:
    """A handler cannot be hedged, nor can a call by what is no function."""
    with pytest.raises(ValueError, match="only calls of a client can be hedged"):
        SERVED.hedged(copies=2, delay=0)
    with pytest.raises(TypeError, match="verdict and ready must be functions, not an int and None"):
        CALL.hedged(copies=2, delay=0, verdict=0)  # type: ignore[arg-type]  # what is tested


def test_a_hedged_request_stream_is_kept() -> None:
    """Copies of a request stream each need all of it, so hedging asks for a buffer where nobody did."""
    call = Call(Method("/a/b", Kind.STREAM_UNARY))

    assert call.hedged(copies=2, delay=0)._asks.buffer == DEFAULT_BUFFER
    assert call.buffered(10).hedged(copies=2, delay=0)._asks.buffer == 10
    assert CALL.hedged(copies=2, delay=0)._asks.buffer is None


def test_a_buffer() -> None:
    """Without a size it is gRPC's own default; none may be negative."""
    assert CALL.buffered()._asks.buffer == DEFAULT_BUFFER == 262144
    assert CALL.buffered(0)._asks.buffer == 0
    with pytest.raises(ValueError, match="buffered: max_bytes must be 0 or more, not -1"):
        CALL.buffered(-1)


def test_taps_and_maps_meet_a_message_in_order() -> None:
    """Outer interceptors come first on the way out and last on the way back."""
    seen: list[str] = []

    def tap(name: str) -> Callable[[Any], object]:
        return lambda message: seen.append(f"{name}:{message}")

    def add(text: str) -> Callable[[Any], Any]:
        return lambda message: message + text

    outer = CALL.tap(requests=tap("outer"), responses=tap("outer")).map(requests=add("1"), responses=add("1"))
    inner = outer.tap(requests=tap("inner"), responses=tap("inner")).map(requests=add("2"), responses=add("2"))
    on_response = compose(inner._asks.responses)

    assert request_of(inner) == "one book12"
    assert on_response is not None
    assert on_response("r") == "r21"
    assert seen == ["outer:one book", "inner:one book1", "inner:r2", "outer:r21"]


def test_taps_of_initial_metadata() -> None:
    """The innermost comes first: it is on the way back."""
    call = CALL.tap(initial_metadata=print).tap(initial_metadata=repr)

    assert [hook.function for hook in call._asks.on_initial_metadata] == [repr, print]


def test_a_hook_is_a_function() -> None:
    """Anything else is refused where it is given, by name."""
    with pytest.raises(TypeError, match=r"requests must be a function of one message, not a str"):
        CALL.tap(requests="text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"responses must be a function"):
        CALL.map(responses=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"initial_metadata must be a function"):
        CALL.tap(initial_metadata=5)  # type: ignore[arg-type]


def test_initial_metadata_of_a_server() -> None:
    """A server may send pairs in front of the response; they add up. A client has none to send."""
    call = SERVED.with_initial_metadata(("a", "1")).with_initial_metadata(("b", "2"))

    assert list(call._asks.initial_metadata) == [("a", "1"), ("b", "2")]
    with pytest.raises(ValueError, match="a client uses with_metadata"):
        CALL.with_initial_metadata(("a", "1"))
    with pytest.raises(ValueError, match="'x-sum'"):
        SERVED.with_initial_metadata(("x-sum", "\n"))


def test_only_an_incoming_rpc_has_a_scope() -> None:
    """A call of a client has none, nor one of a server that is no longer handled."""
    for call in (CALL, SERVED):
        with pytest.raises(ValueError, match="scope: only an incoming RPC, while it is handled"):
            call.scope()


def test_how_it_prints() -> None:
    """It says what it is, and nothing of messages or metadata: they may be secret."""
    text = repr(CALL.with_metadata(("authorization", "Bearer secret")).with_timeout(2))

    assert text == "<Call /shop.v1.Orders/Place (unary_unary, client), timeout 2>"


# --- the request as bytes -------------------------------------------------------------------------------------------


def test_the_request_as_it_is_sent() -> None:
    """By the stub's own serializer, behind maps; taps see a message when it is sent, not before."""
    seen: list[str] = []
    method = Method("/shop.v1.Orders/Place", Kind.UNARY_UNARY, serializer=str.encode)
    call = Call(method, request="a").map(requests=str.upper).tap(requests=seen.append)

    assert call.encoded() == b"A" and seen == []


def test_a_request_that_is_bytes_already() -> None:
    """Without a serializer the message is what is sent."""
    assert Call(METHOD, request=b"raw").encoded() == b"raw"


def test_what_cannot_be_encoded() -> None:
    """A request stream has no bytes yet, and a server would need a serializer that it does not have."""
    for call in (STREAMED, SERVED):
        with pytest.raises(ValueError, match="only a client's call with one request"):
            call.encoded()
