"""Hedging response streams: what the application holds meanwhile, and what becomes of it."""

import asyncio
import gc
import threading
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Outcome, chain, errors, intercept_channel
from interpose.testing import FakeClock, no_task_leaks, play
from tests.hedging.serving import (
    AIO_WATCH,
    FAR,
    NO_CORE_RETRIES,
    READINGS,
    SOON,
    UNAVAILABLE,
    WATCH,
    Messages,
    Reading,
    Service,
    both_started,
    hedge,
    open_watch,
    served,
    told,
    watch,
)
from tests.support.patience import PATIENCE


def test_a_sync_stream_that_delivers_needs_no_copy() -> None:
    """However long it goes on after its first message: no delay counts any more."""
    clock, gate = FakeClock(), threading.Event()

    with served(Messages(("one",), gate, ("two",))) as service:
        channel, stream = open_watch(service, hedge(3, FAR), clock=clock)
        messages = [next(stream)]
        clock.advance(3 * FAR)
        gate.set()
        messages += stream
        channel.close()

    assert messages == ["one", "two"]
    assert len(service.copies) == 1


def test_an_asyncio_stream_that_delivers_needs_no_copy() -> None:
    """On asyncio as well."""
    clock, gate = FakeClock(), threading.Event()

    async def main(service: Service) -> list[str]:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, hedge(3, FAR), clock=clock) as channel, no_task_leaks():
            stream = AIO_WATCH.stub(channel)("a")
            first = await stream.read()
            clock.advance(3 * FAR)
            gate.set()
            return [first, await stream.read()]

    with served(Messages(("one",), gate, ("two",))) as service:
        messages = asyncio.run(main(service))

    assert messages == ["one", "two"]
    assert len(service.copies) == 1


@pytest.mark.parametrize("decided", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", ["cancel", "drop"])
def test_a_sync_stream_that_is_given_up(how: str, decided: bool) -> None:
    """Cancelled or dropped, before a copy has won and after: every handler knows, and the flows are told once."""
    gate, over, outcomes = threading.Event(), threading.Event(), list[Outcome]()
    second = Messages(("one",), gate, ("two",)) if decided else "hang"

    with served("hang", second) as service:
        channel, stream = open_watch(service, told(outcomes, over), hedge())
        both_started(service)
        if decided:
            assert next(stream) == "one"
        if how == "cancel":
            assert stream.cancel()
            assert stream.code() is grpc.StatusCode.CANCELLED
            assert stream.cancelled()
        del stream
        gc.collect()
        assert over.wait(PATIENCE)
        assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies)
        gate.set()
        channel.close()

    assert [(outcome.code, outcome.responses) for outcome in outcomes] == [(grpc.StatusCode.CANCELLED, int(decided))]


@pytest.mark.parametrize("decided", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", ["cancel", "drop"])
def test_an_asyncio_stream_that_is_given_up(how: str, decided: bool) -> None:
    """On asyncio as well; no task is left."""
    gate, outcomes = threading.Event(), list[Outcome]()

    async def main(service: Service) -> None:
        over = asyncio.Event()

        def tell(call: Call) -> Flow:
            outcomes.append((yield call))
            over.set()

        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), tell, hedge())
        async with channel, no_task_leaks():
            stream = AIO_WATCH.stub(channel)("a", timeout=PATIENCE)
            await asyncio.to_thread(both_started, service)
            if decided:
                assert await stream.read() == "one"
            if how == "cancel":
                assert stream.cancel()
                assert await stream.code() is grpc.StatusCode.CANCELLED
                assert stream.cancelled()
            del stream
            gc.collect()
            await asyncio.wait_for(over.wait(), PATIENCE)
            for copy in service.copies:
                assert await asyncio.to_thread(copy.cancelled.wait, PATIENCE)
            gate.set()

    with served("hang", Messages(("one",), gate, ("two",)) if decided else "hang") as service:
        asyncio.run(main(service))

    assert [(outcome.code, outcome.responses) for outcome in outcomes] == [(grpc.StatusCode.CANCELLED, int(decided))]


def test_a_sync_stream_tells_of_the_winner() -> None:
    """Its initial metadata, its code, and its end by callback; the handle is one like any other."""
    ended: list[grpc.StatusCode] = []

    with served("hang", "second") as service:
        channel, stream = open_watch(service, hedge())
        stream.add_done_callback(lambda call: ended.append(call.code()))
        initial = dict(stream.initial_metadata())
        active = stream.is_active()
        messages = list(stream)
        assert (stream.code(), stream.details(), stream.done()) == (grpc.StatusCode.OK, "", True)
        channel.close()

    assert initial["x-copy"] == "2"
    assert active
    assert messages == ["second 1", "second 2", "second 3"]
    assert ended == [grpc.StatusCode.OK]


