"""FaultInjection: each fault in every place, how often, and what it takes to switch it on."""

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, chain, when
from interpose.interceptors import Retry
from interpose.interceptors.fault_injection import FaultInjection, InjectedFault
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, ok, play
from tests.interceptors.driving import Told, each, overdue, requests

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DATA_LOSS = grpc.StatusCode.DATA_LOSS
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED

RESPONSE_STREAMS = [place for place in PLACES if place.kind.response_streaming]
UPLOADS = [place for place in PLACES if place.kind is Kind.STREAM_UNARY]
UNARY = [place for place in PLACES if place.kind is Kind.UNARY_UNARY]
SYNC_CLIENT = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)

ABORT_HTTP = "x-envoy-fault-abort-request"
ABORT_GRPC = "x-envoy-fault-abort-grpc-request"
ABORT_PERCENT = "x-envoy-fault-abort-request-percentage"
DELAY = "x-envoy-fault-delay-request"
DELAY_PERCENT = "x-envoy-fault-delay-request-percentage"

ALL_OF_THEM = {
    "delay": 0.5,
    "delay_percent": 30,
    "abort": UNAVAILABLE,
    "abort_percent": 20,
    "drop_percent": 10,
    "break_after": 2,
    "break_percent": 40,
}


def answers(call: Call) -> Flow:
    """The innermost interceptor of RPCs of which only the fault is of interest: nothing takes time or is sent."""
    return Outcome.success()
    yield call


def suffered(times: int = 1, *, kind: Kind = Kind.UNARY_STREAM, metadata: Any = (), **options: Any) -> list[Any]:
    """What happens to so many RPCs, one after the other: a tuple for each fault, None for an RPC that is spared."""
    told: list[InjectedFault] = []
    injection = FaultInjection(enabled=True, on_fault=told.append, **options)
    faults: list[Any] = []
    for _ in range(times):
        told.clear()
        play(chain(injection, answers), [], kind=kind, metadata=metadata)
        faults += [tell(fault) for fault in told] or [None]
    return faults


def tell(fault: InjectedFault) -> tuple[float, grpc.StatusCode | None, bool, int | None]:
    return fault.delay, fault.abort, fault.dropped, fault.break_after


def is_aborted(fault: Any) -> bool:
    return fault is not None and fault[1] is not None


def is_near(hits: int, times: int, percent: float) -> bool:
    """Are there as many as chance would have? Four standard deviations away is not."""
    share = percent / 100
    return abs(hits - times * share) < 4 * math.sqrt(times * share * (1 - share))


def asked(*pairs: tuple[str, str], **options: Any) -> Any:
    """Delay and abort of a call with this metadata, where headers are listened to; None if it is spared."""
    [fault] = suffered(metadata=pairs, headers=True, **options)
    return fault and fault[:2]


# --- in all places --------------------------------------------------------------------------------------------------


