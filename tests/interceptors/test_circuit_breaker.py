"""CircuitBreaker: what counts, what is refused, and how many pass when it is tried again."""

import asyncio
import gc
import logging
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Method, Outcome, Side, chain, errors, intercept_channel, when
from interpose._flow import wait
from interpose.interceptors import Retry
from interpose.interceptors.circuit_breaker import (
    FAILURES,
    CircuitBreaker,
    CircuitOpen,
    CircuitState,
    Mode,
    TransitionDetails,
)
from interpose.interceptors.keys import by_method, by_service
from interpose.mechanisms.window import calls, seconds
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, ok, play, raised
from tests.interceptors.driving import Told, each, failing, is_server, requests
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
METHOD = "/pay.v1.Cards/Charge"

CALLERS = 100
PROBES = 3
STREAMED = [place for place in PLACES if place.kind.response_streaming and place.side is Side.CLIENT]


def quick(clock: FakeClock, **options: Any) -> CircuitBreaker:
    """One that opens at the first failure."""
    # One breaker for what is played by hand, which goes nowhere, and for calls to a server.
    defaults: dict[str, Any] = {"minimum": 1, "open_for": 30, "key": lambda call: ""}
    return CircuitBreaker(clock=clock, **(defaults | options))


def tripped(clock: FakeClock, **options: Any) -> CircuitBreaker:
    """One that has just opened."""
    breaker = quick(clock, **options)
    play(breaker, [failed(UNAVAILABLE)], clock=clock)
    assert mode(breaker) is Mode.OPEN
    return breaker


def mode(breaker: CircuitBreaker, key: str | None = None) -> Mode:
    """Of the only one, or of one key."""
    states = breaker.snapshot()
    return (next(iter(states.values())) if key is None else states[key]).mode


def counted(breaker: CircuitBreaker) -> tuple[int, int]:
    """Results and failures."""
    state = next(iter(breaker.snapshot().values()))
    return state.calls, state.failures


def a_call(kind: Kind = Kind.UNARY_UNARY) -> Call:
    return Call(Method(METHOD, kind))


# --- in all places --------------------------------------------------------------------------------------------------


def test_it_opens_refuses_and_closes_again(place: Place) -> None:
    """Two failures of two; a refusal that sends nothing; after `open_for` probes, and all is well."""
    clock, outcomes = FakeClock(), list[Outcome]()
    breaker = CircuitBreaker(minimum=2, open_for=30, probes=2, clock=clock)
    down = failed(UNAVAILABLE, unread=is_server(place))
    script: list[Any] = [down, down, ok(), ...]

    with place.open(each(outcomes), breaker, script=script) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(3)]
        sent = len(rpc.attempts)
        clock.advance(30)
        replies += [rpc.call(*requests(place)) for _ in range(3)]

    refused = outcomes[2]
    assert [reply.ok for reply in replies] == [False] * 3 + [True] * 3
    assert sent == 2
    assert (refused.code, refused.details) == (
        UNAVAILABLE,
        "the circuit breaker is open; next probe in 30.000 s",
    )
    assert isinstance(refused.error, CircuitOpen) and refused.error.local and refused.error.retry_in == 30
    assert [*breaker.snapshot().values()] == [CircuitState(mode=Mode.CLOSED, calls=1, failures=0, retry_in=None)]


@pytest.mark.parametrize("place", [place for place in PLACES if place.side is Side.CLIENT], ids=str)
def test_a_stub_raises_what_can_be_told_apart(place: Place) -> None:
    """A `CircuitOpen` with the time until the next probe, which is grpc's own error as well."""
    clock = FakeClock()

    with place.open(tripped(clock)) as rpc:
        error = rpc.call(*requests(place)).error

    assert isinstance(error, CircuitOpen) and isinstance(error, errors.Unavailable)
    assert isinstance(error, grpc.aio.AioRpcError if place.asyncio else grpc.Call)
    assert error.local and error.retry_in == 30
    assert rpc.attempts == []


