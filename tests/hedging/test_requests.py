"""Hedging a request stream: it is read once, and every copy has all of it."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, intercept_channel
from tests.hedging.serving import FAR, NO_CORE_RETRIES, SOON, UNAVAILABLE, Gated, Service, Way, hedge, served
from tests.support.patience import PATIENCE


@pytest.mark.parametrize("name", ["blocking", "future", "aio"])
def test_a_request_stream_is_read_once(name: str) -> None:
    """The application's iterator gives each message once; each copy gets all of them."""
    given: list[str] = []

    class Reads(Way):
        @property
        def request(self) -> Any:
            return (given.append(text) or text for text in ("a", "b", "c"))

    with served("hang", "second") as service:
        assert Reads(name, Kind.STREAM_UNARY).call(service, hedge(2, 5 * SOON)) == "second"

    assert given == ["a", "b", "c"]
    assert [copy.requests for copy in service.copies] == [["a", "b", "c"]] * 2


@pytest.mark.parametrize("name", ["blocking", "future", "aio"])
def test_no_copy_gets_half_of_a_request_stream(name: str) -> None:
    """Where the buffer is too small, a later copy fails: a server never sees the end of a stream it saw in part."""

    def hedge_unkept(call: Call) -> Flow:
        yield call.buffered(1).hedged(copies=2, delay=FAR)

    with served(UNAVAILABLE, "second") as service, pytest.raises(grpc.RpcError):
        Way(name, Kind.STREAM_UNARY).call(service, hedge_unkept)

    assert [copy.requests for copy in service.copies if copy.whole] == [["a", "b", "c"]]


@pytest.mark.parametrize("name", ["blocking", "future", "aio"])
def test_a_copy_that_ends_early_leaves_the_stream_to_the_others(name: str) -> None:
    """A copy that fails while the stream still comes takes nothing with it: the next copy gets all of it."""
    with served((UNAVAILABLE,), "second") as service:
        way = Gated(name, Kind.STREAM_UNARY, service.second)
        assert way.call(service, hedge(2, FAR)) == "second"

    assert [copy.requests for copy in service.copies] == [["a"], ["a", "b", "c"]]


@pytest.mark.parametrize("name", ["blocking", "future", "aio"])
def test_copies_share_a_stream_that_still_comes(name: str) -> None:
    """While the application makes up its mind, every copy waits for the same next message."""
    with served("hang", "second") as service:
        way = Gated(name, Kind.STREAM_UNARY, service.second)
        assert way.call(service, hedge(2, SOON)) == "second"

    assert service.copies[1].requests == ["a", "b", "c"]


def test_a_stream_may_be_written_to_a_race() -> None:
    """On asyncio, `write` and `done_writing` feed every copy as a request iterator would."""

    async def main(service: Service) -> str:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), hedge(2, SOON))
        async with channel, asyncio.timeout(PATIENCE):
            call = Way("aio", Kind.STREAM_UNARY).stub(channel)()
            await call.write("a")
            assert await asyncio.to_thread(service.second.wait, PATIENCE)
            await call.write("b")
            await call.done_writing()
            return str(await call)

    with served("hang", "second") as service:
        assert asyncio.run(main(service)) == "second"

    assert service.copies[1].requests == ["a", "b"]
