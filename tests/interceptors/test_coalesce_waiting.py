"""Coalesce: what becomes of those that wait when it goes wrong for the first one, and that no call waits for itself."""

import asyncio
import contextvars
import gc
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interpose import Call, Flow, Kind, Outcome, Side, errors, intercept_channel
from interpose._scope import Scope
from interpose.interceptors import CoalesceState
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, ok
from interpose.testing.echo import SERVICE, decode, encode
from tests.interceptors.coalescing import NONE, UNAVAILABLE, Asked, always, answer, call_of, failure
from tests.support.examples import examples
from tests.support.patience import PATIENCE

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
CANCELLED = grpc.StatusCode.CANCELLED
UNARY = [place for place in PLACES if place.kind is Kind.UNARY_UNARY and place.side is Side.CLIENT]


# --- if it goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        failure(CANCELLED, local=True),
        failure(CANCELLED),
        failure(DEADLINE_EXCEEDED, local=True),
        failure(DEADLINE_EXCEEDED),
        Outcome(CANCELLED, error=KeyboardInterrupt()),
        Outcome(grpc.StatusCode.INTERNAL, error=ValueError("Cannot invoke RPC on closed channel!")),
    ],
    ids=lambda outcome: f"{outcome.code.name} {outcome.error!r:.12}",
)
def test_the_first_ones_own_trouble(outcome: Outcome) -> None:
    """One of the others is sent, and the rest wait for that."""
    coalesce = always()
    first, second, third = (Asked(coalesce, call_of()) for _ in range(3))
    first.end(outcome)
    second.go_on()
    third.go_on()
    between = (second.sends, third.waits)
    second.end(answer())

    assert first.outcome is outcome
    assert between == (True, True)
    assert third.go_on().response == "good"
    assert coalesce.snapshot() == NONE


@pytest.mark.parametrize("collected", [False, True])
def test_a_flow_that_is_dropped_leaves_nobody_waiting(collected: bool) -> None:
    """Closed or collected in the middle of its call: one of the others is sent."""
    coalesce = always()
    asked = [Asked(coalesce, call_of()) for _ in range(3)]
    if collected:
        del asked[0]
        gc.collect()
    else:
        asked.pop(0).drop()
    second, third = asked
    second.go_on()
    third.go_on()

    assert second.sends and third.waits
    assert second.end(answer()) is second.outcome
    assert third.go_on().ok


def test_a_flow_that_is_dropped_sends_nothing_itself() -> None:
    """It may be the garbage collector that drops it, in the middle of anything: the others go on on another thread."""
    coalesce = always()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    threads: Future[threading.Thread] = Future()
    second.step.awaitable.add_done_callback(lambda _: threads.set_result(threading.current_thread()))
    first.drop()

    assert threads.result(PATIENCE) is not threading.current_thread()


def test_the_first_is_cancelled() -> None:
    """Its future is; another is sent for the rest."""
    coalesce, echo = always(), Echo([ok("gone", hang=True), ok("good")])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), coalesce) as channel:
        first, *others = (Stub(channel).unary_unary.future("q") for _ in range(5))
        echo.wait_begun()
        first.cancel()
        answers = [other.result(PATIENCE) for other in others]

    assert first.cancelled()
    assert answers == ["good"] * 4
    assert len(echo.attempts) == 2


async def test_the_first_task_is_cancelled() -> None:
    """The same with tasks."""
    coalesce, echo = always(), Echo([ok("gone", hang=True), ok("good")])
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), coalesce) as channel:
        first, *others = (Stub(channel).unary_unary("q") for _ in range(5))
        await asyncio.to_thread(echo.wait_begun)
        first.cancel()
        answers = await asyncio.gather(*others)
        with pytest.raises(asyncio.CancelledError):
            await first

    assert answers == ["good"] * 4
    assert len(echo.attempts) == 2


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_the_firsts_deadline_is_its_own(place: Place) -> None:
    """It runs out of time; who has more waits on, is sent, and has an answer."""
    with place.open(always(), script=[ok("too late", hang=True), ok("good")]) as rpc, ThreadPoolExecutor(2) as pool:
        hasty = pool.submit(rpc.call, "q", timeout=0.5)
        rpc.echo.wait_begun()
        patient = pool.submit(rpc.call, "q")
        replies = [hasty.result(PATIENCE), patient.result(PATIENCE)]

    assert replies[0].code is DEADLINE_EXCEEDED
    assert replies[1].messages == ["good"]
    assert len(rpc.attempts) == 2


