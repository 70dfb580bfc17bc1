"""Hedging: copies of a call that race, blocking, as a future, as a stream, and on asyncio."""

import asyncio
import gc
import itertools
import logging
import math
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, chain, errors, intercept_channel
from interpose._clock import SYSTEM, Clock
from interpose.testing import FakeClock, no_task_leaks, play
from interpose.testing.echo import decode, encode

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
PATIENCE = 10.0  # seconds; what takes so long has hung
FAR = 3600.0  # a delay that no test waits for
SOON = 0.01
PATH = "/hedged.Service/Call"
NO_CORE_RETRIES = [("grpc.enable_retries", 0)]


@dataclass(frozen=True)
class Messages:
    """A stream of responses: some, more of them once the gate is open, and the end.

    together: copies that have to be there before any of them delivers. pause: seconds in front of each message.
    """

    texts: tuple[str, ...] = ()
    gate: threading.Event | None = None
    more: tuple[str, ...] = ()
    end: grpc.StatusCode = grpc.StatusCode.OK
    together: int = 0
    pause: float = 0.0

    async def all(self) -> AsyncIterator[str]:
        for text in self.texts:
            await asyncio.sleep(self.pause)
            yield text
        if self.gate is not None:
            assert await asyncio.to_thread(self.gate.wait, PATIENCE)
        for text in self.more:
            yield text


# What a copy gets: an answer, a failure, "hang", an answer once this event is set, a failure before it has read on, or a
# stream. A response stream that is given an answer has three messages: "second 1", "second 2", "second 3".
Act = str | grpc.StatusCode | threading.Event | tuple[grpc.StatusCode] | Messages


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
        self._arrived = asyncio.Condition()

    async def unary(self, request: str, context: Any) -> str:
        return await self._copy(_only(request), context)

    async def stream(self, requests: AsyncIterator[str], context: Any) -> str:
        return await self._copy(requests, context)

    async def watch(self, request: str, context: Any) -> AsyncIterator[str]:
        async for message in self._stream(_only(request), context):
            yield message

    async def chat(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        async for message in self._stream(requests, context):
            yield message

    def _begin(self, context: Any) -> tuple[Act, Copy]:
        """Another copy has come."""
        act = next(self._acts, "late")
        copy = Copy(dict(context.invocation_metadata()))
        self.copies.append(copy)
        if len(self.copies) == 2:
            self.second.set()
        return act, copy

    async def _stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        act, copy = self._begin(context)
        try:
            async for request in requests:
                copy.requests.append(request)
            copy.whole = True
            self.started.release()
            if act == "hang":
                await asyncio.Event().wait()
            if isinstance(act, grpc.StatusCode):
                await context.abort(act, f"copy {len(self.copies)}")
            messages = act if isinstance(act, Messages) else Messages(tuple(f"{act} {number}" for number in (1, 2, 3)))
            await self._meet(messages.together)
            await context.send_initial_metadata((("x-copy", str(self.copies.index(copy) + 1)),))
            async for message in messages.all():
                yield message
            if messages.end is not grpc.StatusCode.OK:
                await context.abort(messages.end, "broken")
        except (asyncio.CancelledError, GeneratorExit):  # the latter while grpc was sending
            copy.cancelled.set()
            raise

    async def _meet(self, together: int) -> None:
        async with self._arrived:
            self._arrived.notify_all()
            await self._arrived.wait_for(lambda: len(self.copies) >= together)

    async def _copy(self, requests: AsyncIterator[str], context: Any) -> str:
        act, copy = self._begin(context)
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
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, decode, encode),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, decode, encode),
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

    def call(
        self, service: Service, *stack: Interceptor, timeout: float | None = PATIENCE, clock: Clock = SYSTEM
    ) -> Any:
        """The response; raises the failure."""
        if self.name == "aio":
            return asyncio.run(self._call(service, stack, timeout, clock))
        native = grpc.insecure_channel(service.address, NO_CORE_RETRIES)
        with intercept_channel(native, *stack, clock=clock) as channel:
            stub = self.stub(channel)
            if self.name == "blocking":
                return stub(self.request, timeout=timeout)
            return stub.future(self.request, timeout=timeout).result(PATIENCE)

    async def _call(self, service: Service, stack: tuple[Interceptor, ...], timeout: float | None, clock: Clock) -> Any:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, *stack, clock=clock) as channel:
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

    with served("hang", "hang", "hang") as service:
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

    with served("hang", "hang", "hang") as service:
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