def test_a_failed_probe_opens_again(place: Place) -> None:
    """One failure among the probes is enough, and the time runs anew."""
    clock = FakeClock()
    breaker = tripped(clock)

    with place.open(breaker, script=[ok(), failed(UNAVAILABLE, unread=is_server(place))]) as rpc:
        clock.advance(31)
        for _ in range(3):
            rpc.call(*requests(place))

    assert breaker.snapshot() == {"": CircuitState(mode=Mode.OPEN, calls=2, failures=1, retry_in=30)}
    assert len(rpc.attempts) == 2


def test_each_target_has_its_breaker() -> None:
    """One instance on two channels: the server that fails is left alone, the other goes on."""
    breaker = CircuitBreaker(minimum=1)
    client = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)

    with client.open(breaker, script=[failed(UNAVAILABLE)]) as ill, client.open(breaker, script=[ok(), ...]) as well:
        ill.call("a")
        refused, answered = ill.call("a"), well.call("a")

    assert isinstance(refused.error, CircuitOpen) and answered.ok
    assert [key.partition("///")[0] for key in breaker.snapshot()] == ["dns:", "dns:"]


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", STREAMED, ids=str)
def test_a_stream_that_breaks_is_a_failure(place: Place) -> None:
    """However many messages came before."""
    breaker = CircuitBreaker(minimum=1)

    with place.open(breaker, script=[failed(UNAVAILABLE, after=1)]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.messages == ["a"]
    assert counted(breaker) == (1, 1)


def test_a_stream_counts_at_its_end() -> None:
    """While it streams it is no result."""
    breaker, echo = CircuitBreaker(), Echo()
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), breaker) as channel:
        stream = Stub(channel).unary_stream("a")
        first = next(stream)
        during = counted(breaker)
        rest = list(stream)

    assert (first, rest) == ("a", ["a", "a"])
    assert during == (0, 0)
    assert counted(breaker) == (1, 0)


@pytest.mark.parametrize("how", ["cancelled", "dropped"])
def test_a_stream_that_is_left_gives_its_place_back(how: str) -> None:
    """It is no result, and another call may be the probe."""
    clock, told, echo = FakeClock(), Told(), Echo([ok(hang=True), ok()])
    breaker = tripped(clock, probes=1)
    clock.advance(30)
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), told, breaker) as channel:
        stub = Stub(channel)
        stream = stub.unary_stream("a")
        echo.wait_begun()
        with pytest.raises(CircuitOpen, match=r"the circuit breaker is half open; next probe in 30\.000 s"):
            stub.unary_unary("b")
        assert told.ended.acquire(timeout=PATIENCE)
        if how == "cancelled":
            stream.cancel()
        del stream
        gc.collect()
        assert told.ended.acquire(timeout=PATIENCE)
        answer = stub.unary_unary("c")
        echo.close()

    assert answer == "c"
    assert mode(breaker) is Mode.CLOSED


async def test_a_task_that_is_cancelled_gives_its_place_back() -> None:
    """On asyncio as well: what the caller ends says nothing of the server."""
    clock, told, echo = FakeClock(), Told(), Echo([ok(hang=True), ok()])
    breaker = tripped(clock, probes=1)
    clock.advance(30)
    stack = (told, breaker)
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), *stack) as channel:
        stub = Stub(channel)
        task = asyncio.ensure_future(stub.unary_unary("a"))
        await asyncio.to_thread(echo.wait_begun)
        task.cancel()
        assert await asyncio.to_thread(told.ended.acquire, timeout=PATIENCE)
        answer = await stub.unary_unary("b")
        echo.close()

    assert task.cancelled()
    assert answer == "b"
    assert mode(breaker) is Mode.CLOSED


def test_a_flow_that_is_closed_gives_its_place_back() -> None:
    """However an RPC ends."""
    clock = FakeClock()
    breaker = tripped(clock, probes=1)
    clock.advance(30)
    flow: Any = breaker(a_call())
    next(flow)
    with pytest.raises(CircuitOpen):
        next(breaker(a_call()))

    flow.close()

    next(other := breaker(a_call()))
    other.close()


# --- what counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
@pytest.mark.parametrize("side", Side)
def test_codes(code: grpc.StatusCode, side: Side) -> None:
    """Five speak of the server's health, CANCELLED says nothing, and all others are answers."""
    breaker = CircuitBreaker()

    play(breaker, [failed(code)], side=side)

    cancelled = code is grpc.StatusCode.CANCELLED
    assert counted(breaker) == (int(not cancelled), int(code in FAILURES))
    assert len(FAILURES) == 5


