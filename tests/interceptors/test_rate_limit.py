"""RateLimit: what passes, what is refused and with what, whose count it is, and who waits."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_status import rpc_status

from interpose import Call, Kind, Outcome, Side, chain, context, describe, errors, intercept_channel, when
from interpose.interceptors import (
    Identity,
    Limit,
    LocalStore,
    Rate,
    RateLimit,
    RateLimited,
    RateLimitState,
    RealIp,
    RefusalDetails,
    Retry,
)
from interpose.interceptors import rate_limit as module
from interpose.interceptors.keys import by_metadata, by_method, by_peer
from interpose.interceptors.rate_limit import MAX_KEY, bounded
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, ok, play
from tests.interceptors.driving import is_server, requests

OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
SERVER, CLIENT = Side.SERVER, Side.CLIENT
SOME = [place for number, place in enumerate(PLACES) if number in {0, 5, 10, 15}]  # each stack, side and kind once


def answered(limit: Any, **given: Any) -> bool:
    """Does it let a call pass? Played by hand, on a server unless it is said."""
    outcome = play(limit, [ok(), ...], **({"side": SERVER} | given)).outcome
    assert outcome.ok or outcome.code is EXHAUSTED
    return outcome.ok


# --- in all places --------------------------------------------------------------------------------------------------


def test_it_refuses_what_comes_too_early(place: Place) -> None:
    """Two at once, then one every half second; a refusal says when, and that nothing was executed."""
    clock = FakeClock()

    with place.open(RateLimit("2/second"), script=[ok(), ...], clock=clock) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(3)]
        clock.advance(0.5)
        replies += [rpc.call(*requests(place)) for _ in range(2)]

    refused = replies[2]
    assert [reply.code for reply in replies] == [OK, OK, EXHAUSTED, OK, EXHAUSTED]
    assert len(rpc.attempts) == 3
    assert refused.details == "too many calls: try again in 0.500 s"
    told = {key: value for key, value in refused.trailing_metadata if isinstance(value, str)}
    assert told == {
        "grpc-retry-pushback-ms": "500",
        "interpose-not-executed": f"/interpose.testing.Echo/{place.kind.value}",
        "ratelimit-limit": "2",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "2",
    }
    assert len(told) + 1 == len(refused.trailing_metadata)  # one value for each key; and the packed status
    assert isinstance(refused.error, RateLimited) is not is_server(place)


def test_others_read_the_retry_info() -> None:
    """grpcio-status opens what is packed by hand, which insists that code and text are the same."""
    served = Echo().serve(RateLimit("1/hour"), clock=FakeClock())
    with served as target, grpc.insecure_channel(target) as channel:
        stub = Stub(channel)
        stub.unary_unary("a")
        with pytest.raises(grpc.RpcError) as refused:
            stub.unary_unary("a")

    status = rpc_status.from_call(refused.value)
    assert status is not None
    (packed,) = status.details
    assert (status.code, status.message) == (8, "too many calls: try again in 3600.000 s")
    assert (packed.type_url, packed.value) == ("type.googleapis.com/google.rpc.RetryInfo", b"\x0a\x03\x08\x90\x1c")


@pytest.mark.parametrize("place", [place for place in SOME if not place.asyncio and place.side is CLIENT], ids=str)
def test_our_retry_comes_back_in_time(place: Place) -> None:
    """Neither too early nor without need, and although the call is not known to be safe."""
    clock = FakeClock(auto=True)
    retry = Retry(2, codes={EXHAUSTED})

    with Echo().serve(RateLimit("4/minute", burst=1), clock=clock) as target:
        channel = intercept_channel(grpc.insecure_channel(target), retry, clock=clock)
        with channel:
            call = Stub(channel).method(place.kind)
            for _ in range(3):
                call(iter("a") if place.kind.request_streaming else "a")

    assert clock.pauses == [15, 15]


# --- streams --------------------------------------------------------------------------------------------------------


class Never:
    """A request stream of which nothing comes, until it is let go."""

    def __init__(self) -> None:
        self._gone = threading.Event()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._gone.wait()
        raise StopIteration

    def let_go(self) -> None:
        self._gone.set()


STREAMED = [kind for kind in Kind if kind.request_streaming]


@pytest.mark.parametrize("kind", STREAMED)
def test_a_refusal_waits_for_no_message(kind: Kind) -> None:
    """More clients than the server has threads, whose streams stay open: each is refused at once, and others are served."""
    never = Never()
    limit = when(f"*/{kind.value}", RateLimit("1/hour", key=lambda call: "all"))
    with Echo().serve(limit, workers=2) as target, grpc.insecure_channel(target) as channel:
        stub = Stub(channel)
        method = stub.method(kind)
        list(method(iter("a"))) if kind.response_streaming else method(iter("a"))
        calls = [method(never) if kind.response_streaming else method.future(never) for _ in range(5)]
        codes = [call.code() for call in calls]
        served = stub.unary_unary("b")
        never.let_go()

    assert codes == [EXHAUSTED] * 5
    assert served == "b"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", STREAMED)
async def test_a_refusal_waits_for_no_message_on_asyncio(kind: Kind, plain: bool) -> None:
    """The same, for async and for plain handlers."""
    limit = when(f"*/{kind.value}", RateLimit("1/hour", key=lambda call: "all"))
    serving = Echo().serve_aio(limit, workers=2, plain=plain)
    async with serving as target, grpc.aio.insecure_channel(target) as channel:
        stub = Stub(channel)
        method = stub.method(kind)
        first = method(iter("a"))
        assert [message async for message in first] if kind.response_streaming else await first
        calls = [method() for _ in range(5)]  # nothing is ever written
        codes = [await call.code() for call in calls]
        served = await stub.unary_unary("b")

    assert codes == [EXHAUSTED] * 5
    assert served == "b"


# --- whose count it is ----------------------------------------------------------------------------------------------


def test_a_host_has_one_count() -> None:
    """Whatever its port; all of the network that an IPv6 host is given. Behind a unix socket all are one."""
    limit = RateLimit("1/hour", key=by_peer)
    peers = ["ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", "ipv4:192.0.2.2:1", "unix:", "unix:"]
    peers += ["ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::2%5D:1", "ipv6:%5B2001:db8:1::1%5D:1"]

    assert [answered(limit, peer=peer) for peer in peers] == [True, False, True, True, False, True, False, True]


def test_a_caller_has_one_count() -> None:
    """By identity where it is known, with who vouches for it; by peer where not; on a client by the target."""
    limit = RateLimit("1/hour")

    def calls(subject: str | None = None, issuer: str | None = None, **given: Any) -> bool:
        context.set_identity(None if subject is None else Identity(subject, issuer=issuer))
        return answered(limit, **given)

    assert [calls(), calls(), calls("a"), calls("a", "b"), calls("a")] == [True, False, True, True, False]
    assert calls("a", side=CLIENT) is True  # its target, not its caller
    assert calls(side=CLIENT) is False


def test_by_method() -> None:
    """However long its name is."""
    limit = RateLimit("1/hour", key=by_method)
    long = f"/{'p' * 300}.S/M"

    assert [answered(limit, method=name) for name in ("/a.B/C", "/a.B/D", "/a.B/C", long, long)] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_by_metadata() -> None:
    """Text and bytes; who leaves the key out is counted by peer, and gets no count of their own for each call."""
    limit = RateLimit("1/hour", key=by_metadata("x-tenant"))
    packed = RateLimit("1/hour", key=by_metadata("x-tenant-bin"))

    given = [{"metadata": (("x-tenant", value),)} for value in "aba"] + [{}, {}]
    assert [answered(limit, **one) for one in given] == [True, True, False, True, False]
    given = [{"metadata": (("x-tenant-bin", value),)} for value in (b"\x00", b"\x01", b"\x00")]
    assert [answered(packed, **one) for one in given] == [True, True, False]


def test_a_function() -> None:
    """None: the call is not limited. No text is a fault, and no call passes then."""
    limit = RateLimit("1/hour", key=lambda call: call.request or None)
    wrong = RateLimit("1/hour", key=lambda call: 5)  # type: ignore[arg-type, return-value]

    assert [answered(limit, requests=[one]) for one in ("a", "b", "a")] == [True, True, False]
    assert [answered(limit, requests=[None]) for _ in range(3)] == [True] * 3
    failed = play(wrong, [], side=SERVER).outcome
    assert failed.code is grpc.StatusCode.INTERNAL and "RateLimit raised TypeError" in failed.details


def test_no_key_takes_much_memory() -> None:
    """Long ones are kept as digests, which differ; also of text that is no text."""
    keys = ["k" * number for number in (MAX_KEY, MAX_KEY + 1, 300, 10**6)] + ["\ud800" * 30]

    kept = [bounded(key) for key in keys]

    assert kept[0] == keys[0]
    assert {len(key or "") for key in kept} == {MAX_KEY} and len(set(kept)) == 5


def test_the_key_used_longest_ago_is_forgotten() -> None:
    """No more are kept than the store has room for, of all limits together."""
    limit = RateLimit("1/hour", key=lambda call: call.request, store=LocalStore(2))

    assert [answered(limit, requests=[key]) for key in "abacab"] == [True, True, False, True, False, True]
    assert limit.snapshot().keys == 2
    two = RateLimit(["1/hour", "1/day"], key=lambda call: call.request, store=LocalStore(4))
    assert [answered(two, requests=[key]) for key in "abcd"] == [True] * 4
    assert two.snapshot().keys == 4


# --- several limits -------------------------------------------------------------------------------------------------


def test_a_call_has_to_meet_all_limits() -> None:
    """If one refuses, none counts it; the client is told of the one that it waits for longest."""
    clock, told = FakeClock(), list[RefusalDetails]()
    each, everyone = Rate(1, per=10), Rate(3, per=60)
    limits = [each, Limit(everyone, key=lambda call: "all")]
    limit = RateLimit(limits, key=lambda call: call.request, on_refuse=told.append)

    assert [answered(limit, requests=[key], clock=clock) for key in "aabbcd"] == [True, False, True, False, True, False]
    assert [(details.limit, details.key, details.retry_in) for details in told] == [
        (each, "a", 10),
        (each, "b", 10),
        (everyone, "all", 20),
    ]
    clock.advance(20)
    assert [answered(limit, requests=[key], clock=clock) for key in "da"] == [True, False]


def test_text_and_objects() -> None:
    """A burst is for limits that are given as text."""
    assert RateLimit("100/second", burst=5).snapshot().limits == (Rate(100, burst=5),)
    assert RateLimit(Rate(7, per=2, burst=3)).snapshot().limits == (Rate(7, per=2, burst=3),)
    assert RateLimit(Limit("5/minute")).snapshot().limits == (Rate(5, per=60),)
    assert RateLimit(iter(["5/minute", Rate(1)])).snapshot().limits == (Rate(5, per=60), Rate(1))


# --- waiting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in SOME if place.side is CLIENT], ids=str)
def test_calls_wait_for_their_turn(place: Place) -> None:
    """On a client, in the order in which they came, each until the limit lets it."""
    clock = FakeClock(auto=True)
    limit = RateLimit("4/minute", burst=1, wait=True)

    with place.open(limit, script=[ok(), ...], clock=clock) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(3)]

    assert all(reply.ok for reply in replies)
    assert clock.pauses == [15, 15]
    assert limit.snapshot() == RateLimitState(
        limits=(Rate(4, per=60, burst=1),), admitted=3, delayed=2, unchecked=0, refused=0, keys=1
    )


def waited(limit: RateLimit, clock: FakeClock, **given: Any) -> float | None:
    """How long a call waits; None: it is refused."""
    outcome = play(limit, [ok(), ...], clock=FakeClock(clock.now()), **given)
    return outcome.elapsed if outcome.outcome.ok else None


def test_nothing_waits_beyond_its_deadline() -> None:
    """It is refused at once, and its turn is given to the next."""
    clock = FakeClock()
    limit = RateLimit("1/minute", wait=True)

    assert waited(limit, clock) == 0
    assert waited(limit, clock, timeout=59) is None
    assert waited(limit, clock, timeout=61) == 60
    assert waited(limit, clock, timeout=61) is None
    assert waited(limit, clock) == 120
    assert waited(limit, clock, timeout=-1) is None


@pytest.mark.parametrize("limits", ["1/minute", ["1/minute", "100/second"]])
def test_nothing_waits_longer_than_it_is_said(limits: Any) -> None:
    """So many seconds; True is an hour."""
    clock = FakeClock()
    limit = RateLimit(limits, wait=90)

    assert [waited(limit, clock) for _ in range(3)] == [0, 60, None]
    limit = RateLimit("1/hour", wait=True)
    assert [waited(limit, clock) for _ in range(3)] == [0, 3600, None]


def test_a_retry_comes_when_it_is_sent() -> None:
    """Not when it is decided on: its pause is waited out first, and keeps no turn of others."""
    clock = FakeClock()
    limit = RateLimit("1/minute")

    assert answered(limit, side=CLIENT, clock=clock)
    early = play(chain(_paused(59), limit), [], clock=clock, answers=[None])
    clock.advance(60)
    late = play(chain(_paused(60), limit), [ok()], clock=clock, answers=[None])

    assert early.outcome.code is EXHAUSTED and late.outcome.ok
    assert late.sent[0].delay == 0  # it is over


def _paused(seconds: float) -> Any:
    def pause(call: Call) -> Any:
        yield call.after(seconds)

    return pause


@pytest.mark.parametrize("place", [place for place in SOME if place.side is CLIENT], ids=str)
def test_a_pause_in_real_places(place: Place) -> None:
    """The shells wait for it, and then the call passes."""
    with place.open(_paused(0.01), RateLimit("1/hour"), script=[ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and len(rpc.attempts) == 1


# --- what is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in SOME if place.side is SERVER], ids=str)
def test_admitted_calls_may_tell_what_is_left(place: Place) -> None:
    """If it is asked for: of the limit that is nearest, behind what the handler sends."""
    clock = FakeClock()
    limit = RateLimit(["5/minute", "3/second"], trailers=True)

    with place.open(limit, script=[ok(trailing=(("x-own", "1"),)), ...], clock=clock) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(2)]
        clock.advance(1)
        replies += [rpc.call(*requests(place)) for _ in range(3)]

    names = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
    told = [
        " ".join(str(value) for name in names for value in reply.trailing_metadata.get_all(name)) for reply in replies
    ]
    assert told == ["3 2 1", "3 1 1", "5 2 35", "5 1 47", "5 0 59"]
    assert [reply.trailing_metadata.get("x-own") for reply in replies[:4]] == ["1"] * 4


def test_what_is_not_limited_tells_nothing() -> None:
    """Nor does a client, which would tell itself."""
    free = RateLimit("1/hour", trailers=True, key=lambda call: None)

    assert play(free, side=SERVER).outcome.trailing_metadata == ()
    assert play(RateLimit("1/hour", trailers=True), side=CLIENT).outcome.trailing_metadata == ()


def test_a_dry_run_lets_all_pass(caplog: pytest.LogCaptureFixture) -> None:
    """And tells what it would have done; nothing waits."""
    told: list[RefusalDetails] = []
    limit = RateLimit("1/hour", dry_run=True, wait=True, on_refuse=told.append)

    assert [waited(limit, FakeClock(), side=SERVER) for _ in range(3)] == [0, 0, 0]
    assert [(details.dry_run, details.retry_in) for details in told] == [(True, 3600)] * 2
    assert limit.snapshot() == RateLimitState(
        limits=(Rate(1, per=3600),), admitted=3, delayed=0, unchecked=0, refused=2, keys=1
    )
    assert "RateLimit would have refused 1 call" in caplog.text


def test_the_log_has_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """With how many were refused, and nothing of who called."""
    clock = FakeClock()
    limit = RateLimit("1/day", key=by_metadata("x-key"))
    caplog.set_level(logging.WARNING, "interpose")

    for seconds in (0, 0, 0, 59, 1):
        clock.advance(seconds)
        answered(limit, metadata=(("x-key", "s3cret"),), clock=clock)

    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "RateLimit has refused 1 call since its last warning; the last one met 1/day",
        "RateLimit has refused 3 calls since its last warning; the last one met 1/day",
    ]


def test_a_hook_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The call is refused all the same."""

    def fails(details: RefusalDetails) -> None:
        raise OSError

    limit = RateLimit("1/day", on_refuse=fails)

    assert [answered(limit) for _ in range(2)] == [True, False]
    assert "on_refuse failed" in caplog.text


