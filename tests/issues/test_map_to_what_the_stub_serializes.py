"""A map may make of what the application gives what the stub serializes, also inside of what keeps the messages."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, Side, intercept_channel
from interpose.interceptors import Hedge, Retry
from interpose.testing import Place, failed, ok
from interpose.testing.echo import Echo, Stub
from tests.support.patience import PATIENCE

REFUSED = failed(grpc.StatusCode.UNAVAILABLE)
KINDS = [Kind.STREAM_UNARY, Kind.STREAM_STREAM]
PLACES = [Place(asyncio, Side.CLIENT, kind) for asyncio in (False, True) for kind in KINDS]


def names(call: Call) -> Flow:
    """Applications give numbers; the stub serializes text."""
    yield call.map(requests=lambda number: f"no. {number}")


@pytest.mark.parametrize("outside", [Retry(safe=True), Hedge(safe=True, delay=3600)], ids=["retry", "hedge"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_stream_that_is_sent_twice(place: Place, outside: Interceptor) -> None:
    """Each attempt maps the messages that the application gave, once."""
    with place.open(outside, names, script=[REFUSED, ok("done")]) as rpc:
        numbers: Any = (1, 2, 3)
        reply = rpc.call(*numbers, timeout=PATIENCE)

    assert reply.messages == ["done"]
    assert [attempt.requests for attempt in rpc.attempts] == [["no. 1", "no. 2", "no. 3"]] * 2


async def test_a_stream_that_is_written() -> None:
    """As well with `write`."""
    stack = (Retry(safe=True), names)
    async with (
        Echo([REFUSED, ok("done")]).serve_aio() as target,
        intercept_channel(grpc.aio.insecure_channel(target), *stack) as channel,
    ):
        call = Stub(channel).stream_unary(timeout=PATIENCE)
        await call.write(1)
        await call.write(2)
        await call.done_writing()

        assert await call == "done"


def keep(size: int, outcomes: list[Outcome]) -> Interceptor:
    def flow(call: Call) -> Flow:
        outcomes.append((yield call.buffered(size)))

    return flow


@pytest.mark.parametrize(("size", "kept"), [(len("no. 1no. 2no. 3"), True), (len("no. 1no. 2no. 3") - 1, False)])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_counts_is_what_is_sent(place: Place, size: int, kept: bool) -> None:
    """The buffer's limit is compared to the bytes behind the map: of what is in front of it nobody knows them."""
    outcomes: list[Outcome] = []
    with place.open(keep(size, outcomes), names, script=[REFUSED]) as rpc:
        numbers: Any = (1, 2, 3)
        rpc.call(*numbers, timeout=PATIENCE)

    (outcome,) = outcomes
    assert (outcome.requests, outcome.replayable) == (3, kept)


class Reused:
    """A message that its application changes and gives again."""

    text = ""


def reusing() -> Iterator[Reused]:
    message = Reused()
    for text in ("a", "b"):
        message.text = text
        yield message


async def reusing_later() -> AsyncIterator[Reused]:
    for message in reusing():
        yield message


def looks(call: Call) -> Flow:
    yield call.tap(requests=lambda message: None)


def encode(message: Reused) -> bytes:
    return message.text.encode()


def test_one_object_for_all_messages() -> None:
    """What is sent again is what was sent before, though the object is another by now: sync."""
    echo = Echo([REFUSED, ok("done")])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), Retry(safe=True), looks) as channel:
        channel.stream_unary("/interpose.testing.Echo/stream_unary", encode, bytes.decode)(reusing(), timeout=PATIENCE)

    assert [attempt.requests for attempt in echo.attempts] == [["a", "b"]] * 2


async def test_one_object_for_all_messages_on_asyncio() -> None:
    """And on asyncio."""
    echo = Echo([REFUSED, ok("done")])
    async with echo.serve_aio() as target:
        native = grpc.aio.insecure_channel(target)
        async with intercept_channel(native, Retry(safe=True), looks) as channel:
            stub = channel.stream_unary("/interpose.testing.Echo/stream_unary", encode, bytes.decode)
            await stub(reusing_later(), timeout=PATIENCE)

    assert [attempt.requests for attempt in echo.attempts] == [["a", "b"]] * 2
