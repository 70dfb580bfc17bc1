"""ConcurrencyLimit: who gets in, who is refused and how, and that each slot comes back once."""

import asyncio
import gc
import statistics
import threading
from collections.abc import Callable
from time import process_time
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, errors
from interpose._clock import SYSTEM, Clock
from interpose._flow import Driver, Interceptor, layers
from interpose._method import Method
from interpose.interceptors import ConcurrencyLimit, ConcurrencyState, ShedDetails
from interpose.interceptors.concurrency_limit import Aimd, Fixed, Gradient, ShedReason, Until, Vegas
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, ok, play, raised
from interpose.testing.echo import path
from tests.interceptors.coalescing import Asked, answer, call_of
from tests.interceptors.driving import Told, overdue
from tests.support.patience import PATIENCE

RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SERVERS = [place for place in PLACES if place.side is Side.SERVER]


def incoming(kind: Kind = Kind.UNARY_UNARY, method: str | None = None, clock: Clock = SYSTEM, **metadata: str) -> Call:
    pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    return call_of(method=method or path(kind), kind=kind, side=Side.SERVER, metadata=pairs, clock=clock)


def asked(limit: ConcurrencyLimit, **options: Any) -> Asked:
    return Asked(limit, incoming(**options))


def counts(limit: ConcurrencyLimit) -> tuple[int, int, int]:
    state = limit.snapshot()
    return state.in_flight, state.queued, state.shed


def in_flight_when_none_waits(limit: ConcurrencyLimit) -> int:
    """A call whose client goes leaves the queue on a thread of the clock, a moment behind its end."""
    while counts(limit)[1]:
        pass
    return limit.snapshot().in_flight


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_one_too_many_is_refused_before_the_handler(place: Place) -> None:
    """At once, also where the client has not sent a message yet; the others are served."""
    limit = ConcurrencyLimit(1, queue=0, code=RESOURCE_EXHAUSTED, pushback=0.25)
    holder = asked(limit)
    with place.open(limit) as rpc:
        refused = rpc.call()
        holder.end(answer())
        served = rpc.call()

    assert (refused.code, refused.details) == (RESOURCE_EXHAUSTED, "too many calls at once")
    assert refused.trailing_metadata.get("grpc-retry-pushback-ms") == "250"
    assert refused.trailing_metadata.get("interpose-not-executed") == path(place.kind)
    assert served.ok and len(rpc.attempts) == 1
    assert counts(limit) == (0, 0, 1)


def test_a_client_that_sends_nothing_is_refused_too() -> None:
    """The refusal waits for no message of a request stream."""
    limit, silent = ConcurrencyLimit(1, queue=0), threading.Event()

    def nothing() -> Any:
        silent.wait(PATIENCE)
        yield from ()

    holder = asked(limit)
    with Echo().serve(limit) as target, grpc.insecure_channel(target) as channel:
        call = Stub(channel).stream_stream(nothing(), timeout=PATIENCE)
        code = call.code()
        silent.set()

    assert code is UNAVAILABLE
    assert holder.sends


def test_health_is_never_refused() -> None:
    """Nor counted: a health check that is watched for hours takes no slot."""
    limit = ConcurrencyLimit(1, queue=0)
    holder = asked(limit)
    health = [asked(limit, method="/grpc.health.v1.Health/Check") for _ in range(3)]

    assert all(one.sends for one in (holder, *health))
    assert counts(limit) == (1, 0, 0)


def test_names_of_methods_do_not_fill_the_memory() -> None:
    """A peer may ask for methods of any name."""
    limit = ConcurrencyLimit(1)
    for number in range(2000):
        asked(limit, method=f"/made.up.Service/M{number}").end(answer())

    assert len(limit._counted) <= 1024


# --- the queue ------------------------------------------------------------------------------------------------------