def test_an_abort(place: Place) -> None:
    """Nothing is sent, or handled; the caller and outer interceptors see the status, and that it was on purpose."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), FaultInjection(enabled=True, abort=DATA_LOSS)) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.details) == (DATA_LOSS, "fault injected: abort")
    assert rpc.attempts == []
    [outcome] = outcomes
    assert outcome.code is DATA_LOSS and outcome.local


def test_a_delay(place: Place) -> None:
    """The RPC comes later, and is otherwise as ever."""
    clock = FakeClock(auto=True)

    with place.open(FaultInjection(enabled=True, delay=2.5), clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert 2.5 in clock.pauses
    assert len(rpc.attempts) == 1


def test_a_delay_and_an_abort(place: Place) -> None:
    """First the one, then the other; still nothing is sent."""
    clock = FakeClock(auto=True)
    injection = FaultInjection(enabled=True, delay=2.5, abort=DATA_LOSS)

    with place.open(injection, clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.details) == (DATA_LOSS, "fault injected: abort")
    assert 2.5 in clock.pauses
    assert rpc.attempts == []


def test_a_delay_and_an_abort_by_the_machines_clock(place: Place) -> None:
    """With real time, too, the abort comes behind the delay and nothing is sent."""
    with place.open(FaultInjection(enabled=True, delay=0.01, abort=DATA_LOSS)) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is DATA_LOSS
    assert rpc.attempts == []


def test_a_request_that_is_lost(place: Place) -> None:
    """The caller waits to its deadline, and no handler ever runs."""
    told = Told()

    with place.open(told, FaultInjection(enabled=True, drop_percent=100)) as rpc:
        reply = overdue(rpc.call, told.ended, *requests(place))

    assert reply.code is DEADLINE_EXCEEDED
    assert rpc.attempts == []
    assert [outcome.ok for outcome in told.outcomes] == [False]


def test_a_delay_beyond_the_deadline(place: Place) -> None:
    """The deadline holds during the delay, and its status is not replaced by that of the abort."""
    told = Told()

    with place.open(told, FaultInjection(enabled=True, delay=3600, abort=DATA_LOSS)) as rpc:
        reply = overdue(rpc.call, told.ended, *requests(place))

    assert reply.code is DEADLINE_EXCEEDED
    assert [outcome.code is DATA_LOSS for outcome in told.outcomes] == [False]


@pytest.mark.parametrize("place", RESPONSE_STREAMS, ids=str)
@pytest.mark.parametrize("messages", [0, 1, 2])
def test_a_stream_that_breaks(place: Place, messages: int) -> None:
    """So many messages arrive, then the status."""
    with place.open(FaultInjection(enabled=True, break_after=messages), script=[ok("a", "b", "c")]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is UNAVAILABLE
    assert reply.details == f"fault injected: the stream breaks after {messages} messages"
    assert reply.messages == ["a", "b", "c"][:messages]


@pytest.mark.parametrize("place", RESPONSE_STREAMS, ids=str)
def test_a_stream_that_ends_before_it_would_break(place: Place) -> None:
    """A stream of no more messages than that is whole, each time anew."""
    with place.open(FaultInjection(enabled=True, break_after=3), script=[ok("a", "b", "c"), ...]) as rpc:
        replies = [rpc.call(*requests(place)), rpc.call(*requests(place))]

    assert [(reply.ok, reply.messages) for reply in replies] == [(True, ["a", "b", "c"])] * 2


@pytest.mark.parametrize("place", UPLOADS, ids=str)
def test_an_upload_that_breaks(place: Place) -> None:
    """Where only requests stream, theirs is the stream that breaks."""
    told = Told()

    with place.open(told, FaultInjection(enabled=True, break_after=1)) as rpc:
        reply = rpc.call("a", "b", "c")
        assert told.ended.acquire(timeout=20)

    assert reply.code is UNAVAILABLE
    assert [outcome.requests < 3 for outcome in told.outcomes] == [True]


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_an_rpc_without_a_stream_does_not_break(place: Place) -> None:
    """There is no middle in which it could."""
    with place.open(FaultInjection(enabled=True, break_after=0)) as rpc:
        reply = rpc.call("a")

    assert reply.ok


def test_off_unless_switched_on(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Faults that are configured do not happen, and nobody is alarmed."""
    with place.open(FaultInjection(delay=3600, abort=DATA_LOSS, drop_percent=100, break_after=0)) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert "FaultInjection" not in caplog.text


# --- the switch -----------------------------------------------------------------------------------------------------


