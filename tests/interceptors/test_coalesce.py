"""Coalesce: what is sent once, who waits for it, and what becomes of those when it goes wrong."""

import asyncio
import contextvars
import gc
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interpose import Call, Flow, Kind, Method, Outcome, Side, chain, context, errors, intercept_channel
from interpose._flow import Wait
from interpose._scope import Scope
from interpose.interceptors import Cache, Coalesce, CoalesceState
from interpose.interceptors.coalesce import _leading
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, incoming, ok, play
from interpose.testing.echo import SERVICE, decode, encode, path
from tests.interceptors.driving import each, requests
from tests.protos.compiled import Generated

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
CANCELLED = grpc.StatusCode.CANCELLED
LEDGER = "/interpose.tests.idempotency.Ledger"
UNARY = [place for place in PLACES if place.kind is Kind.UNARY_UNARY and place.side is Side.CLIENT]
OTHERS = [place for place in PLACES if place not in UNARY]

CROWD = 100
PATIENCE = 20  # seconds after which a wait counts as a hang
NONE = CoalesceState(flights=0, waiting=0)


def always(**options: Any) -> Coalesce:
    """One for methods of which no proto says anything."""
    return Coalesce(**({"safe": True} | options))


# --- by hand --------------------------------------------------------------------------------------------------------


class Asked:
    """A flow that was begun by hand, in a context of its own, as a shell does it.

    step: the call that it sends, what it waits for, or None once it has ended.
    """

    def __init__(self, interceptor: Any, call: Call) -> None:
        self._flow = interceptor(call)
        self._context = contextvars.copy_context()
        self.step: Any = None
        self.outcome: Any = None
        self.error: BaseException | None = None
        self._move(lambda: next(self._flow))

    @property
    def sends(self) -> bool:
        return type(self.step) is Call

    @property
    def waits(self) -> bool:
        return type(self.step) is Wait

    @property
    def told(self) -> bool:
        """Is there something new for a flow that waits?"""
        future: Future[Any] = self.step.awaitable
        return future.done()

    def end(self, outcome: Outcome) -> Outcome:
        """The call that it sent has ended; gives what it makes of it."""
        self._move(lambda: self._flow.send(outcome))
        self.outcome = self.outcome or outcome
        assert isinstance(self.outcome, Outcome)
        return self.outcome

    def go_on(self) -> Any:
        """What it waited for is there; gives its outcome if it has one."""
        answer = self.step.awaitable.result(PATIENCE)
        self._move(lambda: self._flow.send(answer))
        return self.outcome

    def fail(self, error: BaseException) -> None:
        """It waited in vain."""
        self._move(lambda: self._flow.throw(error))

    def drop(self) -> None:
        """Nobody wants it any more."""
        self.step = None
        self._flow.close()

    def _move(self, move: Callable[[], Any]) -> None:
        self.step = None
        try:
            self.step = self._context.run(move)
        except StopIteration as ended:
            self.outcome = ended.value
        except errors.StatusError as error:
            self.error = error


def call_of(
    request: str = "q", method: str = path(Kind.UNARY_UNARY), kind: Kind = Kind.UNARY_UNARY, **options: Any
) -> Call:
    return Call(Method(method, kind), request=request.encode(), **options)


def answer(response: Any = "good", **more: Any) -> Outcome:
    """The outcome of a call that the server answered."""
    return Outcome(response=response, responses=1, **more)


def failure(code: grpc.StatusCode = UNAVAILABLE, **options: Any) -> Outcome:
    return Outcome.failure(errors.of(code)("as scripted", **options))


# --- where it works -------------------------------------------------------------------------------------------------


