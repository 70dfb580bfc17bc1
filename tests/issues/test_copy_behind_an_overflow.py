"""A hedged upload that outgrows its buffer goes on in the copy that is in front; one that fell behind is no answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Method, Outcome, errors, intercept_channel
from interpose._call import Overflowed
from interpose._flow import Driver, Race, layers
from interpose.interceptors import Hedge
from tests.hedging.serving import FAR, NO_CORE_RETRIES, SOON, Gated, served
from tests.support.patience import PATIENCE

BIG = (
    "m" * 100_000
)  # more than HTTP/2's first window: a copy whose server does not read comes no further than two of them
COUNT = 8
BUFFER = 2 * len(BIG) + 1
WAYS = ["blocking", "future", "aio"]


class Uploads:
    """The first copy is read to its end; the second only once the first is whole, and its end lets the first answer."""

    def __init__(self) -> None:
        self.second_came, self.first_whole, self.second_over = (threading.Event() for _ in range(3))
        self._copies = 0
        self._lock = threading.Lock()

    def handle(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self._copies += 1
            number = self._copies
        if number == 1:
            count = sum(1 for _ in requests)
            self.first_whole.set()
            assert self.second_over.wait(PATIENCE)
            return b"%d messages" % count
        context.add_callback(self.second_over.set)
        self.second_came.set()
        assert self.first_whole.wait(PATIENCE)
        return b"%d messages, of a part" % sum(1 for _ in requests)

    def messages(self) -> Iterator[bytes]:
        yield BIG.encode()
        assert self.second_came.wait(PATIENCE)
        for _ in range(COUNT - 1):
            yield BIG.encode()

    async def messages_later(self) -> AsyncIterator[bytes]:
        yield BIG.encode()
        assert await asyncio.to_thread(self.second_came.wait, PATIENCE)
        for _ in range(COUNT - 1):
            yield BIG.encode()

    @contextmanager
    def serve(self) -> Iterator[str]:
        with futures.ThreadPoolExecutor(4) as pool:
            server = grpc.server(pool, options=[("grpc.http2.bdp_probe", 0)])  # the window stays as it is
            method = {"Put": grpc.stream_unary_rpc_method_handler(self.handle)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Uploads", method),))
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            yield f"127.0.0.1:{port}"
            server.stop(None).wait()


async def put_on_asyncio(address: str, uploads: Uploads, hedge: Hedge) -> Any:
    async with intercept_channel(grpc.aio.insecure_channel(address, NO_CORE_RETRIES), hedge) as channel:
        return await channel.stream_unary("/Uploads/Put")(uploads.messages_later(), timeout=PATIENCE)


@pytest.mark.parametrize("way", WAYS)
def test_the_copy_in_front_answers(way: str) -> None:
    """The one behind needs what is no longer kept: it ends, and the other goes on to its answer."""
    uploads, hedge = Uploads(), Hedge(delay=SOON, safe=True, buffer=BUFFER)
    with uploads.serve() as address:
        if way == "aio":
            answer = asyncio.run(put_on_asyncio(address, uploads, hedge))
        else:
            with intercept_channel(grpc.insecure_channel(address, NO_CORE_RETRIES), hedge) as channel:
                stub = channel.stream_unary("/Uploads/Put")
                start = stub if way == "blocking" else lambda *a, **k: stub.future(*a, **k).result(PATIENCE)
                answer = start(uploads.messages(), timeout=PATIENCE)

    assert answer == b"8 messages"


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_that_waits_for_the_same_message_goes_on(way: str) -> None:
    """Both have had all that came before the message that is too much: each of them gets it."""
    seen: list[str] = []
    both = threading.Event()

    def look(message: str) -> None:
        seen.append(message)
        if seen == ["a", "a"]:
            both.set()

    def hedge(call: Call) -> Flow:
        yield call.buffered(1).tap(requests=look).hedged(copies=2, delay=SOON)

    class Overflowing(Gated):
        def _blocking(self) -> Iterator[str]:
            yield "a"
            assert self.gate.wait(PATIENCE)
            yield "too much"

        async def _later(self) -> AsyncIterator[str]:
            yield "a"
            assert await asyncio.to_thread(self.gate.wait, PATIENCE)
            yield "too much"

    with served("hang", "second") as service:
        assert Overflowing(way, Kind.STREAM_UNARY, both).call(service, hedge) == "second"

    assert service.copies[1].requests == ["a", "too much"]


def race() -> Race:
    def hedge(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=FAR, verdict=lambda outcome: None)

    method = Method("/a/b", Kind.STREAM_UNARY)
    step = Driver(layers((hedge,), method)).start(Call(method))
    assert isinstance(step, Race)
    return step


def test_what_it_means_for_the_race() -> None:
    """Whatever the verdict is on other failures: wait for the others. What failed before stays the answer."""
    behind = Outcome.failure(Overflowed("", local=True))
    failed = Outcome.failure(errors.Unavailable("down"))
    alone, after = race(), race()

    assert alone.pause_after(behind, 0.0, alone=True) == float("inf")
    assert alone.failure is behind
    assert after.pause_after(failed, 0.0, alone=False) is None
    assert after.pause_after(behind, 0.0, alone=True) == float("inf")
    assert after.failure is failed
