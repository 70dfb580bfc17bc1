"""What flows leave for handlers and for the calls that handlers make."""

from contextvars import copy_context

import pytest

from interpose import Call, Flow, Kind, Method, Side, context
from interpose.testing import PLACES, Place

SERVED = Call(Method("/a/b", Kind.UNARY_UNARY), Side.SERVER, deadline=17.0)
SERVERS = [place for place in PLACES if place.side is Side.SERVER]


def test_outside_a_handler() -> None:
    """There is no call, no request id and no deadline."""
    assert context.current_call() is None
    assert context.request_id() is None
    assert context.deadline() is None


def test_inside_a_handler() -> None:
    """What was left is there, in this context and in no other."""

    def handle() -> None:
        context.set_current_call(SERVED)
        context.set_request_id("id-1")
        assert context.current_call() is SERVED
        assert context.request_id() == "id-1"
        assert context.deadline() == 17

    copy_context().run(handle)

    assert context.current_call() is None
    assert context.request_id() is None


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_flows_on_a_server_have_the_call(server: Place) -> None:
    """A server's flow finds its own call, before and after the handler, and nothing of the RPC before."""
    found: list[Call | None] = []
    ids: list[str | None] = []

    def look(call: Call) -> Flow:
        ids.append(context.request_id())
        context.set_request_id("of this rpc")
        found.append(context.current_call())
        yield call.with_metadata(("x-seen", "yes"))
        found.append(context.current_call())
        ids.append(context.request_id())

    with server.open(look) as rpc:
        assert rpc.call("a").ok
        assert rpc.call("a", timeout=9).ok

    assert ids == [None, "of this rpc"] * 2
    assert [call is not None and call.kind for call in found] == [server.kind] * 4
    assert [call is not None and call.metadata.get("x-seen") for call in found] == [None, "yes"] * 2


def test_nothing_leaks_to_the_application(place: Place) -> None:
    """What a flow sets stays in its RPC: the caller's own context is as it was."""

    def leave(call: Call) -> Flow:
        context.set_request_id("left behind")
        yield call
        context.set_request_id("left later")

    with place.open(leave) as rpc:
        assert rpc.call("a").ok
        assert context.request_id() is None
