"""On an asyncio server, a client that left while an interceptor waited was told as a fault of the interceptor.

With a plain handler the interceptor went on waiting, and kept its thread.
"""

import asyncio
import logging

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, StatusError, wait
from interpose.testing import Echo, Stub


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("timeout", [None, 0.05])
async def test_the_flow_is_told_that_the_client_has_gone(
    timeout: float | None, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """By the status of that, and nothing is logged as an error; whether it has cancelled or its time is up."""
    told: list[StatusError] = []
    waiting, ended, left = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def forever() -> None:
        waiting.set()
        try:
            await loop.create_future()
        finally:
            left.set()

    def waits(call: Call) -> Flow:
        try:
            yield from wait(forever())
        except StatusError as error:
            told.append(error)
            raise
        finally:
            loop.call_soon_threadsafe(ended.set)
        yield call

    with caplog.at_level(logging.ERROR):
        async with Echo().serve_aio(waits, plain=plain) as target, grpc.aio.insecure_channel(target) as channel:
            call = Stub(channel).unary_unary("a", timeout=timeout)
            await waiting.wait()
            if timeout is None:
                call.cancel()
            await ended.wait()
            await left.wait()

    expected = grpc.StatusCode.CANCELLED if timeout is None else grpc.StatusCode.DEADLINE_EXCEEDED
    assert [(error.code(), error.local) for error in told] == [(expected, True)]
    assert "interceptor waits" not in caplog.text


async def test_a_wait_that_was_cancelled_by_others(caplog: pytest.LogCaptureFixture) -> None:
    """Then the client is there, and the interceptor is told as before."""

    def waits(call: Call) -> Flow:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        yield from wait(future)
        yield call

    async with Echo().serve_aio(waits) as target, grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await Stub(channel).unary_unary("a")

    assert failed.value.code() is grpc.StatusCode.INTERNAL and "waits raised CancelledError" in failed.value.details()
    assert "waits raised CancelledError" in caplog.text