def test_the_lowest_priority_is_refused_first() -> None:
    """By metadata; what is no number counts as 0."""
    limit = ConcurrencyLimit(1, queue=2)
    holder = asked(limit)
    low, odd, high = (asked(limit, x_priority=text) for text in ("-5", "first class", "+7"))
    low.go_on()
    holder.end(answer())
    high.go_on()

    assert isinstance(low.error, errors.Unavailable)
    assert high.sends and odd.waits
    assert counts(limit) == (1, 1, 1)


def test_what_on_shed_is_given() -> None:
    """Why, and which call; what it raises changes nothing."""
    seen: list[ShedDetails] = []

    def hook(details: ShedDetails) -> None:
        seen.append(details)
        raise KeyError(details.priority)

    limit = ConcurrencyLimit(1, queue=1, priority=lambda call: len(call.request), on_shed=hook)
    holder = asked(limit)
    displaced = asked(limit)
    longer = Asked(limit, call_of("longer", side=Side.SERVER))
    displaced.go_on()
    full = asked(limit)
    assert holder.sends
    longer.fail(errors.DeadlineExceeded("the time to wait is over", local=True))

    assert [one.reason for one in seen] == [ShedReason.DISPLACED, ShedReason.FULL, ShedReason.TIMED_OUT]
    assert [one.priority for one in seen] == [1, 1, 6]
    assert full.error is not None and displaced.error is not None and longer.error is not None
    assert counts(limit) == (1, 0, 3)


def test_a_busy_caller_does_not_take_all() -> None:
    """Of equal priority the partition with fewer calls in hand goes first."""
    limit = ConcurrencyLimit(2, queue=4, partition=lambda call: str(call.metadata.get("who")))
    holders = [asked(limit, who="busy") for _ in range(2)]
    busy, quiet = asked(limit, who="busy"), asked(limit, who="quiet")
    holders[0].end(answer())
    quiet.go_on()

    assert quiet.sends and busy.waits
    assert limit.snapshot() == ConcurrencyState(
        limit=2, in_flight=2, queued=1, shed=0, partitions={"busy": 1, "quiet": 1}
    )


@pytest.mark.parametrize("on_loop", [False, True])
def test_one_that_waits_too_long_is_refused(on_loop: bool) -> None:
    """After `queue_timeout`, by the clock."""
    place = next(place for place in SERVERS if place.asyncio is on_loop)
    clock = FakeClock(auto=True)
    limit = ConcurrencyLimit(1, queue=1, queue_timeout=5)
    holder = asked(limit)
    with place.open(limit, clock=clock) as rpc:
        reply = rpc.call()

    assert holder.sends and not rpc.attempts
    assert (reply.code, clock.pauses) == (UNAVAILABLE, [5])
    assert counts(limit) == (1, 0, 1)


@pytest.mark.parametrize("place", SERVERS[::4], ids=str)
def test_one_that_waits_is_served_when_another_ends(place: Place) -> None:
    """On any thread, and without a timer that rings."""
    clock = FakeClock()
    limit = ConcurrencyLimit(1, queue=1, queue_timeout=5)
    holder = asked(limit)
    with place.open(limit, clock=clock) as rpc:
        freeing = threading.Thread(target=lambda: (clock.wait_for(), holder.end(answer())))
        freeing.start()
        reply = rpc.call()
        freeing.join()

    assert reply.ok
    assert counts(limit) == (0, 0, 0)


