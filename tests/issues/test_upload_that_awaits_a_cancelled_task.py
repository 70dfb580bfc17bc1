"""A request stream that ends in CancelledError has not finished: the RPC is cancelled, whatever keeps its messages."""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, errors, intercept_channel
from interpose.interceptors import Hedge, Retry
from interpose.testing import failed
from interpose.testing.echo import Echo, Stub
from tests.support.patience import PATIENCE

KINDS = [Kind.STREAM_UNARY, Kind.STREAM_STREAM]


def passes(call: Call) -> Flow:
    yield call


def resends(call: Call) -> Flow:
    outcome = yield call.buffered()
    if outcome.code is grpc.StatusCode.UNAVAILABLE:
        yield call.buffered()


LISTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}  # not even then is it sent again
STACKS: dict[str, tuple[Interceptor, ...]] = {
    "plain": (passes,),
    "retry": (Retry(safe=True, codes=LISTED),),
    "hedge": (Hedge(safe=True, delay=0.0, codes=LISTED),),
    "resend": (resends,),
}


def cancelled_task() -> asyncio.Task[None]:
    task = asyncio.ensure_future(asyncio.sleep(3600))
    task.cancel()
    return task


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
async def test_on_asyncio(stack: tuple[Interceptor, ...], kind: Kind) -> None:
    """The caller sees CancelledError, as on a bare channel, and no server takes the part for the whole."""
    echo = Echo([failed(grpc.StatusCode.UNAVAILABLE, unread=True)] if stack == (resends,) else [])
    arrived = threading.Event()

    def note(call: Call) -> Flow:
        yield call.tap(requests=lambda message: arrived.set())

    async def messages() -> AsyncIterator[str]:
        yield "a"
        assert await asyncio.to_thread(arrived.wait, PATIENCE)
        await cancelled_task()

    channel: Any
    async with echo.serve_aio(note) as target, intercept_channel(grpc.aio.insecure_channel(target), *stack) as channel:
        call = getattr(Stub(channel), kind.value)(messages(), timeout=PATIENCE)
        with pytest.raises(asyncio.CancelledError):
            await (call if kind is Kind.STREAM_UNARY else call.read())
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()

    taken = [attempt for attempt in echo.attempts if attempt.requests]
    assert taken
    assert all(attempt.responses == 0 for attempt in taken)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_on_sync(stack: tuple[Interceptor, ...]) -> None:
    """A future's CancelledError is an exception of the stream like any other there, as on a bare channel."""
    echo = Echo([failed(grpc.StatusCode.UNAVAILABLE, unread=True)] if stack == (resends,) else [])

    def messages() -> Iterator[str]:
        yield "a"
        raise concurrent.futures.CancelledError

    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), *stack) as channel:
        with pytest.raises(errors.Unknown, match="Exception iterating requests!") as caught:
            Stub(channel).stream_unary(messages(), timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, concurrent.futures.CancelledError)