# --- verdict and ready ----------------------------------------------------------------------------------------------


def ruled(verdict: Any = None, ready: Any = None, copies: int = 3, delay: float = FAR) -> Interceptor:
    def flow(call: Call) -> Flow:
        yield call.hedged(copies=copies, delay=delay, verdict=verdict, ready=ready)

    return flow


def test_a_verdict_may_end_the_race(way: Way) -> None:
    """None: this failure is the answer, whatever else runs; the others are cancelled."""
    with served("hang", UNAVAILABLE) as service, pytest.raises(errors.Unavailable):
        try:
            way.call(service, ruled(lambda outcome: None, copies=2, delay=SOON))
        finally:
            assert service.copies[0].cancelled.wait(PATIENCE)

    assert len(service.copies) == 2


def test_a_verdict_may_choose_a_pause(way: Way) -> None:
    """So many seconds later the next copy goes, though the delay would be an hour."""
    told: list[str] = []

    def soon(outcome: Outcome) -> float:
        told.append(outcome.details)
        return SOON

    with served(UNAVAILABLE, UNAVAILABLE, "third") as service:
        assert way.call(service, ruled(soon)) == "third"

    assert told == ["copy 1", "copy 2"]


def test_a_verdict_may_want_no_more(way: Way) -> None:
    """Infinity: those that run are waited for; where none does, the failure is the answer."""
    clock, failed = FakeClock(), threading.Event()

    def no_more(outcome: Outcome) -> float:
        failed.set()
        return math.inf

    def let_the_delay_pass(copies: int) -> None:
        if copies == 1:
            clock.advance(FAR)

    with served(failed, UNAVAILABLE, "third", on_start=let_the_delay_pass) as service:
        assert way.call(service, ruled(no_more), timeout=None, clock=clock) == "slow"
    with served(UNAVAILABLE, "second") as alone, pytest.raises(errors.Unavailable, match="copy 1"):
        way.call(alone, ruled(no_more), timeout=None)

    assert (len(service.copies), len(alone.copies)) == (2, 1)