def test_who_waits_keeps_its_deadline() -> None:
    """It fails in time, on this side, and the one that was sent goes on."""
    clock, echo = FakeClock(), Echo([ok(hang=True)])
    with (
        echo.serve() as target,
        intercept_channel(grpc.insecure_channel(target), always(), clock=clock) as channel,
        ThreadPoolExecutor(1) as pool,
    ):
        stub = Stub(channel)
        first = stub.unary_unary.future("q")
        future = stub.unary_unary.future("q", timeout=5)
        blocking = pool.submit(stub.unary_unary, "q", timeout=5)
        clock.wait_for(2)
        clock.advance(5)
        failures = [future.exception(PATIENCE), blocking.exception(PATIENCE)]
        echo.close()

        assert first.result(PATIENCE) == "q"
    assert all(isinstance(error, errors.DeadlineExceeded) and error.local for error in failures)
    assert len(echo.attempts) == 1


async def test_a_task_that_waits_keeps_its_deadline() -> None:
    """The same with tasks."""
    clock, coalesce, echo = FakeClock(), always(), Echo([ok(hang=True)])
    async with (
        echo.serve_aio() as target,
        intercept_channel(grpc.aio.insecure_channel(target), coalesce, clock=clock) as channel,
    ):
        stub = Stub(channel)
        first, second = stub.unary_unary("q"), stub.unary_unary("q", timeout=5)
        await clock.reached()
        clock.advance(5)
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await second
        echo.close()

        assert await first == "q"
    assert caught.value.local
    assert len(echo.attempts) == 1
    assert coalesce.snapshot() == NONE


def test_a_timeout_counts_from_the_beginning() -> None:
    """What an interceptor allows one attempt is the limit of waiting and sending together."""
    clock = FakeClock()
    coalesce = always()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of(clock=clock).with_timeout(5))
    until = second.step.deadline
    clock.advance(2)
    first.end(failure(CANCELLED))
    second.go_on()

    assert until == 1005
    assert second.step.timeout == 3


def test_who_waits_can_be_cancelled_alone() -> None:
    """A future that waits is; the others, and the one that was sent, are not disturbed."""
    coalesce, echo = always(), Echo([ok(hang=True)])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), coalesce) as channel:
        first, second, third = (Stub(channel).unary_unary.future("q") for _ in range(3))
        second.cancel()
        during = coalesce.snapshot()
        echo.close()
        answers = [first.result(PATIENCE), third.result(PATIENCE)]

    assert second.cancelled()
    assert during == CoalesceState(flights=1, waiting=1)
    assert answers == ["q", "q"]
    assert len(echo.attempts) == 1


async def test_a_task_that_waits_can_be_cancelled_alone() -> None:
    """The same with tasks."""
    coalesce, echo = always(), Echo([ok(hang=True)])
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), coalesce) as channel:
        first, second, third = (Stub(channel).unary_unary("q") for _ in range(3))
        waiting = asyncio.ensure_future(_answer(second))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(PATIENCE):
            while coalesce.snapshot().waiting > 1:  # noqa: ASYNC110  the loop tells it
                await asyncio.sleep(0)
        during = coalesce.snapshot()
        echo.close()
        answers = [await first, await third]

    assert during == CoalesceState(flights=1, waiting=1)
    assert answers == ["q", "q"]
    assert len(echo.attempts) == 1


async def _answer(call: Any) -> Any:
    return await call


def test_who_waits_ends_with_the_rpc_it_belongs_to() -> None:
    """A call within the scope of an incoming RPC waits no longer than that lasts; one that is late does not begin."""
    coalesce, scope = always(), Scope()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of().within(scope))
    scope.close()
    second.go_on()
    third = Asked(coalesce, call_of().within(scope))

    assert isinstance(second.error, errors.Cancelled) and second.error.local
    assert isinstance(third.error, errors.Cancelled)
    assert not scope._cancels
    assert coalesce.snapshot() == CoalesceState(flights=1, waiting=0)
    assert first.end(answer()).ok