def test_an_error_of_ours() -> None:
    """A stub's caller can tell it from the server's own."""
    with Echo().serve() as target:
        channel = intercept_channel(grpc.insecure_channel(target), RateLimit("1/hour"), clock=FakeClock())
        with channel:
            Stub(channel).unary_unary("a")
            with pytest.raises(RateLimited) as refused:
                Stub(channel).unary_unary("a")

    assert refused.value.local and refused.value.retry_in == 3600
    assert isinstance(refused.value, errors.ResourceExhausted) and isinstance(refused.value, grpc.Call)


def test_long_times_travel() -> None:
    """Beyond what a pushback can say, it is never; RetryInfo goes on."""
    outcome = _second(RateLimit("1/100 days"))

    assert outcome.trailing_metadata["grpc-retry-pushback-ms"] == "-1"
    (info,) = outcome.error_details
    assert info.retry_delay.seconds == 100 * 86_400


def _second(limit: RateLimit) -> Outcome:
    answered(limit)
    return play(limit, [], side=SERVER).outcome


# --- many at once ---------------------------------------------------------------------------------------------------


def test_threads_share_a_limit() -> None:
    """While the time stands still exactly the burst passes, of calls from many threads."""
    limit = RateLimit("50/second", key=lambda call: "all")
    with Echo().serve(limit, clock=FakeClock()) as target, grpc.insecure_channel(target) as channel:
        stub = Stub(channel)
        calls = [stub.unary_unary.future("a") for _ in range(120)]
        codes = [call.code() for call in calls]

    assert (codes.count(OK), codes.count(EXHAUSTED)) == (50, 70)