# --- each slot comes back once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", SERVERS, ids=str)
@pytest.mark.parametrize("until", Until)
def test_however_it_ends_the_slot_comes_back(place: Place, until: Until) -> None:
    """Well, with a status, by an exception; after messages or before any."""
    limit = ConcurrencyLimit(1, queue=0, until=until)
    script = [ok(), failed(UNAVAILABLE), failed(RESOURCE_EXHAUSTED, after=1), raised(ValueError("a bug")), ok()]
    with place.open(limit, script=script) as rpc:
        codes = [rpc.call().code.name for _ in script]

    assert codes == ["OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "UNKNOWN", "OK"]
    assert counts(limit) == (0, 0, 0)


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_STREAM], ids=str)
def test_a_client_that_goes_gives_its_slot_back(kind: Kind) -> None:
    """By a cancel, on a sync server whose handler then ends."""
    limit, echo = ConcurrencyLimit(1, queue=0), Echo([ok(hang=True)])
    with echo.serve(limit) as target, grpc.insecure_channel(target) as channel:
        method = getattr(Stub(channel), kind.value)
        call = method.future("a") if kind is Kind.UNARY_UNARY else method(iter("a"))
        echo.wait_begun()
        held = counts(limit)
        call.cancel()
        echo.wait_ended()

    assert held == (1, 0, 0)
    assert counts(limit) == (0, 0, 0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("collected", [False, True])
def test_a_flow_that_is_dropped_gives_its_slot_back(collected: bool, streaming: bool) -> None:
    """To the next in the queue, who goes on on another thread: here the collector may have come in the middle of a lock."""
    kind = Kind.UNARY_STREAM if streaming else Kind.UNARY_UNARY
    limit = ConcurrencyLimit(1, queue=1, until="first message")
    flows = [asked(limit, kind=kind), asked(limit, kind=kind)]
    threads: list[threading.Thread] = []
    flows[1].step.awaitable.add_done_callback(lambda _: threads.append(threading.current_thread()))
    if collected:
        del flows[0]
        gc.collect()
    else:
        flows.pop(0).drop()
    flows[-1].go_on()

    assert flows[-1].sends
    assert threads != [threading.current_thread()]


def test_one_that_is_dropped_while_it_waits() -> None:
    """It is in nobody's way."""
    limit = ConcurrencyLimit(1, queue=2)
    holder, gone, other = (asked(limit) for _ in range(3))
    gone.drop()
    holder.end(answer())
    other.go_on()

    assert other.sends
    assert limit.snapshot().in_flight == 1


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_client_whose_time_is_over_while_it_waits(on_loop: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Its place in the queue is free again, and that is no fault of ours."""
    limit, told = ConcurrencyLimit(1, queue=1, queue_timeout=PATIENCE), Told()
    place = next(place for place in SERVERS if place.asyncio is on_loop)
    holder = asked(limit)
    with place.open(told, limit) as rpc:
        code = overdue(rpc.call, told.ended).code

    assert (code, in_flight_when_none_waits(limit)) == (grpc.StatusCode.DEADLINE_EXCEEDED, 1)
    assert holder.sends and not caplog.records


async def test_a_client_that_goes_while_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    """On a loop that is a cancelled task, and no fault of ours either."""
    clock, told = FakeClock(), Told()
    limit = ConcurrencyLimit(1, queue=1)
    holder = asked(limit)
    async with Echo().serve_aio(told, limit, clock=clock) as target, grpc.aio.insecure_channel(target) as channel:
        call = Stub(channel).unary_unary("a")
        waiting = asyncio.ensure_future(call.code())
        await clock.reached()
        call.cancel()
        assert await asyncio.to_thread(told.ended.acquire, timeout=PATIENCE)
        assert await waiting is grpc.StatusCode.CANCELLED

    assert told.outcomes[0].code is grpc.StatusCode.CANCELLED
    assert in_flight_when_none_waits(limit) == 1
    assert holder.sends and not caplog.records


def test_until_its_first_message_a_stream_counts() -> None:
    """Then its slot is free; with END only when it has ended."""
    seen: list[int] = []

    def look(limit: ConcurrencyLimit) -> Interceptor:
        def looking(call: Call) -> Flow:
            yield call.tap(responses=lambda _: seen.append(limit.snapshot().in_flight))

        return looking

    for until in ("end", "first message"):
        limit = ConcurrencyLimit(1, until=until)
        with SERVERS[1].open(look(limit), limit) as rpc:
            assert len(rpc.call().messages) == 3

    assert seen == [1, 1, 1, 0, 0, 0]


# --- limits ---------------------------------------------------------------------------------------------------------


def test_failures_that_are_quick_say_nothing() -> None:
    """Of calls that fail only those count that ran out of time."""
    clock = FakeClock()
    limit = ConcurrencyLimit(Aimd(10, timeout=1))

    def calls(code: grpc.StatusCode) -> int:
        clock.advance(0.2)
        flows = [asked(limit, clock=clock) for _ in range(10)]
        for flow in flows:
            flow.end(Outcome(code))
        return limit.snapshot().limit

    assert calls(grpc.StatusCode.NOT_FOUND) == 10
    assert calls(grpc.StatusCode.OK) == 11
    assert calls(grpc.StatusCode.DEADLINE_EXCEEDED) == 9


def test_it_can_be_played() -> None:
    """With the defaults, in a test without I/O."""
    limit = ConcurrencyLimit()

    assert play(limit, side=Side.SERVER).outcome.ok
    assert play(limit, side=Side.CLIENT).outcome.ok
    assert repr(ConcurrencyLimit(Fixed(3), queue=2)) == "ConcurrencyLimit(limit=Fixed(3), queue=2)"


def test_options_are_looked_at_together() -> None:
    """One error with every fault."""
    with pytest.raises(ValueError, match="ConcurrencyLimit: ") as error:
        ConcurrencyLimit(
            0,
            queue=-1,
            queue_timeout=0,
            priority="X Priority",
            partition=3,  # type: ignore[arg-type]
            until="now",
            exempt="health",
            code=grpc.StatusCode.OK,
            pushback=-1,  # type: ignore[arg-type]
            on_shed="log",  # type: ignore[arg-type]
        )

    names = [
        "limit",
        "queue",
        "queue_timeout",
        "priority",
        "partition",
        "until",
        "exempt",
        "code",
        "pushback",
        "on_shed",
    ]
    assert [fault.split()[0] for fault in str(error.value).removeprefix("ConcurrencyLimit: ").split("; ")] == names


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fixed(0),
        lambda: Aimd(timeout=0),
        lambda: Vegas(5, minimum=6),
        lambda: Gradient(tolerance=0.5),
        lambda: Gradient(True),
        lambda: ConcurrencyLimit(Gradient),  # type: ignore[arg-type]
        lambda: ConcurrencyLimit("ten"),  # type: ignore[arg-type]
        lambda: ConcurrencyLimit(pushback=float("nan")),
    ],
)
def test_options_of_algorithms(make: Callable[[], object]) -> None:
    """Each says what to write instead."""
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize("option", ["priority", "partition"])
def test_functions_that_give_something_else(option: str) -> None:
    """A bug of the server: the call fails, and takes no slot."""
    limit = ConcurrencyLimit(1, **({"partition": lambda _: "p"} | {option: lambda _: None}))  # type: ignore[arg-type]
    played = play(limit, script=(), side=Side.SERVER)

    assert played.outcome.code is grpc.StatusCode.INTERNAL
    assert counts(limit) == (0, 0, 0)


# --- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_it_costs_little() -> None:
    """Three quarters of a call with a flow that does nothing, at most: that takes 1.9 µs where 1.5 µs are the bound."""
    method = Method("/shop.v1.Orders/Place", Kind.UNARY_UNARY)

    def nothing(call: Call) -> Flow:
        yield call

    def seconds(interceptor: Interceptor) -> float:
        stack, began = layers((interceptor,), method), process_time()
        for _ in range(2000):
            driver = Driver(stack)
            driver.start(Call(method, Side.SERVER, b"x"))
            driver.tell(Outcome())
        return process_time() - began

    limit = ConcurrencyLimit()
    ratios = [seconds(limit) / seconds(nothing) for _ in range(15)]

    assert statistics.median(ratios) < 1.75