def test_an_asyncio_stream_tells_of_the_winner() -> None:
    """On asyncio as well, with `read()`."""
    ended: list[bool] = []

    async def main(service: Service) -> tuple[Any, list[str], Any]:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), hedge())
        async with channel, no_task_leaks():
            stream = AIO_WATCH.stub(channel)("a", timeout=PATIENCE)
            stream.add_done_callback(lambda call: ended.append(call.done()))
            initial = dict(tuple(await stream.initial_metadata()))
            messages: list[str] = []
            while (message := await stream.read()) is not grpc.aio.EOF:
                messages.append(message)
            return initial, messages, await stream.code()

    with served("hang", "second") as service:
        initial, messages, code = asyncio.run(main(service))

    assert initial["x-copy"] == "2"
    assert messages == ["second 1", "second 2", "second 3"]
    assert code is grpc.StatusCode.OK
    assert ended == [True]


def test_initial_metadata_when_no_copy_delivers() -> None:
    """It is that of the failure which is the answer; nobody waits for ever."""
    with served(UNAVAILABLE, UNAVAILABLE) as service:
        channel, stream = open_watch(service, hedge(2, FAR))
        assert dict(stream.initial_metadata()).get("x-copy") is None
        assert stream.code() is UNAVAILABLE
        channel.close()


def test_a_chat_may_be_written_to_a_race() -> None:
    """On asyncio, `write` feeds every copy, and `read` reads the winner."""

    async def main(service: Service) -> list[str]:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), hedge(2, SOON))
        async with channel, no_task_leaks(), asyncio.timeout(PATIENCE):
            call = READINGS[3].stub(channel)()
            await call.write("a")
            assert await asyncio.to_thread(service.second.wait, PATIENCE)
            await call.write("b")
            await call.done_writing()
            return [await call.read() for _ in range(3)]

    with served("hang", "second") as service:
        assert asyncio.run(main(service)) == ["second 1", "second 2", "second 3"]

    assert [copy.requests for copy in service.copies] == [["a", "b"]] * 2


def test_closing_the_channel_ends_a_race_of_streams(reading: Reading) -> None:
    """Before a copy has won; the reader is told, and nothing is left."""
    outcomes: list[Outcome] = []

    async def main(service: Service) -> None:
        channel = intercept_channel(
            grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), watch(outcomes), hedge()
        )
        stream = reading.stub(channel)(reading.request)
        await asyncio.to_thread(both_started, service)
        await channel.close()
        assert await stream.code() is grpc.StatusCode.CANCELLED

    with served("hang", "hang") as service:
        if reading.asyncio:
            asyncio.run(main(service))
        else:
            channel = intercept_channel(
                grpc.insecure_channel(service.address, NO_CORE_RETRIES), watch(outcomes), hedge()
            )
            stream = reading.stub(channel)(reading.request)
            both_started(service)
            channel.close()
            assert stream.code() is grpc.StatusCode.CANCELLED

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.CANCELLED]


def test_a_reader_that_is_cancelled_cancels_every_copy() -> None:
    """A task that waits for the first message, on asyncio."""

    async def main(service: Service) -> None:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), hedge())
        async with channel, no_task_leaks():
            stream = AIO_WATCH.stub(channel)("a", timeout=PATIENCE)
            task = asyncio.ensure_future(stream.read())
            await asyncio.to_thread(both_started, service)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for copy in service.copies:
                assert await asyncio.to_thread(copy.cancelled.wait, PATIENCE)

    with served("hang", "hang") as service:
        asyncio.run(main(service))


def test_streams_inside_a_race_inside_a_race(reading: Reading) -> None:
    """Two hedges make copies of copies, and one stream wins over all of them."""
    with served("hang", "hang", "hang", "fourth") as service:
        messages = reading.read(service, hedge(2, 2 * SOON), hedge(2, SOON))
        assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies[:3])

    assert messages == ["fourth 1", "fourth 2", "fourth 3"]


@pytest.mark.slow
def test_many_streams_at_once() -> None:
    """Under load, with delays as long as answers take, each reader has one whole stream."""
    texts = ["first 1", "first 2", "first 3"]

    with (
        served(*["first"] * 10_000) as service,
        intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), hedge(3, 0.001)) as channel,
        futures.ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(lambda _: list(WATCH.stub(channel)("a", timeout=PATIENCE)), range(100)))

    assert found == [texts] * 100


def test_a_copy_that_is_cancelled_here_lets_no_other_go() -> None:
    """A scope that is over, or a channel that closes, would cancel the next one as well."""

    def gone(call: Call) -> Flow:
        raise errors.Cancelled("the incoming RPC is over", local=True)
        yield call

    def hedging(call: Call) -> Flow:
        yield call.hedged(copies=3, delay=1)

    played = play(chain(hedging, gone), [])

    assert played.outcome.code is grpc.StatusCode.CANCELLED and played.elapsed == 0