def test_an_answer_in_time_is_not_lost_with_the_scope() -> None:
    """It came before the incoming RPC ended."""
    coalesce, scope = always(), Scope()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of().within(scope))
    first.end(answer())
    scope.close()

    assert second.go_on().response == "good"


def test_nothing_is_left_in_the_scope() -> None:
    """A handler may make many calls, and each that has ended is forgotten."""
    coalesce, scope = always(), Scope()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of().within(scope))
    during = len(scope._cancels)
    first.end(answer())
    second.go_on()

    assert (during, len(scope._cancels)) == (1, 0)


def test_closing_the_channel_ends_them_all() -> None:
    """The one that was sent, and those that wait: blocking calls and futures."""
    clock, coalesce, echo = FakeClock(), always(), Echo([ok(hang=True)])
    with echo.serve() as target, ThreadPoolExecutor(1) as pool:
        channel = intercept_channel(grpc.insecure_channel(target), coalesce, clock=clock)
        stub = Stub(channel)
        first = stub.unary_unary.future("q")
        echo.wait_begun()
        second, blocking = stub.unary_unary.future("q"), pool.submit(stub.unary_unary, "q")
        clock.wait_for(1)
        channel.close()
        codes, error = [first.code(), second.code()], blocking.exception(PATIENCE)

    assert codes == [CANCELLED] * 2
    # A thread may wake so late that its call is the one to be sent instead: grpc refuses it on the closed channel.
    assert isinstance(error, (errors.Cancelled, ValueError))
    assert len(echo.attempts) == 1
    assert coalesce.snapshot() == NONE


# --- no call waits for itself ---------------------------------------------------------------------------------------


def test_a_call_made_on_behalf_of_itself() -> None:
    """An interceptor further in that makes the same call is not left waiting for what waits for it."""
    busy, nested = [False], list[str]()

    def warm_up(call: Call) -> Flow:
        if not busy[0]:
            busy[0] = True
            nested.append(stub.unary_unary("q", timeout=PATIENCE))
        yield call

    echo = Echo([ok("nested"), ok("outer")])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), always(), warm_up) as channel:
        stub = Stub(channel)
        response = stub.unary_unary("q", timeout=PATIENCE)

    assert (nested, response) == (["nested"], "outer")


async def test_a_task_on_behalf_of_itself() -> None:
    """The same on asyncio, where the interceptor awaits it."""
    busy, nested = [False], list[str]()

    async def warm_up(call: Call) -> Any:
        if not busy[0]:
            busy[0] = True
            nested.append(await stub.unary_unary("q", timeout=PATIENCE))
        yield call

    echo = Echo([ok("nested"), ok("outer")])
    async with (
        echo.serve_aio() as target,
        intercept_channel(grpc.aio.insecure_channel(target), always(), warm_up) as channel,
    ):
        stub = Stub(channel)
        response = await stub.unary_unary("q", timeout=PATIENCE)

    assert (nested, response) == (["nested"], "outer")


def test_a_callback_may_make_the_same_call() -> None:
    """A blocking call in the callback of one that waited is sent: the first one has ended."""
    echo = Echo([ok("first", hang=True), ok("second")])
    answers: Future[str] = Future()
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), always()) as channel:
        stub = Stub(channel)
        first, second = (stub.unary_unary.future("q") for _ in range(2))
        second.add_done_callback(lambda _: answers.set_result(stub.unary_unary("q", timeout=PATIENCE)))
        echo.wait_begun()
        echo.close()
        responses = [first.result(PATIENCE), second.result(PATIENCE), answers.result(PATIENCE)]

    assert responses == ["first", "first", "second"]