def test_a_pause_with_no_copies_left(way: Way) -> None:
    """The last failure is the answer, at once."""
    with served(UNAVAILABLE, UNAVAILABLE, "third") as service, pytest.raises(errors.Unavailable, match="copy 2"):
        way.call(service, ruled(lambda outcome: SOON, copies=2))

    assert len(service.copies) == 2


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What Interpose logged; older versions of grpc.aio have asyncio log as well."""
    return [record.getMessage() for record in caplog.records if record.name == "interpose"]


def test_a_verdict_that_fails_is_logged(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """The failure it was told is the answer."""

    def broken(outcome: Outcome) -> float:
        raise KeyError(outcome.details)

    with (
        caplog.at_level(logging.ERROR, "interpose"),
        served(UNAVAILABLE, "second") as service,
        pytest.raises(errors.Unavailable),
    ):
        way.call(service, ruled(broken))

    assert said(caplog) == ["the verdict of a hedged call failed; the failure it was told is the answer"]


def test_ready_is_asked_before_each_copy_but_the_first(way: Way) -> None:
    """At false there are no more, and those that run are waited for."""
    answers = iter([True, False])

    with served(UNAVAILABLE, UNAVAILABLE, "third") as service, pytest.raises(errors.Unavailable, match="copy 2"):
        way.call(service, ruled(ready=lambda: next(answers)))

    assert len(service.copies) == 2
    assert list(answers) == []


def test_the_delay_passes_and_no_copy_may_go(way: Way) -> None:
    """The first one is waited for."""
    asked = threading.Event()

    def refuse() -> bool:
        asked.set()
        return False

    with served(asked, "second") as service:
        assert way.call(service, ruled(ready=refuse, delay=SOON)) == "slow"

    assert len(service.copies) == 1


def test_ready_that_fails_is_logged(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """No more copies are sent."""

    def broken() -> bool:
        raise KeyError

    with (
        caplog.at_level(logging.ERROR, "interpose"),
        served(UNAVAILABLE, "second") as service,
        pytest.raises(errors.Unavailable, match="copy 1"),
    ):
        way.call(service, ruled(ready=broken))

    assert said(caplog) == ["`ready` of a hedged call failed; no more copies are sent"]


def test_a_hundred_copies_that_are_refused_here(way: Way) -> None:
    """Each lets the next one go at once, and the stack bears it."""

    def refuse(call: Call) -> Flow:
        raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served() as service, pytest.raises(errors.Unavailable, match="the breaker is open"):
        way.call(service, ruled(copies=100), refuse)

    assert service.copies == []


@pytest.mark.parametrize("name", ["blocking", "future"])
def test_the_race_is_decided_while_ready_is_asked(name: str) -> None:
    """A yes that comes too late sends nothing."""
    asked, over = threading.Event(), threading.Event()

    def late_yes() -> bool:
        asked.set()
        return over.wait(PATIENCE)

    def tell(call: Call) -> Flow:
        yield call
        over.set()

    with served(asked, "second") as service:
        assert Way(name, Kind.UNARY_UNARY).call(service, tell, ruled(ready=late_yes, delay=SOON)) == "slow"

    assert len(service.copies) == 1


def test_a_future_is_cancelled_while_the_verdict_is_asked() -> None:
    """A verdict that comes too late changes nothing."""
    begun, asked, cancelled = threading.Event(), threading.Event(), threading.Event()

    def late(outcome: Outcome) -> None:
        asked.set()
        assert cancelled.wait(PATIENCE)

    # It fails only when the application has its future: before, the verdict would be asked on the application's thread.
    with served(UNAVAILABLE, on_start=lambda copies: begun.wait(PATIENCE)) as service:
        channel = intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), ruled(late))
        call = Way("future", Kind.UNARY_UNARY).stub(channel).future("a", timeout=PATIENCE)
        begun.set()
        assert asked.wait(PATIENCE)
        assert call.cancel()
        cancelled.set()
        assert call.code() is grpc.StatusCode.CANCELLED
        channel.close()

    assert len(service.copies) == 1


def test_an_asyncio_call_is_cancelled_by_its_verdict() -> None:
    """What the verdict says then changes nothing."""
    calls: list[Any] = []

    def cancel(outcome: Outcome) -> None:
        calls[0].cancel()

    async def main(service: Service) -> None:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, ruled(cancel)) as channel:
            calls.append(Way("aio", Kind.UNARY_UNARY).stub(channel)("a", timeout=PATIENCE))
            assert await calls[0].code() is grpc.StatusCode.CANCELLED

    with served(UNAVAILABLE) as service:
        asyncio.run(main(service))

    assert len(service.copies) == 1


def test_an_asyncio_call_is_cancelled_when_the_next_copy_is_due() -> None:
    """The loop had been told to start it, and does not."""
    clock = FakeClock()

    async def main(service: Service) -> None:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, hedge(2, FAR), clock=clock) as channel:
            call = Way("aio", Kind.UNARY_UNARY).stub(channel)("a")
            assert await asyncio.to_thread(service.started.acquire, timeout=PATIENCE)
            clock.advance(FAR)
            assert call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED

    with served("hang", "second") as service:
        asyncio.run(main(service))

    assert len(service.copies) == 1


# --- response streams -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """A way to read a response stream."""

    asyncio: bool
    kind: Kind

    def __str__(self) -> str:
        return f"{'aio' if self.asyncio else 'sync'}-{self.kind.value}"

    def read(self, service: Service, *stack: Interceptor, timeout: float | None = PATIENCE) -> list[str]:
        """All messages; what it fails with is raised."""
        messages: list[str] = []
        self.into(messages, service, *stack, timeout=timeout)
        return messages

    def into(
        self, messages: list[str], service: Service, *stack: Interceptor, timeout: float | None = PATIENCE
    ) -> None:
        """All messages, those before a failure included."""
        if self.asyncio:
            asyncio.run(self._into(messages, service, stack, timeout))
            return
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            for message in self.stub(channel)(self.request, timeout=timeout):
                messages.append(message)  # noqa: PERF402  what came before a failure counts

    async def _into(
        self, messages: list[str], service: Service, stack: tuple[Interceptor, ...], timeout: float | None
    ) -> None:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), *stack)
        async with channel, no_task_leaks():
            async for message in self.stub(channel)(self.request, timeout=timeout):
                messages.append(message)  # noqa: PERF401  what came before a failure counts

    def stub(self, channel: Any) -> Any:
        if self.kind is Kind.UNARY_STREAM:
            return channel.unary_stream("/hedged.Service/Watch", encode, decode)
        return channel.stream_stream("/hedged.Service/Chat", encode, decode)

    @property
    def request(self) -> Any:
        return "a" if self.kind is Kind.UNARY_STREAM else iter(["a", "b", "c"])

    @property
    def requests(self) -> list[str]:
        return ["a"] if self.kind is Kind.UNARY_STREAM else ["a", "b", "c"]


STREAMS = [Kind.UNARY_STREAM, Kind.STREAM_STREAM]
READINGS = [Reading(on_asyncio, kind) for on_asyncio in (False, True) for kind in STREAMS]
WATCH = READINGS[0]
AIO_WATCH = READINGS[2]


@pytest.fixture(params=READINGS, ids=str)
def reading(request: pytest.FixtureRequest) -> Reading:
    """Each way to read in turn."""
    found: Reading = request.param
    return found


def test_the_first_stream_to_deliver_wins(reading: Reading) -> None:
    """It goes on to its end; the other is cancelled, and its handler knows."""
    above: list[Outcome] = []
    below: list[Outcome] = []

    with served("hang", "second") as service:
        messages = reading.read(service, watch(above), hedge(), watch(below))
        assert service.copies[0].cancelled.wait(PATIENCE)

    assert messages == ["second 1", "second 2", "second 3"]
    assert [copy.requests for copy in service.copies] == [reading.requests] * 2
    [outcome] = above
    assert (outcome.ok, outcome.attempts, outcome.responses) == (True, 2, 3)
    assert sorted(outcome.code.name for outcome in below) == ["CANCELLED", "OK"]


def test_an_empty_stream_that_ends_well_wins(reading: Reading) -> None:
    """To have nothing to say is an answer; the other copy is cancelled."""
    with served("hang", Messages()) as service:
        assert reading.read(service, hedge()) == []
        assert service.copies[0].cancelled.wait(PATIENCE)


def test_a_winner_that_breaks_is_the_answer(reading: Reading) -> None:
    """A stream that fails after its first message has failed: no other copy is sent, no message comes twice."""
    messages: list[str] = []

    with served(Messages(("one",), end=UNAVAILABLE), "second") as service, pytest.raises(errors.Unavailable):
        reading.into(messages, service, hedge(3, FAR))

    assert messages == ["one"]
    assert len(service.copies) == 1


def test_a_stream_that_fails_before_its_first_message(reading: Reading) -> None:
    """It lets the next copy go at once; if all do so, the last failure is the answer."""
    with served(UNAVAILABLE, "second") as service:
        messages = reading.read(service, hedge(2, FAR))
    with served(UNAVAILABLE, grpc.StatusCode.NOT_FOUND) as hopeless, pytest.raises(errors.NotFound, match="copy 2"):
        reading.read(hopeless, hedge(2, FAR))

    assert messages == ["second 1", "second 2", "second 3"]
    assert (len(service.copies), len(hopeless.copies)) == (2, 2)


def test_two_deliver_at_the_same_moment(reading: Reading) -> None:
    """One of them is taken as a whole; of the other nothing is seen."""
    for _ in range(20):
        acts = [Messages(tuple(f"{name} {number}" for number in range(4)), together=3) for name in ("a", "b", "c")]
        with served(*acts) as service:
            messages = reading.read(service, hedge(3, 0))

        assert messages in [list(act.texts) for act in acts]


def test_the_deadline_ends_all_streams(reading: Reading) -> None:
    """Before any has delivered, and after one has."""
    gate = threading.Event()

    with served("hang", "hang") as service, pytest.raises(errors.DeadlineExceeded):
        reading.read(service, hedge(), timeout=0.3)
    with served("hang", Messages(("one",), gate)) as late, pytest.raises(errors.DeadlineExceeded):
        try:
            reading.read(late, hedge(), timeout=0.3)
        finally:
            gate.set()

    assert all(copy.cancelled.is_set() for copy in service.copies)


def test_hooks_see_what_is_delivered_once(reading: Reading) -> None:
    """Taps and maps, further out and further in, and in order."""
    outer: list[str] = []
    inner: list[str] = []

    def out(call: Call) -> Flow:
        yield call.tap(responses=outer.append)

    def shout(call: Call) -> Flow:
        yield call.map(responses=str.upper).tap(responses=inner.append)

    with served("hang", "second") as service:
        messages = reading.read(service, out, hedge(), shout)

    assert messages == outer == ["SECOND 1", "SECOND 2", "SECOND 3"]
    assert inner == ["second 1", "second 2", "second 3"]


@pytest.mark.parametrize("reading", [WATCH, AIO_WATCH], ids=str)
def test_a_winner_may_be_resumed(reading: Reading) -> None:
    """A flow below the race that sends again goes on behind what was delivered."""

    def resume(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok and outcome.responses:
            yield call.with_request("the rest").resumed()

    with served(Messages(("one",), end=UNAVAILABLE), Messages(("two", "three"))) as service:
        assert reading.read(service, hedge(2, FAR), resume) == ["one", "two", "three"]

    assert [copy.requests for copy in service.copies] == [["a"], ["the rest"]]


def test_a_copy_that_is_answered_here_wins(reading: Reading) -> None:
    """A cache below the race, say: nothing was sent for this copy, and its messages are delivered."""
    numbers, below = itertools.count(), list[Outcome]()

    def answer_second(call: Call) -> Flow:
        if next(numbers):
            return Outcome(response=["x", "y"])
        yield call
        return None

    with served("hang") as service:
        assert reading.read(service, hedge(), watch(below), answer_second) == ["x", "y"]

    assert sorted(outcome.code.name for outcome in below) == ["CANCELLED", "OK"]


def test_a_stream_that_is_refused_here(reading: Reading) -> None:
    """A copy that was never sent lets the next one go; if all are refused, that is the answer."""
    numbers = itertools.count()

    def refuse_even(call: Call) -> Flow:
        if next(numbers) % 2 == 0:
            raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served("sent") as service:
        messages = reading.read(service, hedge(2, FAR), refuse_even)

    assert messages == ["sent 1", "sent 2", "sent 3"]
    assert len(service.copies) == 1


def test_the_threads_of_a_race_end_when_it_is_decided() -> None:
    """While the winner goes on, nobody looks at the others any more."""
    gate = threading.Event()

    with served("hang", Messages(("one",), gate, ("two",))) as service:
        channel, stream = open_watch(service, hedge())
        assert next(stream) == "one"
        for thread in threading.enumerate():
            if thread.name == "interpose-hedge":
                thread.join(PATIENCE)
        left = [thread.name for thread in threading.enumerate() if thread.name == "interpose-hedge"]
        gate.set()
        assert list(stream) == ["two"]
        channel.close()

    assert left == []


def test_messages_keep_their_order(reading: Reading) -> None:
    """Whoever wins, by whatever a hair: its messages come as they were sent, once, and all of them unless it breaks."""
    chance = random.Random(str(reading))
    scripts = [_any_stream(chance, str(number)) for number in range(150)]

    with served(*scripts) as service:
        for _ in range(50):
            messages, broken = list[str](), False
            try:
                reading.into(messages, service, hedge(3, chance.choice([0, 0.001, 0.002, 0.004])))
            except errors.Unavailable:
                broken = True

            assert messages
            won = scripts[int(messages[0].split()[0])]
            assert messages == list(won.texts[: len(messages)])
            assert broken is (won.end is UNAVAILABLE)
            assert broken or len(messages) == len(won.texts)


def _any_stream(chance: random.Random, name: str) -> Messages:
    texts = tuple(f"{name} {number}" for number in range(chance.randrange(1, 6)))
    end = chance.choice([grpc.StatusCode.OK, grpc.StatusCode.OK, UNAVAILABLE])
    return Messages(texts, end=end, pause=chance.choice([0, 0.001, 0.003]))


# - what the application holds -


def open_watch(service: Service, *stack: Interceptor, clock: Clock = SYSTEM) -> Any:
    """A sync stream, and its channel."""
    channel = intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack, clock=clock)
    return channel, WATCH.stub(channel)("a", timeout=PATIENCE if clock is SYSTEM else None)


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


def both_started(service: Service) -> None:
    for _ in range(2):
        assert service.started.acquire(timeout=PATIENCE)


def told(outcomes: list[Outcome], event: threading.Event) -> Interceptor:
    """Keeps the outcomes, and says when."""

    def flow(call: Call) -> Flow:
        outcomes.append((yield call))
        event.set()

    return flow


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
