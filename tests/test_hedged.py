"""Hedging: copies of a call that race, blocking, as a future, and on asyncio."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, errors, intercept_channel
from interpose.testing.echo import decode, encode

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
PATIENCE = 10.0  # seconds; what takes so long has hung
FAR = 3600.0  # a delay that no test waits for
SOON = 0.01
PATH = "/hedged.Service/Call"
NO_CORE_RETRIES = [("grpc.enable_retries", 0)]

# What a copy gets: an answer, a failure, "hang", an answer once this event is set, or a failure before it has read on.
Act = str | grpc.StatusCode | threading.Event | tuple[grpc.StatusCode]


@dataclass
class Copy:
    """One copy as the server saw it."""

    metadata: dict[str, Any]
    requests: list[str] = field(default_factory=list)
    whole: bool = False  # the stream came to its end
    cancelled: threading.Event = field(default_factory=threading.Event)


class Service:
    """Gives each copy the next act of its script."""

    def __init__(self, *acts: Act, on_start: Callable[[int], object] = lambda number: None) -> None:
        self._acts = iter(acts)
        self._on_start = on_start
        self.copies: list[Copy] = []
        self.started = threading.Semaphore(0)
        self.second = threading.Event()  # a second copy has come
        self.address = ""

    async def unary(self, request: str, context: Any) -> str:
        return await self._copy(_only(request), context)

    async def stream(self, requests: AsyncIterator[str], context: Any) -> str:
        return await self._copy(requests, context)

    async def _copy(self, requests: AsyncIterator[str], context: Any) -> str:
        act = next(self._acts, "late")
        copy = Copy(dict(context.invocation_metadata()))
        self.copies.append(copy)
        if len(self.copies) == 2:
            self.second.set()
        try:
            async for request in requests:
                copy.requests.append(request)
                if isinstance(act, tuple):
                    await context.abort(act[0], "before the end of the stream")
            copy.whole = True
            self.started.release()
            self._on_start(len(self.copies))
            if act == "hang":
                await asyncio.Event().wait()
            if isinstance(act, threading.Event):
                await asyncio.to_thread(act.wait, PATIENCE)
                return "slow"
            if isinstance(act, grpc.StatusCode):
                await context.abort(act, f"copy {len(self.copies)}")
        except asyncio.CancelledError:
            copy.cancelled.set()
            raise
        return str(act)

    @property
    def handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            "Call": grpc.unary_unary_rpc_method_handler(self.unary, decode, encode),
            "Stream": grpc.stream_unary_rpc_method_handler(self.stream, decode, encode),
        }
        return grpc.method_handlers_generic_handler("hedged.Service", methods)


async def _only(request: str) -> AsyncIterator[str]:
    yield request


@contextmanager
def served(*acts: Act, on_start: Callable[[int], object] = lambda number: None) -> Iterator[Service]:
    """An asyncio server on a thread of its own, where a handler that is cancelled knows it."""
    service = Service(*acts, on_start=on_start)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service.handlers,))
        service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server

    async def stop() -> None:
        await server.stop(None)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=PATIENCE)
        await loop.shutdown_default_executor()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE)
    try:
        yield service
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


@dataclass(frozen=True)
class Way:
    """A way to make a call with a unary response."""

    name: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name}-{self.kind.value}"

    def call(self, service: Service, *stack: Interceptor, timeout: float | None = PATIENCE) -> Any:
        """The response; raises the failure."""
        if self.name == "aio":
            return asyncio.run(self._call(service, stack, timeout))
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            stub = self.stub(channel)
            if self.name == "blocking":
                return stub(self.request, timeout=timeout)
            return stub.future(self.request, timeout=timeout).result(PATIENCE)

    async def _call(self, service: Service, stack: tuple[Interceptor, ...], timeout: float | None) -> Any:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), *stack)
        async with channel:
            return await asyncio.wait_for(self.stub(channel)(self.request, timeout=timeout), PATIENCE)

    def stub(self, channel: Any) -> Any:
        if self.kind is Kind.UNARY_UNARY:
            return channel.unary_unary(PATH, encode, decode)
        return channel.stream_unary("/hedged.Service/Stream", encode, decode)

    @property
    def request(self) -> Any:
        return "a" if self.kind is Kind.UNARY_UNARY else iter(["a", "b", "c"])

    @property
    def requests(self) -> list[str]:
        return ["a"] if self.kind is Kind.UNARY_UNARY else ["a", "b", "c"]


WAYS = [Way(name, kind) for name in ("blocking", "future", "aio") for kind in (Kind.UNARY_UNARY, Kind.STREAM_UNARY)]


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in turn."""
    found: Way = request.param
    return found


