"""What the context of a plain handler does beside grpc's own: when the client has gone, or grpc's is another's."""

import threading
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from interpose import Outcome
from interpose._clock import SYSTEM
from interpose._grpcio.servers import GONE, NATIVE
from interpose._shell.answer import Abort
from interpose.sync.context import ServicerContext
from tests.facts.serving import Watch, serving
from tests.support.patience import PATIENCE


def test_the_scope_of_an_rpc_that_has_ended_is_over() -> None:
    """grpc takes no callback any more: what is added to the scope is refused, and not kept."""
    context = ServicerContext(SimpleNamespace(add_callback=lambda callback: False), SYSTEM)
    scope = context.scope()

    assert scope.over
    assert not scope.add(lambda: None)


def test_an_abort_that_returns_still_ends_the_handler() -> None:
    """The context of a native interceptor may only note the abort; the handler's end must not count as an answer."""
    noted: list[Any] = []
    native = SimpleNamespace(cancel=lambda: True, abort=lambda code, details: noted.append((code, details)))
    context = ServicerContext(native, SYSTEM)

    with pytest.raises(Abort):
        context.answer(Outcome(grpc.StatusCode.NOT_FOUND, None, "no such card"))
    assert noted == [(grpc.StatusCode.NOT_FOUND, "no such card")]


def test_what_grpc_adds_to_its_context_is_there() -> None:
    """An attribute that we do not know is that of grpc's context; one that nobody has is an AttributeError."""
    context = ServicerContext(SimpleNamespace(of_a_later_version="new"), SYSTEM)

    assert context.of_a_later_version == "new"
    with pytest.raises(AttributeError, match="of_no_version"):
        context.of_no_version  # noqa: B018  to look is the test


def test_whether_the_client_has_gone_is_read_from_grpcs_state() -> None:
    """The private state says of a client what `is_active()` does, while it listens and when it has gone."""
    seen: list[Any] = []
    begun = threading.Event()

    def handler(request: str, context: Any) -> str:
        gone = threading.Event()
        context.add_callback(gone.set)
        native = context._native
        seen.append((type(native) is NATIVE, native._state.client is GONE, native.is_active()))
        begun.set()
        assert gone.wait(PATIENCE)
        seen.append((type(native) is NATIVE, native._state.client is GONE, native.is_active()))
        return request

    watch = Watch()
    with serving("sync", {"unary_unary": handler}, watch) as client:
        call = client.start()
        assert begun.wait(PATIENCE)
        call.cancel()
        outcome = watch.next()

    assert seen == [(True, False, True), (True, True, False)]
    assert outcome.code is grpc.StatusCode.CANCELLED