def test_a_crowd_of_threads() -> None:
    """A hundred of them ask at once: one execution at the server, and an answer for each."""
    clock, coalesce, echo, outcomes = FakeClock(), always(), Echo([ok(hang=True)]), list[Outcome]()
    with (
        echo.serve() as target,
        intercept_channel(grpc.insecure_channel(target), each(outcomes), coalesce, clock=clock) as channel,
        ThreadPoolExecutor(CROWD) as pool,
    ):
        stub = Stub(channel)
        asked = [pool.submit(stub.unary_unary, "q") for _ in range(CROWD)]
        clock.wait_for(CROWD - 1)
        during = coalesce.snapshot()
        echo.close()
        answers = [future.result(PATIENCE) for future in asked]

    assert during == CoalesceState(flights=1, waiting=CROWD - 1)
    assert answers == ["q"] * CROWD
    assert len(echo.attempts) == 1
    assert sorted(outcome.attempts for outcome in outcomes) == [0] * (CROWD - 1) + [1]
    assert [outcome.trailing_metadata.get("x-coalesced") for outcome in outcomes].count("true") == CROWD - 1
    assert coalesce.snapshot() == NONE


def test_a_crowd_of_futures() -> None:
    """`future()` never blocks: a hundred are begun by one thread, and one is sent."""
    coalesce, echo = always(), Echo([ok(hang=True)])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), coalesce) as channel:
        stub = Stub(channel)
        asked = [stub.unary_unary.future("q") for _ in range(CROWD)]
        during = coalesce.snapshot()
        echo.close()
        answers = [future.result(PATIENCE) for future in asked]

    assert during == CoalesceState(flights=1, waiting=CROWD - 1)
    assert answers == ["q"] * CROWD
    assert len(echo.attempts) == 1
    assert coalesce.snapshot() == NONE


async def test_a_crowd_of_tasks() -> None:
    """A hundred tasks: one execution, and an answer for each."""
    coalesce, echo = always(), Echo([ok(hang=True)])
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), coalesce) as channel:
        stub = Stub(channel)
        asked = [stub.unary_unary("q") for _ in range(CROWD)]
        during = coalesce.snapshot()
        echo.close()
        answers = await asyncio.gather(*asked)

    assert during == CoalesceState(flights=1, waiting=CROWD - 1)
    assert answers == ["q"] * CROWD
    assert len(echo.attempts) == 1
    assert coalesce.snapshot() == NONE


def test_blocking_calls_and_futures_together() -> None:
    """They wait for each other, whichever was first."""
    for blocking_first in (True, False):
        clock, echo = FakeClock(), Echo([ok(hang=True)])
        with (
            echo.serve() as target,
            intercept_channel(grpc.insecure_channel(target), always(), clock=clock) as channel,
            ThreadPoolExecutor(1) as pool,
        ):
            stub = Stub(channel)
            if blocking_first:
                blocking = pool.submit(stub.unary_unary, "q")
                echo.wait_begun()
                future = stub.unary_unary.future("q")
            else:
                future = stub.unary_unary.future("q")
                blocking = pool.submit(stub.unary_unary, "q")
                clock.wait_for(1)
            echo.close()
            answers = [blocking.result(PATIENCE), future.result(PATIENCE)]

        assert answers == ["q", "q"]
        assert len(echo.attempts) == 1


@pytest.mark.parametrize("place", OTHERS, ids=str)
def test_streams_and_servers_pass_untouched(place: Place) -> None:
    """Only a client's methods with one request and one response are coalesced, whatever `safe` says."""
    coalesce, seen = always(), list[CoalesceState]()

    def look(call: Call) -> Flow:
        yield call
        seen.append(coalesce.snapshot())

    with place.open(coalesce, look) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and "x-coalesced" not in reply.trailing_metadata
    assert len(rpc.attempts) == 1
    assert seen == [NONE]


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_one_after_the_other_are_two(place: Place) -> None:
    """It keeps no answer: once a call has ended the next one is sent."""
    with place.open(always(), script=[ok("first"), ok("second")]) as rpc:
        replies = [rpc.call("q") for _ in range(2)]

    assert [reply.messages for reply in replies] == [["first"], ["second"]]
    assert not any("x-coalesced" in reply.trailing_metadata for reply in replies)


def test_in_a_play_it_is_not_seen() -> None:
    """A call that is alone is sent as it is."""
    played = play(always(), [ok("a")], requests=[b"q"])

    assert played.outcome.response == "a"
    assert not played.waits