def test_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning when it is made, and none for its RPCs."""
    injection = FaultInjection(enabled=True, abort=DATA_LOSS)
    said = caplog.text

    for _ in range(3):
        play(injection, [])

    assert said.count("FaultInjection is ON") == 1
    assert caplog.text == said
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_switch_is_asked_for_each_rpc(caplog: pytest.LogCaptureFixture) -> None:
    """A function turns it on and off while the program runs; it is loud when it is first on, and only then."""
    positions = iter([False, True, False, True])
    injection = FaultInjection(enabled=lambda: next(positions), abort=DATA_LOSS)
    seen = []

    for script in ([ok()], [], [ok()], []):
        said = caplog.text.count("FaultInjection is ON")
        seen.append((play(injection, script).outcome.code.name, said))

    assert seen == [("OK", 0), ("DATA_LOSS", 0), ("OK", 1), ("DATA_LOSS", 1)]
    assert caplog.text.count("FaultInjection is ON") == 1


def test_some_methods_only() -> None:
    """`when` chooses the methods."""
    stack = when("/pay.v1.Cards/*", FaultInjection(enabled=True, abort=DATA_LOSS))

    hit = play(stack, [], method="/pay.v1.Cards/Charge").outcome
    spared = play(stack, [ok("paid")], method="/pay.v1.Cash/Charge").outcome

    assert (hit.code, spared.response) == (DATA_LOSS, "paid")


def test_some_calls_only() -> None:
    """`match` chooses by all that a call has, and who does not match throws no dice."""
    injection = FaultInjection(
        enabled=True, abort=DATA_LOSS, match=lambda call: call.metadata.get("x-tester") == "anna"
    )

    hit = play(injection, [], metadata=[("x-tester", "anna")]).outcome
    spared = play(injection, [ok("paid")], metadata=[("x-tester", "bert")]).outcome

    assert (hit.code, spared.response) == (DATA_LOSS, "paid")


def test_a_match_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """The RPC ends with INTERNAL, which names the interceptor; nothing hangs and no permit is lost."""

    def broken(call: Call) -> bool:
        raise KeyError("x-tester")

    outcome = play(FaultInjection(enabled=True, match=broken), []).outcome

    assert outcome.code is grpc.StatusCode.INTERNAL
    assert "FaultInjection raised KeyError" in outcome.details


# --- how often ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_faults() -> None:
    """Run after run the n-th RPC suffers the same; another seed is another story."""
    runs = [suffered(200, seed=seed, **ALL_OF_THEM) for seed in (7, 7, 8)]

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_percentages_are_kept() -> None:
    """Each fault hits its share of 4000 RPCs."""
    faults = [fault or (0, None, False, None) for fault in suffered(4000, seed=7, **ALL_OF_THEM)]

    assert is_near(sum(fault[0] > 0 for fault in faults), 4000, 30)
    assert is_near(sum(map(is_aborted, faults)), 4000, 20)
    assert is_near(sum(fault[2] for fault in faults), 4000, 10)
    assert is_near(sum(fault[3] is not None for fault in faults), 4000, 40)


def test_each_fault_has_its_own_dice() -> None:
    """Delay and abort meet as often as chance has it: 30 % of 20 % (gRFC A33)."""
    faults = suffered(4000, seed=7, **ALL_OF_THEM)

    assert is_near(sum(is_aborted(fault) and fault[0] > 0 for fault in faults), 4000, 6)


def test_one_fault_less_leaves_the_others_as_they_were() -> None:
    """A run with a seed can be narrowed down: without the delays the same RPCs are aborted."""
    aborts: dict[str, Any] = {"seed": 7, "abort": DATA_LOSS, "abort_percent": 20}

    alone = suffered(100, **aborts)
    beside_delays = suffered(100, delay=1, delay_percent=30, **aborts)

    assert [is_aborted(fault) for fault in beside_delays] == [is_aborted(fault) for fault in alone]
    assert 0 < sum(map(is_aborted, alone)) < 100


class Interrupted(float):
    """A percentage: while the dice of one RPC are compared with it for the first time, something else happens."""

    def __new__(cls, percent: float, meanwhile: Callable[[], object]) -> "Interrupted":
        made = super().__new__(cls, percent)
        made.meanwhile = [meanwhile]
        return made

    meanwhile: list[Callable[[], object]]

    def __gt__(self, dice: float) -> bool:
        if self.meanwhile:
            self.meanwhile.pop()()
        return float(self) > dice


@pytest.mark.parametrize("seed", range(10))
def test_two_rpcs_do_not_mix_their_dice(seed: int) -> None:
    """One comes while the other throws, as on two threads: each has what it would have had alone, the first first."""
    told: dict[str, InjectedFault] = {}

    def rpc(name: str) -> None:
        play(chain(injection, answers), [], kind=Kind.UNARY_STREAM, method=f"/dice/{name}")

    options: dict[str, Any] = ALL_OF_THEM | {"delay_percent": Interrupted(30, lambda: rpc("second"))}
    injection = FaultInjection(
        enabled=True, seed=seed, on_fault=lambda fault: told.update({fault.call.method.name: fault}), **options
    )

    rpc("first")

    together = [tell(told[name]) if name in told else None for name in ("first", "second")]
    assert together == suffered(2, seed=seed, **ALL_OF_THEM)


@pytest.mark.parametrize(("percent", "hits"), [(0, 0), (100, 300)])
def test_never_and_always(percent: float, hits: int) -> None:
    """0 % is never, 100 % is always."""
    faults = suffered(300, abort=DATA_LOSS, abort_percent=percent)

    assert sum(fault is not None for fault in faults) == hits


def test_without_a_seed_it_is_chance() -> None:
    """Two that were made alike differ: 200 coins do not fall alike twice."""
    first, second = (suffered(200, abort=DATA_LOSS, abort_percent=50) for _ in range(2))

    assert first != second


# --- together with others -------------------------------------------------------------------------------------------


def test_attempts_of_a_retry_have_each_their_own_fate() -> None:
    """Inside of Retry an aborted attempt is followed by one that may pass; the pauses are kept."""
    clock = FakeClock()
    refusals = iter([True, True, False])
    injection = FaultInjection(enabled=lambda: next(refusals), abort=UNAVAILABLE)

    played = play(chain(Retry(safe=True, backoff=lambda retry: 3.0), injection), [ok("at last")], clock=clock)

    assert played.outcome.response == "at last"
    assert played.elapsed == 6
    assert len(played.sent) == 1


def test_the_pause_of_a_retry_and_the_delay_add_up() -> None:
    """The delay of an attempt comes behind its backoff."""
    clock = FakeClock()
    stack = chain(Retry(safe=True, backoff=lambda retry: 3.0), FaultInjection(enabled=True, delay=2))

    played = play(stack, [failed(UNAVAILABLE), ok()], clock=clock)

    assert [sent.at for sent in played.sent] == [2, 7]


def test_an_abort_behind_a_delay_comes_though_something_inside_answers() -> None:
    """A cache inside of it does not save the RPC, with a delay as little as without."""
    aborts: dict[str, Any] = {"enabled": True, "abort": DATA_LOSS}

    at_once = play(chain(FaultInjection(**aborts), answers), []).outcome
    later = play(chain(FaultInjection(delay=1, **aborts), answers), []).outcome

    assert (at_once.code, later.code) == (DATA_LOSS, DATA_LOSS)


def test_no_more_than_so_many_suffer_at_once() -> None:
    """While one RPC suffers the next is spared; when it has ended the permit is free again."""
    injection = FaultInjection(enabled=True, delay=1, max_active=1)
    meanwhile: list[float] = []

    def another(call: Call) -> Flow:
        yield call
        meanwhile.append(play(injection, [ok()]).elapsed)

    def begin(call: Call) -> Flow:
        meanwhile.append(play(injection, [ok()]).elapsed)
        yield call

    first = play(chain(injection, begin), [ok()])
    second = play(chain(injection, another), [failed(DATA_LOSS)])
    third = play(injection, [ok()])

    assert (first.elapsed, second.elapsed, third.elapsed) == (1, 1, 1)
    assert meanwhile == [0, 0]


@pytest.mark.parametrize("options", [{"abort": DATA_LOSS}, {"drop_percent": 100}, {"break_after": 0}], ids=str)
def test_a_permit_comes_back_however_it_ends(options: dict[str, Any]) -> None:
    """Aborted, lost, or broken: the next one suffers again."""
    injection = FaultInjection(enabled=True, max_active=1, **options)

    codes = [
        play(injection, [] if "break_after" not in options else [ok()], kind=Kind.UNARY_STREAM, timeout=5).outcome.code
        for _ in range(3)
    ]

    assert grpc.StatusCode.OK not in codes


def test_cancelling_an_rpc_that_is_lost() -> None:
    """A future that waits for nothing is cancelled at once, its flow ends, and the permit is free."""
    told = Told()
    injection = FaultInjection(enabled=True, drop_percent=100, max_active=1)

    with SYNC_CLIENT.open(told, injection) as rpc:
        stub = rpc.channel.unary_unary("/interpose.testing.Echo/unary_unary", str.encode, bytes.decode)
        for _ in range(2):
            future = stub.future("hello")
            assert future.cancel()
            assert told.ended.acquire(timeout=20)

    assert [outcome.code for outcome in told.outcomes] == [CANCELLED, CANCELLED]
    assert rpc.attempts == []


def test_a_lost_request_frees_the_thread_of_a_plain_server() -> None:
    """Without a deadline it hangs, and ends when its client has gone; the pool's one thread serves the next."""
    told, lost = Told(), threading.Event()
    switch = iter([True, False])
    injection = FaultInjection(enabled=lambda: next(switch), drop_percent=100, on_fault=lambda fault: lost.set())

    with Echo().serve(told, injection, workers=1) as target, grpc.insecure_channel(target) as channel:
        future = Stub(channel).unary_unary.future("hello")
        assert lost.wait(20)
        future.cancel()
        assert told.ended.acquire(timeout=20)
        answer = Stub(channel).unary_unary("next", timeout=20)

    assert answer == "next"
    assert [outcome.code for outcome in told.outcomes] == [CANCELLED, grpc.StatusCode.OK]