def test_codes_by_choice() -> None:
    """RESOURCE_EXHAUSTED counts if it is asked for, and what is not asked for does not."""
    breaker = CircuitBreaker(codes={grpc.StatusCode.RESOURCE_EXHAUSTED})

    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, UNAVAILABLE):
        play(breaker, [failed(code)])

    assert counted(breaker) == (2, 1)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND])
def test_what_an_interceptor_refuses_counts_nowhere(code: grpc.StatusCode, side: Side) -> None:
    """Nobody was asked, so it says nothing, whatever its code."""
    breaker = CircuitBreaker()

    play(breaker, [failing(code, local=True)], side=side)

    assert counted(breaker) == (0, 0)


def test_an_answer_that_was_not_sent_for_counts_nowhere() -> None:
    """As one out of a cache."""
    breaker = CircuitBreaker()

    def cached(call: Call) -> Flow:
        return Outcome.success("kept")
        yield call

    play(chain(breaker, cached), [])

    assert counted(breaker) == (0, 0)


def test_a_handler_that_raises_is_a_failure() -> None:
    """On a server, what the breaker guards is the handler."""
    breaker = CircuitBreaker()

    play(breaker, [raised(KeyError("id"))], side=Side.SERVER)

    assert counted(breaker) == (1, 1)


def test_a_handler_that_takes_too_long_is_a_failure() -> None:
    """On a server the deadline is the handler's; a request that came too late is not its fault."""
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock)

    play(breaker, [ok(hang=True)], side=Side.SERVER, timeout=5, clock=clock)
    too_slow = counted(breaker)
    play(breaker, [], side=Side.SERVER, timeout=0, clock=clock)

    assert too_slow == counted(breaker) == (1, 1)


def test_the_deadline_of_a_client() -> None:
    """A server that did not answer in time has failed; a call with no time left was not sent."""
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock)

    play(breaker, [ok(hang=True)], timeout=5, clock=clock)
    too_slow = counted(breaker)
    play(breaker, [], timeout=0, clock=clock)

    assert too_slow == counted(breaker) == (1, 1)


def test_slow_calls_are_failures() -> None:
    """Whatever they answer; a stream lasts as long as it is wanted."""
    breaker = CircuitBreaker(slow_call=1)

    play(breaker, [ok(delay=1)])
    play(breaker, [ok(delay=1.5)])
    play(breaker, [failed(grpc.StatusCode.NOT_FOUND, delay=2)])
    for kind in (Kind.UNARY_STREAM, Kind.STREAM_UNARY, Kind.STREAM_STREAM):
        play(breaker, [ok(delay=60)], kind=kind)

    assert counted(breaker) == (6, 2)


def test_fewer_than_the_minimum_never_open_it() -> None:
    """Nineteen failures of nineteen are not enough; the twentieth is."""
    breaker, modes = CircuitBreaker(), list[Mode]()

    for _ in range(20):
        play(breaker, [failed(UNAVAILABLE)])
        modes.append(mode(breaker))

    assert modes == [Mode.CLOSED] * 19 + [Mode.OPEN]


def test_failures_of_long_ago_are_forgotten() -> None:
    """What is older than the window does not count; in a window of calls only their number does."""
    clock = FakeClock()
    by_time = CircuitBreaker(minimum=2, window=seconds(30), clock=clock)
    by_number = CircuitBreaker(minimum=2, window=calls(2), clock=clock)

    for breaker in (by_time, by_number):
        play(breaker, [failed(UNAVAILABLE)])
    clock.advance(31)
    for breaker in (by_time, by_number):
        play(breaker, [failed(UNAVAILABLE)])

    assert (mode(by_time), mode(by_number)) == (Mode.CLOSED, Mode.OPEN)


def test_each_attempt_of_a_retry_counts() -> None:
    """With `Retry` outside of it: as soon as it opens, the attempts that are left are refused."""
    clock = FakeClock()
    breaker = CircuitBreaker(minimum=2, clock=clock)

    played = play(chain(Retry(4, safe=True), breaker), [failed(UNAVAILABLE), ...], clock=clock)

    assert len(played.sent) == 2
    assert isinstance(played.outcome.error, CircuitOpen)