def test_who_blocks_the_thread_that_would_bring_the_answer() -> None:
    """A blocking call in a callback of the channel's own thread waits to its deadline, no longer, and all goes on."""
    clock, gates = FakeClock(), {"q": threading.Event(), "other": threading.Event()}
    error: Future[BaseException | None] = Future()

    def answer_at(request: str, _: Any) -> str:
        gates[request].wait(PATIENCE)
        return request

    def block(_: Any) -> None:
        with pytest.raises(errors.DeadlineExceeded) as caught:
            stub.unary_unary("q", timeout=5)
        error.set_result(caught.value)

    handlers = {"unary_unary": grpc.unary_unary_rpc_method_handler(answer_at, decode, encode)}
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        coalesce = always()
        with intercept_channel(grpc.insecure_channel(target), coalesce, clock=clock) as channel:
            stub = Stub(channel)
            first = stub.unary_unary.future("q")
            stub.unary_unary.future("other").add_done_callback(block)
            gates["other"].set()
            clock.wait_for(1)
            gates["q"].set()
            clock.advance(5)
            ends = [error.result(PATIENCE), first.result(PATIENCE)]
        server.stop(None).wait()

    assert isinstance(ends[0], errors.DeadlineExceeded)
    assert ends[1] == "q"


def test_who_waited_goes_on_in_a_context_of_its_own() -> None:
    """What the first one's application has set is not seen by the callbacks of another's."""
    person = contextvars.ContextVar("person", default="nobody")
    coalesce = always()

    def annas() -> Asked:
        person.set("anna")
        return Asked(coalesce, call_of())

    own = contextvars.copy_context()
    first = own.run(annas)
    second = Asked(coalesce, call_of())
    seen: list[str] = []
    second.step.awaitable.add_done_callback(lambda _: seen.append(person.get()))
    own.run(first.end, answer())

    assert seen == ["nobody"]


# --- a law ----------------------------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Calls that come, are answered, fail, are cancelled, give up and are dropped, in any order.

    At any time each question is under way once, if anybody asks it; nobody waits for what has ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.coalesce = always()
        self.asked: list[tuple[str, Asked]] = []

    @rule(request=st.sampled_from("ab"))
    def come(self, request: str) -> None:
        self.asked.append((request, Asked(self.coalesce, call_of(request))))

    def one(self, data: Any, sends: bool) -> tuple[str, Asked]:
        picked: tuple[str, Asked] = data.draw(st.sampled_from([one for one in self.asked if one[1].sends == sends]))
        return picked

    def let_go_on(self, data: Any) -> None:
        """Those who were told go on, in any order, and see what is to be seen."""
        for request, asked in data.draw(st.permutations(self.asked)):
            while asked.waits and asked.told:
                outcome = asked.go_on()
                if outcome is not None:
                    assert outcome.response == request if outcome.ok else outcome.code is UNAVAILABLE
        self.asked = [one for one in self.asked if one[1].step is not None]

    @precondition(lambda self: any(asked.sends for _, asked in self.asked))
    @rule(data=st.data(), how=st.sampled_from(["answered", "failed", "cancelled", "dropped"]))
    def end(self, data: Any, how: str) -> None:
        request, asked = self.one(data, sends=True)
        if how == "dropped":
            asked.drop()
            for other, waiting in self.asked:  # they are told on another thread
                if other == request and waiting.waits:
                    waiting.step.awaitable.result(PATIENCE)
        else:
            asked.end({"answered": answer(request), "failed": failure(), "cancelled": failure(CANCELLED)}[how])
        self.let_go_on(data)

    @precondition(lambda self: any(asked.waits for _, asked in self.asked))
    @rule(data=st.data())
    def give_up(self, data: Any) -> None:
        _, asked = self.one(data, sends=False)
        asked.fail(errors.DeadlineExceeded("too long", local=True))
        assert asked.error is not None
        self.let_go_on(data)

    @invariant()
    def each_question_is_under_way_once(self) -> None:
        for request in "ab":
            those = [asked for asking, asked in self.asked if asking == request]
            assert [asked.sends for asked in those].count(True) == (1 if those else 0)
        state = self.coalesce.snapshot()
        assert state.flights == sum(asked.sends for _, asked in self.asked)
        assert state.waiting == sum(asked.waits for _, asked in self.asked)

    def teardown(self) -> None:
        for _, asked in self.asked:
            asked.drop()


TestLaw = Machine.TestCase
TestLaw.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
