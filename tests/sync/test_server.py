"""Plain handlers on a bad day: closed too early, answered for, ending twice, or failing when nobody listens."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Outcome
from tests.facts.serving import Watch, serving
from tests.support.patience import PATIENCE


def test_a_generator_that_fails_when_it_is_closed() -> None:
    """A response that an interceptor refuses closes the handler; what it raises then is the outcome, being the later."""
    watch = Watch()

    def refuse(message: str) -> str:
        raise ValueError("not this one")

    def refuses(call: Call) -> Flow:
        yield call.map(responses=refuse)

    def handler(request: str, context: Any) -> Iterator[str]:
        try:
            yield "a"
        finally:
            raise LookupError("no way to clean up")

    with serving("sync", {"unary_stream": handler}, watch, refuses) as client:
        reply = client.call(kind="unary_stream")

    assert (reply.messages, reply.code) == ([], grpc.StatusCode.UNKNOWN)
    assert isinstance(watch.outcomes[0].error, LookupError)


# --- handlers that return at once -------------------------------------------------------------------------------------


def non_blocking(handler: Callable[[Any, Any, Callable[[Any], None]], None]) -> Any:
    handler.experimental_non_blocking = True  # type: ignore[attr-defined]
    return handler


@pytest.mark.parametrize("messages", [["x", "y"], None], ids=["some", "none"])
def test_a_flow_answers_for_a_handler_that_returns_at_once(messages: list[str] | None) -> None:
    """The client gets the messages of the flow and OK; the handler is not called."""
    called: list[str] = []

    def answers(call: Call) -> Flow:
        return Outcome.success(messages, trailing_metadata=[("x-from", "flow")])
        yield call

    @non_blocking
    def handler(request: str, context: Any, send: Callable[[Any], None]) -> None:
        called.append(request)

    with serving("sync", {"unary_stream": handler}, answers) as client:
        reply = client.call(kind="unary_stream")

    assert (reply.messages, reply.code) == (messages or [], grpc.StatusCode.OK)
    assert list(reply.trailing) == [("x-from", "flow")]
    assert called == []


def test_a_handler_that_has_ended_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    """The end was told and sent; the exception behind it ends nothing a second time, at the flows or at grpc."""
    watch = Watch()

    @non_blocking
    def handler(request: str, context: Any, send: Callable[[Any], None]) -> None:
        send("a")
        send(None)
        raise ValueError("behind the end")

    with serving("sync", {"unary_stream": handler}, watch) as client:
        reply = client.call(kind="unary_stream")

    assert (reply.messages, reply.code) == (["a"], grpc.StatusCode.OK)
    assert [outcome.code for outcome in watch.outcomes] == [grpc.StatusCode.OK]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("grpc")] == []


# --- nobody listens ---------------------------------------------------------------------------------------------------


def test_what_a_plain_handler_raises_to_nobody_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """On an asyncio server: the client has gone, so grpc is not told of the exception, and the log is."""
    watch, arrived, gone = Watch(), threading.Event(), threading.Event()

    def handler(request: str, context: Any) -> str:
        context.add_callback(gone.set)
        arrived.set()
        assert gone.wait(PATIENCE)
        raise LookupError("nobody hears this")

    with serving("plain", {"unary_unary": handler}, watch) as client:
        pending = client.start()
        assert arrived.wait(PATIENCE)
        pending.cancel()
        outcome = watch.next()

    logged = [record for record in caplog.records if "its client has gone" in record.getMessage()]
    assert outcome.code is grpc.StatusCode.CANCELLED
    assert [(record.name, record.levelno) for record in logged] == [("interpose", logging.ERROR)]
    assert logged[0].exc_info is not None and logged[0].exc_info[0] is LookupError
