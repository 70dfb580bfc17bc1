"""The straight path: which calls keep an RPC on it, and what each flow and the handler see of a changed one."""

from collections.abc import Callable
from typing import Any

import pytest

from interpose import Call, Flow, Kind, Metadata, Method, Side, context
from interpose._call import Arrived
from interpose._flow import layers
from interpose._shell.answer import Answer, arrived, recording
from interpose._shell.straight import begin
from interpose.context import set_identity
from interpose.interceptors import Identity
from interpose.testing import Place
from tests._shell.test_answer import Clock, Native

METHOD = Method("/a.B/C", Kind.UNARY_UNARY)


def came_in() -> Call:
    """The call of an RPC on a server."""
    clock: Any = Clock()
    _, call = arrived(recording(Answer, clock, None), Native(9.0), METHOD, "request")
    return call


def started() -> Call:
    """The call of an RPC on a client."""
    return Call(METHOD, Side.CLIENT, "request", metadata=Metadata())


def taken(call: Call, change: Callable[[Call], Any]) -> bool:
    """Did a driver take over, because of what a flow asked for?"""

    def asks(call: Call) -> Flow:
        yield change(call)

    return begin(layers((asks,), METHOD), call)[2] is not None


ANYWHERE = {
    "itself": lambda call: call,
    "headers": lambda call: call.with_metadata(("x-a", "1")).without_metadata("a"),
    "another message": lambda call: call.with_request("another"),
}
MORE = {
    "a tap": lambda call: call.tap(responses=print),
    "a pause": lambda call: call.after(1.0),
    "nonsense": lambda call: "call",
}


@pytest.mark.parametrize("change", ANYWHERE.values(), ids=ANYWHERE)
@pytest.mark.parametrize("make", [came_in, started])
def test_a_changed_call_stays_on_it(make: Callable[[], Call], change: Callable[[Call], Any]) -> None:
    """No driver for what a request id, an address or a trace changes; a copy of a copy is as good."""
    assert not taken(make(), change)
    assert not taken(ANYWHERE["headers"](make()), change)


@pytest.mark.parametrize("change", MORE.values(), ids=MORE)
@pytest.mark.parametrize("make", [came_in, started])
def test_what_the_shell_has_to_do_leaves_it(make: Callable[[], Call], change: Callable[[Call], Any]) -> None:
    """A driver takes over for all that is more than to pass on a call."""
    assert taken(make(), change)


def test_limits_stay_on_clients_only() -> None:
    """A client sends a timeout as it sends headers; on a server somebody has to hold the handler to it."""
    for limit in (lambda call: call.with_timeout(1.0), lambda call: call.with_deadline(1.0)):
        assert taken(came_in(), limit)
        assert not taken(started(), limit)


def test_the_call_of_another_rpc_leaves_it() -> None:
    """What was kept of another RPC is not this one with other headers."""
    other = came_in().with_metadata(("x-a", "1"))

    assert taken(came_in(), lambda _: other)
    assert type(other) is not Arrived


@pytest.mark.parametrize("asyncio", [False, True])
@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM])
def test_what_is_seen_of_a_changed_call(asyncio: bool, kind: Kind) -> None:
    """Outer flows see their own call, inner ones and the handler the changed one, with the same peer and deadline."""
    seen: list[Any] = []

    def sees(call: Call) -> Flow:
        yield call
        limit = call.deadline is not None and call.timeout is not None
        seen.append((call.metadata.get("x-id"), call.request, limit, call.peer))

    def changes(call: Call) -> Flow:
        set_identity(Identity("somebody"))
        yield call.with_metadata(("x-id", "1")).with_request("changed")

    def handles(call: Call) -> Flow:
        yield call
        current, caller = context.current_call(), context.identity()
        assert current is not None
        assert caller is not None
        seen.append((current is call, caller.subject, call.peer))

    with Place(asyncio, Side.SERVER, kind).open(sees, changes, handles, sees) as rpc:
        reply = rpc.call("hello", timeout=20.0)

        assert reply.ok
        assert rpc.attempts[0].values("x-id") == ["1"]
    peer = seen[0][-1]
    assert seen[1:] == [(True, "somebody", peer), (None, "hello", True, peer)]
    assert seen[0][:3] == ("1", "changed", True)