# --- which calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "safe", "waits"),
    [
        ("Read", None, True),
        ("Put", None, False),
        ("Add", None, False),
        ("Read", False, False),
        ("Add", True, True),
        ("Add", lambda call: call.method.name == "Add", True),
    ],
)
def test_the_proto_says_which_methods(generated: Generated, name: str, safe: Any, waits: bool) -> None:
    """NO_SIDE_EFFECTS, unless `safe` says otherwise."""
    generated("idempotency_pb2")
    coalesce = Coalesce(safe=safe)
    first, second = (Asked(coalesce, call_of(method=f"{LEDGER}/{name}")) for _ in range(2))

    assert first.sends
    assert (second.waits, second.sends) == (waits, not waits)


ANNA, BERT = (dict[str, Any](metadata=(("authorization", name),)) for name in ("anna", "bert"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({"timeout": 1}, {}, True),
        ({"request": "other"}, {}, False),
        ({"method": "/a.B/C"}, {}, False),
        (ANNA, ANNA, True),
        (ANNA, BERT, False),
        (ANNA, {}, False),
        ({"metadata": (("cookie", "anna"),)}, {"metadata": (("cookie", "bert"),)}, False),
        ({"metadata": (("x-tenant", "a"),)}, {"metadata": (("x-tenant", "b"),)}, False),
        ({"metadata": (("x-other", "a"),)}, {"metadata": (("x-other", "b"),)}, True),
        ({"credentials": grpc.access_token_call_credentials("anna")}, {}, False),
        # Who fails at once if the server is away must not wait for one who waits for it, nor the other way round.
        ({"wait_for_ready": True}, {}, False),
        ({"wait_for_ready": True}, {"wait_for_ready": True}, True),
    ],
)
def test_which_calls_are_the_same(one: Any, other: Any, same: bool) -> None:
    """What is asked, where, and who asks."""
    coalesce = always(metadata=("x-tenant",))
    first, second = Asked(coalesce, call_of(**one)), Asked(coalesce, call_of(**other))

    assert first.sends
    assert (second.waits, second.sends) == (same, not same)


def test_who_asked_the_handler_counts() -> None:
    """A call that a handler makes for Bert does not wait for the one that another makes for Anna."""
    coalesce = always()
    asked = []
    for name in ("anna", "bert", "anna"):
        context.set_current_call(incoming(metadata=[("authorization", name)]))
        asked.append(Asked(coalesce, call_of()))

    assert [one.sends for one in asked] == [True, True, False]


def test_shared_answers_are_for_everybody() -> None:
    """`shared=True`: who asks does not count."""
    coalesce = always(shared=True)
    first, second = Asked(coalesce, call_of(**ANNA)), Asked(coalesce, call_of(**BERT))
    first.end(answer())

    assert second.go_on().response == "good"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
@pytest.mark.parametrize("shared", [True, False])
def test_a_refusal_is_for_who_was_refused(code: grpc.StatusCode, shared: bool) -> None:
    """With `shared=True` the next may be somebody else, and is sent; else it is the same one."""
    coalesce = always(shared=shared)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    first.end(failure(code))
    second.go_on()

    assert second.sends == shared
    assert shared or second.outcome.code is code


def test_channels_do_not_share() -> None:
    """One instance on two channels to the same server: they may have other credentials."""
    coalesce, echo = always(), Echo([ok(hang=True), ...])
    with (
        echo.serve() as target,
        intercept_channel(grpc.insecure_channel(target), coalesce) as one,
        intercept_channel(grpc.insecure_channel(target), coalesce) as other,
    ):
        asked = [Stub(channel).unary_unary.future("q") for channel in (one, other, one)]
        echo.wait_begun(2)
        during = coalesce.snapshot()
        echo.close()
        answers = [future.result(PATIENCE) for future in asked]

    assert during == CoalesceState(flights=2, waiting=1)
    assert answers == ["q"] * 3


# --- what they get --------------------------------------------------------------------------------------------------