def hedge(copies: int = 2, delay: float = SOON) -> Interceptor:
    def flow(call: Call) -> Flow:
        yield call.hedged(copies=copies, delay=delay)

    return flow


def watch(outcomes: list[Outcome]) -> Interceptor:
    def flow(call: Call) -> Flow:
        outcomes.append((yield call))

    return flow


def test_the_first_good_answer_wins(way: Way) -> None:
    """The first copy hangs, the second answers; the first is cancelled, and its handler knows."""
    above: list[Outcome] = []
    below: list[Outcome] = []

    with served("hang", "second") as service:
        response = way.call(service, watch(above), hedge(), watch(below))
        assert service.copies[0].cancelled.wait(PATIENCE)

    assert response == "second"
    assert [copy.requests for copy in service.copies] == [way.requests] * 2
    [outcome] = above
    assert outcome.ok
    assert outcome.attempts == 2
    assert sorted(outcome.code.name for outcome in below) == ["CANCELLED", "OK"]


def test_a_quick_answer_needs_one_copy(way: Way) -> None:
    """If the first answers before the delay has passed, no second is sent, and nothing is left that would send it."""
    outcomes: list[Outcome] = []

    with served("first") as service:
        response = way.call(service, watch(outcomes), hedge(3, FAR))

    assert response == "first"
    assert len(service.copies) == outcomes[0].attempts == 1


def test_a_failure_lets_the_next_copy_go_at_once(way: Way) -> None:
    """Nobody waits for the delay after a copy has failed."""
    outcomes: list[Outcome] = []

    with served(UNAVAILABLE, UNAVAILABLE, "third") as service:
        response = way.call(service, watch(outcomes), hedge(3, FAR))

    assert response == "third"
    assert len(service.copies) == outcomes[0].attempts == 3


def test_if_all_fail_the_last_failure_stands(way: Way) -> None:
    """The caller sees the failure of the last copy, typed and native."""
    outcomes: list[Outcome] = []

    with (
        served(UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND) as service,
        pytest.raises(errors.NotFound, match="copy 3") as failure,
    ):
        way.call(service, watch(outcomes), hedge(3, FAR))

    assert isinstance(failure.value, grpc.RpcError)
    assert outcomes[0].attempts == len(service.copies) == 3
    assert not outcomes[0].local


def test_a_failure_while_another_copy_runs(way: Way) -> None:
    """A copy that fails when all have been sent leaves the answer to those that run."""
    failed = threading.Event()

    def tell(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            failed.set()

    with served(failed, UNAVAILABLE) as service:
        assert way.call(service, hedge(), tell) == "slow"

    assert len(service.copies) == 2


def test_the_deadline_is_that_of_all_copies(way: Way) -> None:
    """It is fixed when the stub is called; at its end all copies end."""
    outcomes: list[Outcome] = []

    with served("hang", "hang") as service:
        with pytest.raises(errors.DeadlineExceeded):
            way.call(service, watch(outcomes), hedge(2, SOON), timeout=0.3)
        assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies)

    assert outcomes[0].code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcomes[0].attempts == len(service.copies) == 2


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
def test_cancelling_a_future_cancels_every_copy(kind: Kind) -> None:
    """`cancel()` ends the race; the flows are told, once, and each handler knows."""
    way, outcomes = Way("future", kind), list[Outcome]()

    with served("hang", "hang") as service:
        stack = (watch(outcomes), hedge(3, SOON))
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            call = way.stub(channel).future(way.request, timeout=PATIENCE)
            for _ in range(2):
                assert service.started.acquire(timeout=PATIENCE)
            assert call.cancel()
            assert not call.cancel()
            with pytest.raises(grpc.FutureCancelledError):
                call.result(PATIENCE)
            assert call.code() is grpc.StatusCode.CANCELLED
            assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies[:2])

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.CANCELLED]


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
@pytest.mark.parametrize("how", ["call", "task"])
def test_cancelling_on_asyncio_cancels_every_copy(kind: Kind, how: str) -> None:
    """The call's `cancel()`, or a cancelled task that awaits it, ends the race; each handler knows."""
    way, outcomes = Way("aio", kind), list[Outcome]()

    async def main(service: Service) -> None:
        stack = (watch(outcomes), hedge(2, SOON))
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), *stack)
        async with channel:
            call = way.stub(channel)(way.request, timeout=PATIENCE)
            task = asyncio.ensure_future(_await(call))
            for _ in range(2):
                assert await asyncio.to_thread(service.started.acquire, timeout=PATIENCE)
            assert (call if how == "call" else task).cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert call.cancelled()
            for copy in service.copies:
                assert await asyncio.to_thread(copy.cancelled.wait, PATIENCE)

    with served("hang", "hang") as service:
        asyncio.run(main(service))

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.CANCELLED]


