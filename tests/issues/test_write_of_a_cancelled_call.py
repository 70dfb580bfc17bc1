"""asyncio: whoever waits in `write` or `done_writing` when the call is cancelled goes on."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, intercept_channel

KINDS = ["stream_unary", "stream_stream"]


@pytest.fixture
def target() -> Iterator[str]:
    """The address of a server without a service: nobody takes what is written."""
    pool = ThreadPoolExecutor(1)
    server = grpc.server(pool)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
    pool.shutdown()


def passing(call: Call) -> Flow:
    yield call


WRITES: dict[str, Callable[[Any], Any]] = {
    "write": lambda call: call.write(b"a"),
    "done_writing": lambda call: call.done_writing(),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("kind", KINDS)
async def test_cancel_wakes_who_writes(target: str, kind: str, what: str) -> None:
    """`cancel()` ends a write that waits for the connection."""
    async with intercept_channel(grpc.aio.insecure_channel(target), passing) as channel:
        call = getattr(channel, kind)("/Nobody/Home")()
        writing = asyncio.ensure_future(WRITES[what](call))
        await asyncio.sleep(0)  # it has begun
        call.cancel()
        done, _ = await asyncio.wait([writing], timeout=2)
        hung = not done
        if hung:
            writing.cancel()
            await asyncio.wait([writing])

    assert not hung
    assert call.cancelled()
    if not writing.cancelled():
        writing.exception()  # whichever it is, it is told: the call's end is told to whoever reads
