"""The day that one of grpcio's private names goes, on a server: what is done without it. See docs/design/0006-privates.md."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest

from interpose._clock import SYSTEM
from interpose._grpcio import plain, servers
from interpose._shell.handlers import refuse_late
from interpose._shell.serving import Registered
from interpose.interceptors import Authorize, require
from interpose.serving import ending
from interpose.sync import server
from interpose.sync.context import ServicerContext
from tests.facts.serving import Watch, serving
from tests.support.patience import PATIENCE


class Stated:
    """As grpc's own keep it."""

    def __init__(self) -> None:
        self._state = self.client = None


class Stateless:
    """A later version's, perhaps."""

    def __init__(self) -> None:
        self._kept = None


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"_Context": Stated, "_RPCState": Stated},
        {"_Context": Stated, "_CANCELLED": 1},
        {"_Context": Stateless, "_RPCState": Stated, "_CANCELLED": 1},
        {"_Context": Stated, "_RPCState": Stateless, "_CANCELLED": 1},
        {"_Context": object, "_RPCState": Stated, "_CANCELLED": 1},
    ],
    ids=lambda parts: " ".join(f"{name}={getattr(part, '__name__', part)}" for name, part in parts.items()) or "none",
)
def test_a_state_that_is_kept_otherwise_is_not_read(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One part that is not there, or not as we know it, is enough."""
    module = ModuleType("of_a_later_version")
    vars(module).update(parts)
    monkeypatch.setitem(sys.modules, "of_a_later_version", module)

    assert servers.privates("of_a_later_version") == (None, None)
    assert servers.privates("of_no_version") == (None, None)


def test_a_state_that_is_kept_as_we_know_it_is_read() -> None:
    """With the grpcio that is here."""
    assert servers.privates() == (servers.NATIVE, servers.GONE)
    assert None not in servers.privates()


def test_without_the_state_a_client_that_has_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`is_active()` is asked: an answer is OK, and one that its client did not wait for CANCELLED."""
    monkeypatch.setattr(server, "NATIVE", None)
    begun = threading.Event()

    def handler(request: str, context: Any) -> str:
        if request == "wait":
            gone = threading.Event()
            context.add_callback(gone.set)
            begun.set()
            assert gone.wait(PATIENCE)
        return request

    watch = Watch()
    with serving("sync", {"unary_unary": handler}, watch) as client:
        assert client.call("a").messages == ["a"]
        answered = watch.next()
        call = client.start("wait")
        assert begun.wait(PATIENCE)
        call.cancel()
        left = watch.next()

    assert (answered.code, left.code) == (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)


def test_a_context_without_a_state() -> None:
    """Native interceptors inside ours that ask for it see what they would see without us."""
    context = ServicerContext(SimpleNamespace(), SYSTEM)

    with pytest.raises(AttributeError, match="_state"):
        context._state  # noqa: B018  to look is the test


def test_a_server_that_does_not_show_its_handlers() -> None:
    """It is not known that it has some already; it is taken."""
    refuse_late(SimpleNamespace())


def test_a_generic_handler_that_does_not_show_its_methods() -> None:
    """It may serve anything: no row of a table is taken for a mistake."""

    class Anything(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            return None

    registered = Registered(asyncio=False)
    registered.add_generic([Anything()])

    assert registered.served().methods == () and registered.served().generic
    assert not list(Authorize({"/shop.v1.Orders/Get": require()}).check_served(registered.served()))


def test_an_rpc_whose_private_parts_are_unknown_is_not_ended() -> None:
    """`interpose serve` says so, and lets the server's own stop end it."""
    assert not ending.end(SimpleNamespace())


async def test_without_the_name_of_the_servers_task_a_loop_counts_as_one_without_a_server() -> None:
    """Threads of plain streams have the time then that they have at exit."""
    pulled: Any = SimpleNamespace(_loop=asyncio.get_running_loop())

    assert not plain.Pulled._serves(pulled)
