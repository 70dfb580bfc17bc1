"""An async handler that raises CancelledError itself is not told of as a client that left."""

import asyncio
from typing import Any

import grpc
import pytest

from interpose import Call, Flow
from tests.facts.serving import serving


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_nobody_says_that_the_client_cancelled(kind: str) -> None:
    """The client that still listens is not told that it had cancelled."""

    async def answer(request: str, context: Any) -> str:
        raise asyncio.CancelledError

    async def stream(request: str, context: Any) -> Any:
        yield "first"
        raise asyncio.CancelledError

    def watch(call: Call) -> Flow:
        yield call

    with serving("async", {kind: stream if kind.endswith("stream") else answer}, watch) as client:
        reply = client.call(kind=kind)

    assert reply.code is grpc.StatusCode.CANCELLED
    assert "client" not in reply.details