async def test_a_lost_request_ends_with_its_client_on_an_asyncio_server() -> None:
    """Without a deadline it hangs, and ends when its client has gone."""
    told, lost = Told(), asyncio.Event()
    injection = FaultInjection(enabled=True, drop_percent=100, on_fault=lambda fault: lost.set())

    async with Echo().serve_aio(told, injection) as target, grpc.aio.insecure_channel(target) as channel:
        call = Stub(channel).unary_unary("hello")
        await asyncio.wait_for(lost.wait(), 20)
        call.cancel()
        assert await asyncio.to_thread(told.ended.acquire, timeout=20)

    assert [outcome.code for outcome in told.outcomes] == [CANCELLED]


def test_a_lost_request_ends_with_its_channel() -> None:
    """A client that closes its channel waits no longer."""
    told, lost = Told(), threading.Event()
    injection = FaultInjection(enabled=True, drop_percent=100, on_fault=lambda fault: lost.set())

    with SYNC_CLIENT.open(told, injection) as rpc, futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rpc.call, "hello")
        assert lost.wait(20)
        rpc.channel.close()
        reply = waiting.result(20)

    assert reply.code is CANCELLED


def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What `on_fault` raises is logged."""

    def broken(fault: InjectedFault) -> None:
        raise OSError("metrics are down")

    outcome = play(FaultInjection(enabled=True, abort=DATA_LOSS, on_fault=broken), []).outcome

    assert outcome.code is DATA_LOSS
    assert "on_fault failed" in caplog.text


# --- what a call asks for: gRFC A33 ---------------------------------------------------------------------------------


def test_a_call_asks_for_its_own_fault(place: Place) -> None:
    """With headers switched on, metadata of the caller's delays and aborts."""
    clock = FakeClock(auto=True)
    metadata = [(DELAY, "1500"), (ABORT_GRPC, "15")]

    with place.open(FaultInjection(enabled=True, headers=True), clock=clock) as rpc:
        hit = rpc.call(*requests(place), metadata=metadata)
        spared = rpc.call(*requests(place))

    assert hit.code is DATA_LOSS
    assert 1.5 in clock.pauses
    assert spared.ok