async def _await(call: Any) -> Any:
    return await call


def test_closing_the_channel_ends_a_race() -> None:
    """A future on a closed channel ends; the copy that was to come is not sent."""
    with served("hang") as service:
        channel = intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), hedge(2, FAR))
        call = Way("future", Kind.UNARY_UNARY).stub(channel).future("a")
        assert service.started.acquire(timeout=PATIENCE)

        channel.close()

        assert isinstance(call.exception(PATIENCE), BaseException)
    assert len(service.copies) == 1


def test_each_copy_runs_the_layers_below(way: Way) -> None:
    """What stands below the hedge sees each copy, and may change it."""
    numbers = itertools.count(1)

    def mark(call: Call) -> Flow:
        yield call.with_metadata(("x-copy", str(next(numbers))))

    with served(UNAVAILABLE, "second") as service:
        assert way.call(service, hedge(2, FAR), mark) == "second"

    assert [copy.metadata["x-copy"] for copy in service.copies] == ["1", "2"]


def test_a_layer_below_that_refuses_fails_its_copy(way: Way) -> None:
    """A copy that is refused here was never sent, and lets the next one go."""
    numbers = itertools.count()
    outcomes: list[Outcome] = []

    def refuse_first(call: Call) -> Flow:
        if next(numbers) == 0:
            raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served("sent") as service:
        assert way.call(service, watch(outcomes), hedge(2, FAR), refuse_first) == "sent"

    assert outcomes[0].attempts == len(service.copies) == 1


def test_if_every_copy_is_refused_here_nothing_is_sent(way: Way) -> None:
    """A race may end before anything was sent."""

    def refuse(call: Call) -> Flow:
        raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served() as service, pytest.raises(errors.Unavailable, match="the breaker is open") as failure:
        way.call(service, hedge(3, FAR), refuse)

    assert failure.value.local
    assert service.copies == []


def test_a_race_may_be_run_again(way: Way) -> None:
    """A retry above a hedge sends the race again, and counts all copies."""
    outcomes: list[Outcome] = []

    def twice(call: Call) -> Flow:
        outcome = yield call
        outcomes.append(outcome)
        if outcome.replayable:
            outcomes.append((yield call.after(SOON)))

    with served(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, "fourth") as service:
        assert way.call(service, twice, hedge(2, FAR)) == "fourth"

    assert [outcome.attempts for outcome in outcomes] == [2, 4]


def test_a_race_inside_a_race(way: Way) -> None:
    """Two hedges make copies of copies, and one answer wins over all of them."""
    with served("hang", "hang", "hang", "fourth") as service:
        assert way.call(service, hedge(2, 2 * SOON), hedge(2, SOON)) == "fourth"
        assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies[:3])


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


@dataclass(frozen=True)
class Gated(Way):
    """Gives the second message of its stream only when the server has seen a second copy."""

    gate: threading.Event

    @property
    def request(self) -> Any:
        return self._later() if self.name == "aio" else self._blocking()

    def _blocking(self) -> Iterator[str]:
        yield "a"
        assert self.gate.wait(PATIENCE)
        yield from ("b", "c")

    async def _later(self) -> AsyncIterator[str]:
        yield "a"
        assert await asyncio.to_thread(self.gate.wait, PATIENCE)
        for text in ("b", "c"):
            yield text


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


def test_many_races_at_once() -> None:
    """Under load, with delays as long as answers take, each call has its answer and no copy is left behind."""
    with served(*["first"] * 10_000) as service:
        stack = (hedge(3, 0.001),)
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            stub = channel.unary_unary(PATH, encode, decode)
            with futures.ThreadPoolExecutor(8) as pool:
                blocking = list(pool.map(lambda _: stub("a", timeout=PATIENCE), range(100)))
            futured = [stub.future("a", timeout=PATIENCE) for _ in range(100)]
            assert [call.result(PATIENCE) for call in futured] == ["first"] * 100
    assert blocking == ["first"] * 100