# --- 100 at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_as_many_threads_pass_as_there_are_probes(kind: Kind) -> None:
    """Of 100 threads that call at once three pass, while the others are refused; then it is closed."""
    clock, passed, refused = FakeClock(), threading.Semaphore(0), threading.Semaphore(0)
    go_on, barrier, replies = threading.Event(), threading.Barrier(CALLERS), []

    def hold(call: Call) -> Flow:
        passed.release()
        assert go_on.wait(PATIENCE)
        yield call

    breaker = tripped(clock, probes=PROBES)
    clock.advance(30)
    place = Place(asyncio=False, side=Side.CLIENT, kind=kind)

    with place.open(breaker, hold) as rpc:

        def run() -> None:
            barrier.wait(PATIENCE)
            reply = rpc.call(*requests(place))
            replies.append(reply)
            if not reply.ok:
                refused.release()

        threads = [threading.Thread(target=run) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for semaphore, number in ((refused, CALLERS - PROBES), (passed, PROBES)):
            assert all(semaphore.acquire(timeout=PATIENCE) for _ in range(number))
        while_held = mode(breaker)
        go_on.set()
        for thread in threads:
            thread.join(PATIENCE)

    assert len(rpc.attempts) == PROBES == sum(reply.ok for reply in replies)
    assert {type(reply.error).__name__ for reply in replies if not reply.ok} == {"CircuitOpen"}
    assert (while_held, mode(breaker)) == (Mode.HALF_OPEN, Mode.CLOSED)


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
async def test_as_many_tasks_pass_as_there_are_probes(kind: Kind) -> None:
    """Of 100 tasks three pass, while the others are refused; then it is closed."""
    clock, go_on, refused, echo = FakeClock(), asyncio.Event(), asyncio.Semaphore(0), Echo()

    def hold(call: Call) -> Flow:
        yield from wait(go_on.wait())
        yield call

    breaker = tripped(clock, probes=PROBES)
    clock.advance(30)
    stack = (breaker, hold)
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), *stack) as channel:
        method = getattr(Stub(channel), kind.value)

        async def run() -> bool:
            try:
                await method(iter(["a"]) if kind.request_streaming else "a")
            except CircuitOpen:
                refused.release()
                return False
            return True

        tasks = [asyncio.create_task(run()) for _ in range(CALLERS)]
        async with asyncio.timeout(PATIENCE):
            for _ in range(CALLERS - PROBES):
                await refused.acquire()
            while_held = mode(breaker)
            go_on.set()
            passed = await asyncio.gather(*tasks)

    assert sum(passed) == len(echo.attempts) == PROBES
    assert (while_held, mode(breaker)) == (Mode.HALF_OPEN, Mode.CLOSED)


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "open_for"),
    [
        (None, {"/a.A/One", "/a.A/Two", "/b.B/One"}),
        (by_service, {"/a.A/One", "/a.A/Two"}),
        (by_method, {"/a.A/One"}),
        (lambda call: call.method.name, {"/a.A/One", "/b.B/One"}),
    ],
    ids=["target", "service", "method", "own"],
)
def test_a_breaker_for_each_key(key: Any, open_for: set[str]) -> None:
    """What fails opens the breaker of its key, and of no other."""
    breaker = quick(FakeClock(), **({} if key is None else {"key": key}))
    play(breaker, [failed(UNAVAILABLE)], method="/a.A/One")

    refused = {
        method
        for method in ("/a.A/One", "/a.A/Two", "/b.B/One")
        if isinstance(play(breaker, [ok(), ...], method=method).outcome.error, CircuitOpen)
    }

    assert refused == open_for


def test_keys_are_bounded() -> None:
    """1,024 are kept; the one used longest ago is forgotten first."""
    breaker = quick(FakeClock(), key=by_method)
    play(breaker, method="/a.A/first")
    play(breaker, method="/a.A/second")
    play(breaker, method="/a.A/first")

    for number in range(1023):
        play(breaker, method=f"/a.A/{number}")

    kept = breaker.snapshot()
    assert len(kept) == 1024
    assert "/a.A/first" in kept
    assert "/a.A/second" not in kept