def test_an_answer_comes_with_its_metadata() -> None:
    """Theirs has all that came with it, and a mark that the first one's has not."""
    coalesce = always()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    mine = first.end(
        answer(initial_metadata=(meta := incoming(metadata=[("x-first", "1")]).metadata), trailing_metadata=meta)
    )
    theirs = second.go_on()

    assert theirs.initial_metadata == mine.initial_metadata == (("x-first", "1"),)
    assert theirs.trailing_metadata == (("x-first", "1"), ("x-coalesced", "true"))
    assert mine.trailing_metadata == (("x-first", "1"),)


def test_each_caller_has_a_response_of_its_own(generated: Generated) -> None:
    """What one of them writes into it the others do not see."""
    pb = generated("idempotency_pb2")
    coalesce = always()
    first, *others = (Asked(coalesce, call_of()) for _ in range(4))
    first.end(answer(pb.Receipt(text="good"))).response.text = "scribbled over"
    texts = []
    for other in others:
        response = other.go_on().response
        texts.append(response.text)
        response.text = "scribbled over"

    assert texts == ["good"] * 3


def test_one_object_for_all_if_told_so() -> None:
    """`copy=None`, where nobody can change it."""
    coalesce = always(copy=None)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    mine = first.end(answer(["one"]))

    assert second.go_on().response is mine.response


def test_what_cannot_be_copied_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    """The first has its answer, the others are sent, and the log says why."""

    def broken(response: Any) -> Any:
        raise TypeError("cannot copy a socket")

    coalesce = always(copy=broken)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    mine = first.end(answer())
    second.go_on()

    assert mine.response == "good"
    assert second.sends
    assert "could not be copied" in caplog.text


def test_a_failure_is_everybodys() -> None:
    """Each has an error of its own, with all that it says; a note on one is not on the others."""
    coalesce = always()
    first, *others = (Asked(coalesce, call_of()) for _ in range(3))
    cause = OSError("refused")
    told = failure(trailing_metadata=[("x-why", "down")], local=True)
    assert told.error is not None
    told.error.add_note("of the first")
    told.error.__cause__ = cause
    first.end(told)
    outcomes = [other.go_on() for other in others]
    outcomes[0].error.add_note("of the second")

    assert [outcome.code for outcome in outcomes] == [UNAVAILABLE] * 2
    assert len({id(outcome.error) for outcome in [told, *outcomes]}) == 3
    assert all(type(outcome.error) is errors.Unavailable and outcome.error.local for outcome in outcomes)
    assert all(outcome.error.__cause__ is cause for outcome in outcomes)
    assert outcomes[1].trailing_metadata.get("x-why") == "down"
    assert told.error.__notes__ == ["of the first"]
    assert outcomes[1].error.__notes__ == ["of the first", "Coalesce: the failure of the same call, under way already"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_stub_raises_is_native(asynchronous: bool) -> None:
    """For those that waited as for the one that was sent."""
    echo, coalesce = Echo([failed(UNAVAILABLE, "closed today", hang=True, trailing=[("x-why", "rest")])]), always()
    if asynchronous:
        async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), coalesce) as aio:
            calls = [Stub(aio).unary_unary("q") for _ in range(3)]
            await asyncio.to_thread(echo.wait_begun)
            echo.close()
            raised = await asyncio.gather(*calls, return_exceptions=True)
    else:
        with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), coalesce) as channel:
            futures = [Stub(channel).unary_unary.future("q") for _ in range(3)]
            echo.wait_begun()
            echo.close()
            raised = [future.exception(PATIENCE) for future in futures]

    assert len(echo.attempts) == 1
    assert len(set(map(id, raised))) == 3
    for error in raised:
        assert isinstance(error, errors.Unavailable)
        assert isinstance(error, grpc.aio.AioRpcError if asynchronous else grpc.Call)
        assert (error.details(), error.trailing_metadata().get("x-why")) == ("closed today", "rest")


