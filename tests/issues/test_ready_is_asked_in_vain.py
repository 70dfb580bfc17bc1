"""`ready` of a hedged call is asked only when a copy is sent if it says yes: a budget counts what it allows as sent."""

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Side, intercept_channel
from interpose.testing import FakeClock, Place, failed
from interpose.testing.echo import Echo, Stub


class Asked:
    """A hedge that notes how often it is asked for another copy."""

    def __init__(self, delay: float, buffer: int = 1000) -> None:
        self.times = 0
        self._delay = delay
        self._buffer = buffer

    def __call__(self, call: Call) -> Flow:
        yield call.buffered(self._buffer).hedged(copies=2, delay=self._delay, ready=self._ready)

    def _ready(self) -> bool:
        self.times += 1
        return True


def test_not_after_a_sync_stream_has_won() -> None:
    """The delay passes while the first copy, which has delivered, goes on: nobody asks for another."""
    clock, asked = FakeClock(), Asked(delay=1)

    with (
        Echo().serve() as target,
        intercept_channel(grpc.insecure_channel(target), asked, clock=clock) as channel,
    ):
        stream = Stub(channel).unary_stream("a")
        first = next(stream)
        clock.advance(1)
        rest = list(stream)

    assert [first, *rest] == ["a", "a", "a"]
    assert asked.times == 0


async def test_not_after_an_asyncio_stream_has_won() -> None:
    """On asyncio as well."""
    clock, asked = FakeClock(), Asked(delay=1)

    async with Echo().serve_aio() as target:
        channel = intercept_channel(grpc.aio.insecure_channel(target), asked, clock=clock)
        async with channel:
            stream = Stub(channel).unary_stream("a")
            first = await stream.read()
            clock.advance(1)
            rest = [await stream.read(), await stream.read()]
            end = await stream.read()

    assert ([first, *rest], end) == (["a", "a", "a"], grpc.aio.EOF)
    assert asked.times == 0


@pytest.mark.parametrize("asyncio", [False, True], ids=["sync", "aio"])
def test_not_when_the_request_stream_has_outgrown_its_buffer(asyncio: bool) -> None:
    """No copy could have all of it, so none is asked for."""
    asked = Asked(delay=3600, buffer=1)

    place = Place(asyncio, Side.CLIENT, Kind.STREAM_UNARY)
    with place.open(asked, script=[failed(grpc.StatusCode.UNAVAILABLE)]) as rpc:
        reply = rpc.call("more", "than", "fits")

    assert reply.code is grpc.StatusCode.UNAVAILABLE
    assert len(rpc.attempts) == 1
    assert asked.times == 0