@pytest.mark.parametrize(
    ("for_all", "for_one", "expected"),
    [
        ("reset", "force_open", Mode.FORCED_OPEN),
        ("disable", "force_open", Mode.FORCED_OPEN),
        ("force_open", "reset", Mode.CLOSED),
    ],
)
def test_what_an_operator_chose_is_not_forgotten(for_all: str, for_one: str, expected: Mode) -> None:
    """However many keys come after it, and whatever is chosen for all others."""
    breaker = quick(FakeClock(), key=by_method)
    getattr(breaker, for_all)()
    getattr(breaker, for_one)("/a.A/chosen")

    for number in range(1100):
        play(breaker, [] if for_all == "force_open" else [ok()], method=f"/a.A/{number}")

    assert mode(breaker, "/a.A/chosen") is expected
    assert len(breaker.snapshot()) == 1024 + 1
    getattr(breaker, for_all)("/a.A/chosen")  # as all the others again, so it may be forgotten
    assert len(breaker.snapshot()) == 1024


def test_an_operator_may_choose_more_than_are_kept() -> None:
    """What is chosen is kept, beside all others."""
    breaker = quick(FakeClock(), key=by_method)

    for number in range(1100):
        breaker.force_open(f"/a.A/{number}")
    play(breaker, method="/b.B/One")
    play(breaker, method="/b.B/Two")

    kept = breaker.snapshot()
    assert sum(state.mode is Mode.FORCED_OPEN for state in kept.values()) == 1100
    assert set(kept) - {f"/a.A/{number}" for number in range(1100)} == {"/b.B/One", "/b.B/Two"}


def test_a_key_that_is_no_text_is_told() -> None:
    """The RPC ends with a status that names the interceptor, and nothing is sent."""
    breaker = CircuitBreaker(key=lambda call: 7)  # type: ignore[arg-type, return-value]

    outcome = play(breaker, []).outcome

    assert (outcome.code, outcome.details) == (
        grpc.StatusCode.INTERNAL,
        "interceptor CircuitBreaker raised TypeError",
    )


# --- operators ------------------------------------------------------------------------------------------------------


def test_forced_open() -> None:
    """Nothing passes, however much time does, until it is reset."""
    clock = FakeClock()
    breaker = quick(clock)
    breaker.force_open()
    clock.advance(1e6)

    error = play(breaker, [], clock=clock).outcome.error
    breaker.reset()
    after = play(breaker, clock=clock).outcome

    assert isinstance(error, CircuitOpen) and error.retry_in is None
    assert error.details() == "the circuit breaker is held open by an operator"
    assert after.ok


def test_disabled() -> None:
    """Everything passes, and nothing is counted, until it is reset."""
    breaker = quick(FakeClock())
    breaker.disable()

    for _ in range(30):
        play(breaker, [failed(UNAVAILABLE)])
    disabled = next(iter(breaker.snapshot().values()))
    breaker.reset()
    play(breaker, [failed(UNAVAILABLE)])

    assert disabled == CircuitState(mode=Mode.DISABLED, calls=0, failures=0, retry_in=None)
    assert mode(breaker) is Mode.OPEN


def test_one_key_or_all() -> None:
    """With a key it is about that one; without, about all, those that come later included."""
    breaker = quick(FakeClock(), key=by_service)
    play(breaker, method="/a.A/One")
    breaker.force_open("a.A")
    one = {key: state.mode for key, state in breaker.snapshot().items()}
    breaker.disable()
    play(breaker, method="/b.B/One")

    assert one == {"a.A": Mode.FORCED_OPEN}
    assert {key: state.mode for key, state in breaker.snapshot().items()} == {
        "a.A": Mode.DISABLED,
        "b.B": Mode.DISABLED,
    }


