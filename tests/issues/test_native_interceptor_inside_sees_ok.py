"""A native interceptor between our flows and the handler reads the code that the handler has set, not OK."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, server_interceptor
from tests.facts.serving import serving

NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Metrics(grpc.ServerInterceptor):  # type: ignore[misc]
    """Counts codes as py-grpc-prometheus does: from grpc's private state, when the handler has returned or raised."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def unary(request: Any, context: Any) -> Any:
            try:
                return handler.unary_unary(request, context)
            finally:
                self.note(context)

        def stream(request: Any, context: Any) -> Iterator[Any]:
            try:
                yield from handler.unary_stream(request, context)
            finally:
                self.note(context)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)

    def note(self, context: Any) -> None:
        state = context._state
        self.seen.append((state.client, state.code, context.code(), state.details, state.trailing_metadata))
        self.seen.append(state.aborted)


def passing(call: Call) -> Flow:
    """A flow that asks for nothing."""
    yield call


def aborting(context: Any) -> None:
    """Fail by raising."""
    context.abort(NOT_FOUND, "no such order")


def setting(context: Any) -> None:
    """Fail by returning."""
    context.set_code(NOT_FOUND)
    context.set_details("no such order")


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("fail", [aborting, setting])
def test_it_reads_what_the_handler_decided(fail: Callable[[Any], None], kind: str) -> None:
    """The private state shows the recorded code and details; what grpc alone knows is grpc's."""
    metrics = Metrics()

    def unary(request: str, context: Any) -> str:
        context.set_trailing_metadata((("x-a", "1"),))
        fail(context)
        return request

    def stream(request: str, context: Any) -> Iterator[str]:
        yield unary(request, context)

    handlers = {"unary_unary": unary, "unary_stream": stream}
    with serving("sync", handlers, interceptors=[server_interceptor(passing), metrics]) as client:
        reply = client.call(kind=kind)

    assert (reply.code, reply.details) == (NOT_FOUND, "no such order")
    assert metrics.seen == [
        ("open", NOT_FOUND, NOT_FOUND, b"no such order", (("x-a", "1"),)),
        fail is aborting,
    ]


def test_a_context_without_that_state_has_none() -> None:
    """A plain handler on an asyncio server has no such state without us, and has none with us."""
    seen: list[bool] = []

    def handler(request: str, context: Any) -> str:
        seen.append(hasattr(context, "_state"))
        return request

    with serving("plain", {"unary_unary": handler}, passing) as client:
        client.call()

    assert seen == [False]
