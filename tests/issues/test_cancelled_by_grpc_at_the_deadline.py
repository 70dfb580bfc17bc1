"""On asyncio channels, an upload whose deadline passed while it was written could end as if it had been cancelled."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Kind, errors, intercept_channel
from interpose.testing import Echo, FakeClock, Stub, ok


class Cancelling:
    """Does by itself what grpc does if a write finds the call over, and the status has not come yet: a race."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def _intercept(self, continuation: Any, details: Any, requests: Any) -> Any:
        call = await continuation(details, requests)
        self.calls.append(call)
        return call


class CancellingOne(Cancelling, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary = Cancelling._intercept


class CancellingMany(Cancelling, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream = Cancelling._intercept


@pytest.mark.parametrize(
    ("passed", "expected"), [(2.0, grpc.StatusCode.DEADLINE_EXCEEDED), (0.5, grpc.StatusCode.CANCELLED)]
)
@pytest.mark.parametrize(("kind", "make"), [(Kind.STREAM_UNARY, CancellingOne), (Kind.STREAM_STREAM, CancellingMany)])
async def test_it_ends_by_its_deadline(kind: Kind, make: Any, passed: float, expected: grpc.StatusCode) -> None:
    """If that has passed; before it is what it looks like."""
    clock, below, echo = FakeClock(), make(), Echo([ok(hang=True)])
    codes: list[grpc.StatusCode] = []

    def noting(call: Any) -> Any:
        codes.append((yield call).code)

    async with echo.serve_aio() as target, grpc.aio.insecure_channel(target, interceptors=[below]) as bare:
        channel = intercept_channel(bare, noting, clock=clock)
        call = Stub(channel).method(kind)(iter("a"), timeout=1.0)
        await asyncio.to_thread(echo.wait_begun)
        clock.advance(passed)
        below.calls[0].cancel()
        with pytest.raises((errors.StatusError, asyncio.CancelledError)):
            await (call if kind is Kind.STREAM_UNARY else call.read())

    assert codes == [expected]
