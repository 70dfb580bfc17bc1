"""A map that forgets its `return` ends the RPC with the name of its interceptor, and never with a part for the whole."""

from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Method, Side, chain, errors
from interpose._messages import compose
from interpose.testing import PLACES, Place, ok

CALL = Call(Method("/a/b", Kind.UNARY_UNARY), request="m")


class Masking:
    """Hides a field of each message, in place, and forgets to return the message."""

    def __init__(self, direction: str) -> None:
        self._direction = direction

    def __call__(self, call: Call) -> Flow:
        yield call.map(**{self._direction: self._mask})

    def _mask(self, message: Any) -> None:
        pass


@pytest.mark.parametrize("direction", ["requests", "responses"])
@pytest.mark.parametrize("place", [place for place in PLACES if place.side is Side.CLIENT], ids=str)
def test_on_every_client(place: Place, direction: str) -> None:
    """INTERNAL that names the interceptor and the function, and says what to do; no message is delivered."""
    with place.open(Masking(direction), script=[ok("one", "two")]) as rpc:
        reply = rpc.call("a", timeout=10)

    assert reply.code is grpc.StatusCode.INTERNAL
    assert reply.details == "interceptor Masking: Masking._mask mapped a message to None: return the message"
    assert reply.messages == []
    assert all(attempt.requests == [] for attempt in rpc.attempts if direction == "requests")


def inner(call: Call) -> Flow:
    yield call.map(requests=str.upper)


def outer(call: Call) -> Flow:
    """Sends through a chain of its own, twice, and hedges: its hook is its own in each of these."""
    asked = call.map(requests=lambda message: None)
    outcome = yield from chain(inner)(asked)
    if not outcome.ok:
        yield asked.hedged(copies=2, delay=10)


def test_the_interceptor_that_asked_is_named() -> None:
    """Not the one further in that asks for more, and not a chain between them."""
    place = next(place for place in PLACES if place.side is Side.CLIENT)
    with place.open(outer, inner) as rpc:
        reply = rpc.call("a", timeout=10)

    assert reply.details == "interceptor outer: outer.<lambda> mapped a message to None: return the message"
    assert rpc.attempts == []


@pytest.mark.parametrize(
    "call",
    [
        CALL.map(requests=lambda message: None),
        CALL.tap(requests=print).map(requests=lambda message: None),
        CALL.map(requests=lambda message: None).tap(requests=print),
    ],
)
def test_each_shape_of_hooks(call: Call) -> None:
    """A map alone or among others; without an interceptor the function is all that can be named."""
    passed = compose(call._asks.requests)

    assert passed is not None
    with pytest.raises(errors.Internal, match=r"<lambda> mapped a message to None: return the message") as caught:
        passed("m")
    assert caught.value.local


def test_a_message_that_is_none_may_stay_so() -> None:
    """A deserializer may make None of a message (JSON's null): a map has done nothing to it."""
    passed = compose(CALL.map(requests=lambda message: message)._asks.requests)

    assert passed is not None
    assert passed(None) is None