def test_nobody_asks_where_headers_are_off(place: Place) -> None:
    """Metadata of a stranger does nothing."""
    with place.open(FaultInjection(enabled=True)) as rpc:
        reply = rpc.call(*requests(place), metadata=[(DELAY, "60000"), (ABORT_GRPC, "15"), (ABORT_HTTP, "503")])

    assert reply.ok


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200", "UNKNOWN"),
        ("400", "INTERNAL"),
        ("401", "UNAUTHENTICATED"),
        ("403", "PERMISSION_DENIED"),
        ("404", "UNIMPLEMENTED"),
        ("418", "UNKNOWN"),
        ("429", "UNAVAILABLE"),
        ("500", "UNKNOWN"),
        ("502", "UNAVAILABLE"),
        ("503", "UNAVAILABLE"),
        ("504", "UNAVAILABLE"),
        ("599", "UNKNOWN"),
    ],
)
def test_a_status_of_http(status: str, code: str) -> None:
    """It is mapped as gRPC maps it, and counts before a code of gRPC, as in Envoy."""
    expected = (0.0, grpc.StatusCode[code])

    assert asked((ABORT_HTTP, status)) == expected
    assert asked((ABORT_GRPC, "15"), (ABORT_HTTP, status)) == expected


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_a_code_of_grpc(code: grpc.StatusCode) -> None:
    """It is told by its number."""
    assert asked((ABORT_GRPC, str(code.value[0]))) == (0.0, code)


BAD_NUMBERS = ["", " ", "-1", "+3", "3.0", "0x3", "three", "३", "²", "1_0", "9" * 11, "9" * 5000]


@pytest.mark.parametrize("value", [*BAD_NUMBERS, "0", "17", "99"], ids=lambda value: repr(value)[:20])
def test_a_code_that_is_none_is_ignored(value: str) -> None:
    """What is no number of a failure aborts nothing; OK, too, is no failure."""
    assert asked((ABORT_GRPC, value)) is None


@pytest.mark.parametrize("value", [*BAD_NUMBERS, "0", "199", "600"], ids=lambda value: repr(value)[:20])
def test_a_status_that_is_none_is_ignored(value: str) -> None:
    """What is no status of HTTP aborts nothing, and does not hide the code beside it."""
    assert asked((ABORT_HTTP, value)) is None
    assert asked((ABORT_HTTP, value), (ABORT_GRPC, "15")) == (0.0, DATA_LOSS)