async def test_tasks_share_a_limit() -> None:
    """The same on asyncio."""
    limit = RateLimit(["50/second", "60/second"], key=lambda call: "all")
    served = Echo().serve_aio(limit, clock=FakeClock())
    async with served as target, grpc.aio.insecure_channel(target) as channel:
        calls = [Stub(channel).unary_unary("a") for _ in range(120)]
        codes = [await call.code() for call in calls]

    assert (codes.count(OK), codes.count(EXHAUSTED)) == (50, 70)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("100/fortnight", r"'100/fortnight' is no rate: write how many per second, minute, hour or day"),
        ("-5/second", "is no rate"),
        ("0/second", "count must be a whole number from 1"),
        ([], "limits must be from 1 to 16 limits"),
        (["1/second"] * 17, "limits must be from 1 to 16 limits"),
        (100, "100 is no limit: write it like '100/second', or as Rate"),
        (b"1/second", "is no limit"),
        (None, "None is no limit"),
        ([Limit("1/second", key=5)], "key of a Limit must be None or a function of the call"),  # type: ignore[arg-type]
        (Limit(5), "5 is no limit"),  # type: ignore[arg-type]
    ],
)
def test_a_limit_that_is_none(limits: Any, fault: str) -> None:
    """Said when it is made, with what to write."""
    with pytest.raises(ValueError, match=f"^RateLimit: {fault}|{fault}"):
        RateLimit(limits)