def test_taps_and_maps_further_out_see_each_answer() -> None:
    """Those that waited have theirs, as if it had come for them."""
    coalesce, seen = always(), list[str]()
    asked = [
        Asked(coalesce, call_of().map(responses=f"{{}}, {name}".format).tap(responses=seen.append))
        for name in ("anna", "bert")
    ]
    asked[0].end(answer("hello"))
    asked[1].go_on()

    assert [one.outcome.response for one in asked] == ["hello, anna", "hello, bert"]
    assert seen == ["hello", "hello"]


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
        intercept_channel(grpc.insecure_channel(target), always(clock=clock), clock=clock) as channel,
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
    coalesce = always(clock=clock)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of().with_timeout(5))
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
        coalesce = always(clock=clock)
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


# --- with others ----------------------------------------------------------------------------------------------------


def test_inside_of_a_cache() -> None:
    """A crowd is sent once, and the next crowd not at all."""
    echo = Echo([ok(hang=True)])
    stack = chain(Cache(60, safe=True), always())
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), stack) as channel:
        stub = Stub(channel)
        crowd = [stub.unary_unary.future("q") for _ in range(10)]
        echo.close()
        answers = [future.result(PATIENCE) for future in crowd]
        answers += [stub.unary_unary("q") for _ in range(10)]

    assert answers == ["q"] * 20
    assert len(echo.attempts) == 1


def test_nothing_is_left_of_many_calls() -> None:
    """10,000 different requests, and as many that waited: nothing is held when they have ended."""
    coalesce = always()
    for number in range(10_000):
        first, second = Asked(coalesce, call_of(f"q{number}")), Asked(coalesce, call_of(f"q{number}"))
        first.end(answer(number))
        assert second.go_on().response == number

    assert coalesce.snapshot() == NONE


def test_nothing_is_left_of_many_attempts() -> None:
    """An RPC that is sent again and again remembers only the flight that it is in."""
    held: list[int] = []

    def again(call: Call) -> Flow:
        for _ in range(50):
            yield call

    def look(call: Call) -> Flow:
        held.append(len(_leading.get()))
        yield call

    play(chain(again, always(), look), [ok(), ...], requests=[b"q"])

    assert held == [1] * 50


def test_the_first_ends_just_before_another_begins_to_wait() -> None:
    """Between the moments in which that one is found and waited for: then the other is sent."""
    coalesce = always()
    first = Asked(coalesce, call_of())

    class Meanwhile(dict[Any, Any]):
        def setdefault(self, key: Any, default: Any = None) -> Any:
            found = super().setdefault(key, default)
            if first.sends:
                first.end(answer())
            return found

    coalesce._flights = Meanwhile(coalesce._flights)
    second = Asked(coalesce, call_of())

    assert second.sends
    assert second.end(answer("again")).response == "again"
    assert coalesce.snapshot() == NONE


def test_many_threads_over_and_over() -> None:
    """Whatever the moment in which they come: each has the answer to its own question, and nobody waits for ever."""
    coalesce, wrong = always(), list[Any]()
    numbers = itertools.count()

    def ask(seed: int) -> None:
        try:
            for step in range(300):
                request = str((seed + step) % 3)
                asked = Asked(coalesce, call_of(request))
                while asked.waits:
                    asked.go_on()
                if asked.sends:
                    asked.end(failure(CANCELLED) if next(numbers) % 3 == 0 else answer(request))
                if asked.outcome.ok and asked.outcome.response != request:
                    wrong.append(asked.outcome)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert coalesce.snapshot() == NONE


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
TestLaw.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"metadata": "x-tenant"}, "metadata must be a tuple of metadata keys"),
        ({"shared": 1}, "shared must be True or False"),
        ({"safe": "Read"}, "safe must be None, True, False or a function"),
        ({"copy": 3}, "copy must be a function"),
        ({"clock": 3}, "clock must have a method now()"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """A ValueError when it is made says what to write instead."""
    with pytest.raises(ValueError, match="Coalesce: ") as caught:
        Coalesce(**options)

    assert fault in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    """One error for all options."""
    with pytest.raises(ValueError, match=r"metadata must .*; shared must .*; safe must .*; copy must .*; clock must"):
        Coalesce(metadata="x", shared=3, safe=3, copy=3, clock=3)  # type: ignore[arg-type]  # that is the question