@pytest.mark.parametrize(
    ("value", "seconds"), [("53", 0.053), ("1", 0.001), ("60000", 60), ("60001", 60), ("9999999999", 60)]
)
def test_a_delay_is_told_in_milliseconds(value: str, seconds: float) -> None:
    """It is a minute at most, whatever is asked for."""
    assert asked((DELAY, value)) == (seconds, None)


@pytest.mark.parametrize("value", [*BAD_NUMBERS, "0"], ids=lambda value: repr(value)[:20])
def test_a_delay_that_is_none_is_ignored(value: str) -> None:
    """No time, or no number, is no delay."""
    assert asked((DELAY, value)) is None


def test_several_values() -> None:
    """The first counts."""
    assert asked((ABORT_GRPC, "15"), (ABORT_GRPC, "3")) == (0.0, DATA_LOSS)


@pytest.mark.parametrize(
    ("header", "option", "expected"),
    [("20", 100, 20), ("20", 50, 20), ("80", 50, 50), ("1000", 50, 50), ("0", 50, 0), ("x", 50, 50), ("-5", 50, 50)],
)
@pytest.mark.parametrize("fault", ["abort", "delay"])
def test_a_percentage_is_only_lowered(fault: str, header: str, option: float, expected: float) -> None:
    """The option is the most that a call can ask for; what is no number is ignored."""
    what, percentage = ((ABORT_GRPC, "15"), ABORT_PERCENT) if fault == "abort" else ((DELAY, "1"), DELAY_PERCENT)
    name = f"{fault}_percent"

    faults = suffered(200, seed=7, headers=True, metadata=[what, (percentage, header)], **{name: option})

    assert faults == suffered(200, seed=7, headers=True, metadata=[what], **{name: expected})


def test_headers_leave_the_other_faults_alone() -> None:
    """Losing and breaking is up to the options."""
    assert suffered(headers=True, drop_percent=100, break_after=3) == [(0.0, None, True, 3)]


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"enabled": "yes"}, "enabled must be True, False or a function"),
        ({"enabled": 1}, "enabled must be True, False or a function"),
        ({"delay": 0}, "delay must be None or a number of seconds"),
        ({"delay": -1}, "delay must be None or a number of seconds"),
        ({"delay": float("nan")}, "delay must be None or a number of seconds"),
        ({"delay": float("inf")}, "delay must be None or a number of seconds"),
        ({"delay": True}, "delay must be None or a number of seconds"),
        ({"abort": grpc.StatusCode.OK}, "abort must be None or a code"),
        ({"abort": 14}, "abort must be None or a code"),
        ({"delay_percent": 101}, "delay_percent must be a number from 0 to 100"),
        ({"abort_percent": -1}, "abort_percent must be a number from 0 to 100"),
        ({"drop_percent": "5%"}, "drop_percent must be a number from 0 to 100"),
        ({"break_percent": float("nan")}, "break_percent must be a number from 0 to 100"),
        ({"break_percent": True}, "break_percent must be a number from 0 to 100"),
        ({"break_after": -1}, "break_after must be None or a number of messages"),
        ({"break_after": 1.5}, "break_after must be None or a number of messages"),
        ({"headers": "yes"}, "headers must be True or False"),
        ({"headers": True, "delay": 1}, "with headers=True each call says its own"),
        ({"headers": True, "abort": UNAVAILABLE}, "with headers=True each call says its own"),
        ({"match": "/pay.v1.*/*"}, "match must be a function of the call"),
        ({"max_active": 0}, "max_active must be None or a whole number"),
        ({"max_active": 10_001}, "max_active must be None or a whole number"),
        ({"seed": "seven"}, "seed must be None or a whole number"),
        ({"seed": True}, "seed must be None or a whole number"),
        ({"on_fault": "count"}, "on_fault must be a function"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """A ValueError when it is made says what to write instead, and nobody is told that faults are on."""
    with pytest.raises(ValueError, match="FaultInjection: ") as caught:
        FaultInjection(**options)

    assert fault in str(caught.value)


def test_every_fault_of_the_options_is_told_at_once() -> None:
    """One error for all of them."""
    with pytest.raises(ValueError, match=r"delay must be .*; drop_percent must be .*; seed must be"):
        FaultInjection(delay=-1, drop_percent=200, seed="seven")  # type: ignore[arg-type]  # that is the question