def test_an_operator_who_comes_between_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A breaker that is made while all are forced open is forced open."""
    clock = FakeClock()
    breaker = quick(clock)
    monkeypatch.setattr(breaker, "_teller", lambda key: breaker.force_open())

    outcome = play(breaker, [], clock=clock).outcome

    assert isinstance(outcome.error, CircuitOpen)
    assert mode(breaker) is Mode.FORCED_OPEN


# --- hooks ----------------------------------------------------------------------------------------------------------


def test_every_transition_is_told() -> None:
    """Key, both modes, and what had been counted, in order."""
    clock, told = FakeClock(), list[TransitionDetails]()
    breaker = CircuitBreaker(minimum=2, probes=1, open_for=30, key=by_service, clock=clock, on_transition=told.append)

    play(breaker, [ok()], method=METHOD)
    play(breaker, [failed(UNAVAILABLE)], method=METHOD)
    clock.advance(30)
    play(breaker, [ok()], method=METHOD)
    breaker.force_open()

    assert {details.key for details in told} == {"pay.v1.Cards"}
    assert [(details.before, details.after, details.calls, details.failures) for details in told] == [
        (Mode.CLOSED, Mode.OPEN, 2, 1),
        (Mode.OPEN, Mode.HALF_OPEN, 2, 1),
        (Mode.HALF_OPEN, Mode.CLOSED, 1, 0),
        (Mode.CLOSED, Mode.FORCED_OPEN, 0, 0),
    ]


def test_a_hook_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The RPC ends as the server said, and the breaker is open."""

    def fail(details: TransitionDetails) -> None:
        raise KeyError(details.key)

    breaker = quick(FakeClock(), on_transition=fail)

    with caplog.at_level(logging.ERROR, "interpose"):
        outcome = play(breaker, [failed(UNAVAILABLE, "as it said")]).outcome

    assert (outcome.code, outcome.details) == (UNAVAILABLE, "as it said")
    assert caplog.messages == ["on_transition failed; the circuit breaker is open all the same"]
    assert mode(breaker) is Mode.OPEN


def test_a_hook_may_ask_and_command() -> None:
    """It is called while nothing is held."""
    seen: list[Mode] = []

    def hold(details: TransitionDetails) -> None:
        seen.append(mode(breaker))
        if details.after is Mode.OPEN:
            breaker.force_open()

    breaker = quick(FakeClock(), on_transition=hold)
    play(breaker, [failed(UNAVAILABLE)])

    assert seen == [Mode.OPEN, Mode.FORCED_OPEN]


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"failure_rate": 0}, "failure_rate must be a number above 0, up to 1, not 0"),
        ({"failure_rate": 1.1}, "failure_rate must be a number above 0, up to 1, not 1.1"),
        ({"minimum": 0}, "minimum must be a whole number from 1, not 0"),
        ({"minimum": 20, "window": calls(19)}, r"minimum must fit into the window, .*: 20 of calls\(19\)"),
        ({"window": 30}, r"window must be seconds\(…\) or calls\(…\), not 30"),
        ({"open_for": 0}, "open_for must be above 0 and below 86400 seconds, not 0"),
        ({"probes": 0}, "probes must be a whole number from 1 to 1000, not 0"),
        ({"slow_call": -1}, "slow_call must be None or above 0"),
        ({"codes": ()}, "codes must be a set like"),
        ({"codes": {grpc.StatusCode.OK}}, "codes must be a set like"),
        ({"key": "service"}, "key must be a function of the call, like by_method, not 'service'"),
        ({"clock": 7}, r"clock must have a method now\(\), not be 7"),
        ({"on_transition": 7}, "on_transition must be a function of TransitionDetails, not 7"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """They are a ValueError that says what to write instead."""
    with pytest.raises(ValueError, match=f"^CircuitBreaker: {fault}"):
        CircuitBreaker(**options)


def test_options_that_make_sense() -> None:
    """The ends of the ranges are in them."""
    CircuitBreaker(1, minimum=1, window=calls(1), open_for=1, probes=1, slow_call=0.1, codes=[UNAVAILABLE])
    CircuitBreaker(0.01, minimum=10**9, probes=1000)


def test_it_may_stand_under_a_condition() -> None:
    """As any interceptor: `when` keeps it away from streams that live for ever."""
    breaker = quick(FakeClock())
    guarded = when(lambda method: not method.kind.response_streaming, breaker)

    play(guarded, [failed(UNAVAILABLE)], kind=Kind.UNARY_STREAM)
    play(guarded, [ok()], kind=Kind.UNARY_UNARY)

    assert counted(breaker) == (1, 0)
