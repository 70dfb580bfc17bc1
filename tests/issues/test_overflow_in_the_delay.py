"""A request that overflows the buffer while a retry waits goes with that retry, which is then the last."""

import asyncio
from collections.abc import AsyncIterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, intercept_channel
from interpose.testing import FakeClock
from tests.facts.serving import serving

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UPLOADS = [Kind.STREAM_UNARY, Kind.STREAM_STREAM]
LARGE = "overflow"


class Again:
    """Sends a call again, as often as it bears it, up to three times; first after a pause, and from two bytes of buffer."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def __call__(self, call: Call) -> Flow:
        call = call.buffered(2)
        self.outcomes.append((yield call))
        while self.outcomes[-1].replayable and len(self.outcomes) < 3:
            self.outcomes.append((yield call.after(1 if len(self.outcomes) == 1 else 0)))


def refuse(seen: list[list[str]]) -> Any:
    """A handler that refuses the first attempt after one request, and every later one after two."""

    def handle(requests: Any, context: Any) -> Any:
        taken: list[str] = []
        seen.append(taken)
        while len(taken) < min(len(seen), 2):
            taken.append(next(requests))
        context.abort(UNAVAILABLE, f"refusal {len(seen)}")
        yield

    return handle


@pytest.mark.parametrize("kind", UPLOADS, ids=lambda kind: kind.value)
def test_sync(kind: Kind) -> None:
    """It is sent, and not once more: the buffer would be larger than it may be."""
    clock, again, seen = FakeClock(), Again(), list[list[str]]()
    said: SimpleQueue[str | None] = SimpleQueue()
    handlers = {"stream_stream": refuse(seen)}
    with serving("sync", handlers) as client:
        channel: Any = intercept_channel(grpc.insecure_channel(client.target), again, clock=clock)
        start = getattr(channel, kind.value)("/facts.Server/stream_stream", str.encode, bytes.decode)
        start = start if kind.response_streaming else start.future
        said.put("a")
        call = start(iter(said.get, None))
        clock.wait_for()
        said.put(LARGE)
        clock.advance(1)
        code = call.code()
        said.put(None)
        channel.close()

    assert code is UNAVAILABLE
    assert seen == [["a"], ["a", LARGE]]
    assert [outcome.replayable for outcome in again.outcomes] == [True, False]


@pytest.mark.parametrize("kind", UPLOADS, ids=lambda kind: kind.value)
async def test_asyncio(kind: Kind) -> None:
    """The same: what was kept until then is not lost, and so the retry can be made."""
    clock, again, seen = FakeClock(), Again(), list[list[str]]()
    said: asyncio.Queue[str | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[str]:
        while (message := await said.get()) is not None:
            yield message

    with serving("sync", {"stream_stream": refuse(seen)}) as client:
        channel: Any = intercept_channel(grpc.aio.insecure_channel(client.target), again, clock=clock)
        start = getattr(channel, kind.value)("/facts.Server/stream_stream", str.encode, bytes.decode)
        said.put_nowait("a")
        call = start(requests())
        await clock.reached()
        said.put_nowait(LARGE)
        while not said.empty():  # noqa: ASYNC110  taken by a task that tells nobody
            await asyncio.sleep(0)
        clock.advance(1)
        code = await asyncio.wait_for(call.code(), 10)
        said.put_nowait(None)
        await channel.close()

    assert code is UNAVAILABLE
    assert seen == [["a"], ["a", LARGE]]
    assert [outcome.replayable for outcome in again.outcomes] == [True, False]
