"""Who waits for the response's metadata, while an attempt fails that is made again, is given that of the answer."""

import asyncio
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, intercept_channel
from interpose.testing import Echo, Stub, failed, ok

SCRIPT = [failed(grpc.StatusCode.UNAVAILABLE), ok(initial=(("x-node", "8"),))]


def again(call: Call) -> Flow:
    """Send it once more if it fails."""
    outcome = yield call.buffered()
    if not outcome.ok:
        yield call.buffered()


def request(kind: Kind) -> Any:
    return iter(["a"]) if kind.request_streaming else "a"


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_asyncio(kind: Kind) -> None:
    """It is not the nothing of the attempt that failed."""
    async with Echo(SCRIPT).serve_aio() as target:
        channel: Any = intercept_channel(grpc.aio.insecure_channel(target, [("grpc.enable_retries", 0)]), again)
        call = getattr(Stub(channel), kind.value)(request(kind))
        found = await asyncio.wait_for(call.initial_metadata(), 10)
        if kind.response_streaming:
            assert [message async for message in call]
        code = await call.code()
        await channel.close()

    assert code is grpc.StatusCode.OK
    assert [value for key, value in found if key == "x-node"] == ["8"]


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_sync(kind: Kind) -> None:
    """Nor with a future or a stream, whichever thread is faster."""
    seen: list[list[Any]] = []
    with Echo(SCRIPT * 50).serve() as target:
        channel: Any = intercept_channel(grpc.insecure_channel(target, [("grpc.enable_retries", 0)]), again)
        stub = getattr(Stub(channel), kind.value)
        for _ in range(50):
            call = (stub if kind.response_streaming else stub.future)(request(kind))
            seen.append([value for key, value in call.initial_metadata() if key == "x-node"])
            assert list(call) if kind.response_streaming else call.result()
        channel.close()

    assert seen == [["8"]] * 50
