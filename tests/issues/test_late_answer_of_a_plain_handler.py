"""A plain handler whose time is up on an asyncio server is not answered with OK and an empty message."""

from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, server_interceptor
from tests.facts.serving import serving


class Late:
    """grpc's context, on which the deadline has passed: the server may notice that before its client does."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def time_remaining(self) -> float:
        return 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


class MakeLate(grpc.aio.ServerInterceptor):
    """A native interceptor around ours, which puts that context in front of it."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler.request_streaming:
            made, function = grpc.stream_unary_rpc_method_handler, handler.stream_unary
        else:
            made, function = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        return made(
            lambda argument, native: function(argument, Late(native)),
            handler.request_deserializer,
            handler.response_serializer,
        )


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
def test_a_late_answer_is_no_empty_success(kind: str) -> None:
    """The client is told DEADLINE_EXCEEDED, or nothing; never OK with a message that the handler did not give."""

    def handler(argument: Any, context: Any) -> str:
        return "an answer"

    def passing(call: Call) -> Flow:
        yield call

    with serving("plain", {kind: handler}, interceptors=[MakeLate(), server_interceptor(passing)]) as client:
        reply = client.call(kind=kind)

    assert (reply.code, reply.messages) == (grpc.StatusCode.DEADLINE_EXCEEDED, [])