def test_all_faults_are_told() -> None:
    """In one error."""
    wrong: dict[str, Any] = {
        "key": 1,
        "store": 1,
        "wait": -1,
        "trailers": 1,
        "dry_run": 1,
        "on_refuse": 1,
    }

    with pytest.raises(
        ValueError, match=r"^RateLimit: 'x' is no rate.*; burst must be .* not 0; burst is for"
    ) as error:
        RateLimit(["x", "1/second", Rate(1)], burst=0, **wrong)

    assert all(f"; {name} must " in str(error.value) for name in wrong)
    with pytest.raises(ValueError, match="LocalStore: max_keys must"):
        LocalStore(0)


def test_without_a_global_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without one decides behind a lock of ours."""
    monkeypatch.setattr(module, "ONE_STEP", False)

    assert [answered(RateLimit("1/hour")) for _ in range(2)] == [True, True]
    limit = RateLimit("1/hour")
    assert [answered(limit) for _ in range(2)] == [True, False]


def test_an_order_that_is_wrong() -> None:
    """`describe` says so."""
    told = describe(RateLimit("1/second"), RealIp(["10.0.0.0/8"]))

    assert "! RateLimit is outside of RealIp: all who come through a proxy are counted as one" in told
    assert "!" not in describe(RealIp(["10.0.0.0/8"]), RateLimit("1/second"))
