"""Retry: what is sent again, when, and what is not."""

import asyncio
import inspect
import json
import logging
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Kind, Outcome, Side, chain, errors, intercept_channel, testing
from interpose.interceptors import Retry, RetryDetails
from interpose.interceptors import retry as module
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import RatioBudget, RetryBudget, Unlimited
from interpose.testing import PLACES, FakeClock, Place, failed, ok, raised
from interpose.testing.acts import Act
from interpose.testing.echo import Echo, Stub
from tests.facts.serving import serving
from tests.interceptors.driving import Told, each, failing, incoming, is_server, outgoing, play, requests
from tests.protos.compiled import Generated

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
KEY = "x-retry-attempt"

STREAMED = [place for place in PLACES if place.kind.response_streaming]
CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
SERVERS = [place for place in PLACES if place.side is Side.SERVER]
WATCHES = [place for place in CLIENTS if place.kind is Kind.UNARY_STREAM]
UPLOADS = [place for place in PLACES if place.kind.request_streaming and place.side is Side.CLIENT]


def at_once(_: int) -> float:
    return 0.0


def retry_info(seconds: float) -> Any:
    whole = int(seconds)
    delay = duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def notes(outcome: Outcome) -> list[str]:
    """What its error tells beside its text."""
    return getattr(outcome.error, "__notes__", [])


def refused(place: Place, times: int) -> list[Any]:
    """The service refuses so many times; on a server before it reads, so that its handler can be called again."""
    return [failed(UNAVAILABLE, f"refusal {time}", unread=is_server(place)) for time in range(1, times + 1)]


# --- in all places --------------------------------------------------------------------------------------------------


def test_two_failures_then_an_answer(place: Place) -> None:
    """Three sends, and the caller sees the answer; a client numbers its retries."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), Retry(backoff=at_once), script=[*refused(place, 2), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [outcome.attempts for outcome in outcomes] == [3]
    numbered = [attempt.values(KEY) for attempt in rpc.attempts]
    assert numbered == ([[], [], []] if is_server(place) else [[], ["1"], ["2"]])


def test_it_gives_up_after_the_last_attempt(place: Place) -> None:
    """The caller sees the last failure as the server told it; the outcome and a note tell the attempts."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), Retry(3, backoff=at_once), script=refused(place, 9)) as rpc:
        reply = rpc.call(*requests(place))

    [outcome] = outcomes
    assert len(rpc.attempts) == outcome.attempts == 3
    assert (outcome.code, outcome.details) == (UNAVAILABLE, "refusal 3")
    assert outcome.error is not None
    assert outcome.error.__notes__ == ["Retry: attempt 3 was the last"]
    if not is_server(place):  # grpc.aio's own client may tell INTERNAL when a stream is refused unread
        assert (reply.code, reply.details) == (UNAVAILABLE, "refusal 3")
        assert reply.error is not None
        assert reply.error.__notes__ == outcome.error.__notes__


def test_other_codes_are_not_tried_again(place: Place) -> None:
    """NOT_FOUND is an answer."""
    with place.open(Retry(backoff=at_once), script=[failed(grpc.StatusCode.NOT_FOUND)]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is grpc.StatusCode.NOT_FOUND
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", STREAMED, ids=str)
def test_never_after_a_message_was_delivered(place: Place) -> None:
    """A stream that breaks after its first message has failed, and no message comes twice."""
    with place.open(Retry(backoff=at_once), script=[failed(UNAVAILABLE, after=1)]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.messages) == (UNAVAILABLE, ["a"])
    assert len(rpc.attempts) == 1


def test_no_retry_outlives_the_deadline(place: Place) -> None:
    """If the pause would end after it, the last failure is the answer at once, not DEADLINE_EXCEEDED later."""
    outcomes: list[Outcome] = []

    with place.open(each(outcomes), Retry(backoff=lambda _: 60.0), script=refused(place, 1)) as rpc:
        rpc.call(*requests(place), timeout=30)

    assert [(outcome.code, outcome.details) for outcome in outcomes] == [(UNAVAILABLE, "refusal 1")]
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", UPLOADS, ids=str)
@pytest.mark.parametrize(("size", "attempts"), [(100_000, 2), (200_000, 1)])
def test_a_request_stream_is_kept_up_to_a_quarter_of_a_mebibyte(place: Place, size: int, attempts: int) -> None:
    """Two messages that fit are sent again; beyond that the call is sent once."""
    with place.open(Retry(2, backoff=at_once), script=[failed(UNAVAILABLE), ok()]) as rpc:
        reply = rpc.call("x" * size, "y" * size)

    assert [len(attempt.requests) for attempt in rpc.attempts] == [2] * attempts
    assert reply.ok is (attempts == 2)


@pytest.mark.parametrize("place", [place for place in PLACES if is_server(place)], ids=str)
def test_on_a_server_nothing_is_kept(place: Place) -> None:
    """A handler that has read of its request stream is not called again; one with a unary request is."""
    with place.open(Retry(2, backoff=at_once), script=[failed(UNAVAILABLE), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok is not place.kind.request_streaming
    assert len(rpc.attempts) == (1 if place.kind.request_streaming else 2)


def test_what_refuses_inside_is_asked_again(place: Place) -> None:
    """A limit or breaker further in refuses with UNAVAILABLE without sending; the next attempt passes it anew."""
    asked: list[Call] = []

    def refuse_once(call: Call) -> Flow:
        asked.append(call)
        if len(asked) == 1:
            return Outcome.failure(failing(UNAVAILABLE, local=True).error)  # type: ignore[arg-type]
        yield call
        return None

    with place.open(Retry(backoff=at_once), refuse_once) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert (len(asked), len(rpc.attempts)) == (2, 1)


@pytest.mark.parametrize("unread", [False, True])
def test_the_server_chooses_the_pause(place: Place, unread: bool) -> None:
    """`grpc-retry-pushback-ms` is the pause, to the millisecond."""
    clock = FakeClock(auto=True)
    told: list[RetryDetails] = []
    busy = failed(UNAVAILABLE, pushback=0.302, unread=unread or is_server(place))

    with place.open(Retry(clock=clock, on_retry=told.append), script=[busy, ok()], clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [details.pause for details in told] == [0.302]
    assert clock.pauses == [0.302]


@pytest.mark.parametrize("word", ["-1", "soon", "2147483648"])
def test_the_server_asks_for_no_more(place: Place, word: str) -> None:
    """A negative number, or none that can be read: the failure stands, and says why."""
    outcomes: list[Outcome] = []
    over = failed(UNAVAILABLE, pushback=word, unread=is_server(place))

    with place.open(each(outcomes), Retry(backoff=at_once), script=[over]) as rpc:
        rpc.call(*requests(place))

    [outcome] = outcomes
    assert len(rpc.attempts) == 1
    assert outcome.code is UNAVAILABLE and outcome.error is not None
    assert outcome.error.__notes__ == ["Retry: attempt 1 was the last: the server asked not to be tried again"]


def test_a_retry_info_chooses_the_pause(place: Place) -> None:
    """`google.rpc.RetryInfo` in the error details counts as well."""
    clock = FakeClock(auto=True)
    told: list[RetryDetails] = []
    busy = raised(errors.Unavailable("busy", retry_info(1.5)), unread=is_server(place))

    with place.open(Retry(clock=clock, on_retry=told.append), script=[busy, ok()], clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [details.pause for details in told] == [1.5]


def test_the_budget_is_used_up(place: Place) -> None:
    """Of four tokens two are left after the second failure: the third attempt is not made, and the note says why."""
    outcomes: list[Outcome] = []
    retry = Retry(backoff=at_once, budget=RetryBudget(4))

    with place.open(each(outcomes), retry, script=refused(place, 9)) as rpc:
        rpc.call(*requests(place))

    [outcome] = outcomes
    assert len(rpc.attempts) == 2
    assert outcome.error is not None
    assert outcome.error.__notes__ == ["Retry: attempt 2 was the last: the budget for retries is used up"]


def test_an_answer_that_is_not_good_enough(place: Place) -> None:
    """`retry_if` may want another one although the code is OK; a stream has been delivered, and stands."""
    script = [ok("pending"), ok("done")]

    def is_pending(outcome: Outcome) -> bool | None:
        return outcome.ok and outcome.response in ("pending", None)

    with place.open(Retry(backoff=at_once, safe=True, retry_if=is_pending), script=script) as rpc:
        reply = rpc.call("a")

    read = place.kind.response_streaming or (is_server(place) and place.kind.request_streaming)
    assert reply.messages == (["pending"] if read else ["done"])
    assert len(rpc.attempts) == (1 if read else 2)


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_a_handler_that_raises_may_be_called_again(place: Place) -> None:
    """On one of `errors`, and on no other."""
    conflict, bug = raised(ConnectionError("conflict"), unread=True), raised(KeyError("bug"), unread=True)
    outcomes: list[Outcome] = []
    retry = Retry(5, backoff=at_once, errors=(OSError,))

    with place.open(each(outcomes), retry, script=[conflict, conflict, ok(), conflict, bug]) as rpc:
        good = rpc.call(*requests(place))
        bad = rpc.call(*requests(place))

    assert good.ok
    assert not bad.ok and isinstance(outcomes[1].error, KeyError)
    assert [outcome.attempts for outcome in outcomes] == [3, 2]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_an_attempt_that_takes_too_long(place: Place) -> None:
    """The next one is sent after `per_attempt` seconds, though DEADLINE_EXCEEDED is not among the codes."""
    told: list[RetryDetails] = []
    retry = Retry(
        99, backoff=at_once, budget=Unlimited(), safe=True, per_attempt=0.3, codes={INTERNAL}, on_retry=told.append
    )

    # The first never begins to answer. On a busy machine another may be too late as well: it is tried again.
    with place.open(retry, script=[Act(hang=True), ok(), ...]) as rpc:
        reply = rpc.call(*requests(place), timeout=20)

    assert reply.ok
    assert told and {details.outcome.code for details in told} == {DEADLINE_EXCEEDED}
    assert len(rpc.attempts) == len(told) + 1


@pytest.mark.parametrize("place", WATCHES, ids=str)
def test_a_stream_that_broke_goes_on(place: Place) -> None:
    """Behind the last message, as often as it breaks, for what the application reads as one stream."""
    broken = [ok("0", "1", "2"), failed(UNAVAILABLE), *(failed(UNAVAILABLE, after=1) for _ in "123456")]
    script = [*reversed(broken[1:]), broken[0]]
    asked: list[str] = []

    def go_on(call: Call, last: str) -> Call:
        asked.append(last)
        return call.with_request(f"after {last}")

    with place.open(Retry(3, backoff=at_once, budget=Unlimited(), resume=go_on), script=script) as rpc:
        reply = rpc.call("a")

    echoes = ["a", "after a", "after after a", "after after after a", "after after after after a"]
    assert reply.ok, reply
    assert asked[:4] == echoes[:4]
    assert reply.messages[:5] == echoes
    assert reply.messages[-3:] == ["0", "1", "2"]
    assert [attempt.requests for attempt in rpc.attempts][-1] == [f"after {asked[-1]}"]


# --- an end during the pause ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_client_that_leaves_during_the_pause_ends_it(sort: str, kind: str) -> None:
    """The handler is not called again, its flows are told CANCELLED, and nothing sleeps on."""
    told = Told()
    called: list[str] = []

    def refuse(request: str, context: Any) -> Any:
        called.append(request)
        context.abort(UNAVAILABLE, "not now")
        yield request

    async def refuse_later(request: str, context: Any) -> Any:
        called.append(request)
        await context.abort(UNAVAILABLE, "not now")
        yield request

    def pause(number: int) -> float:
        told.pausing.release()
        return 3600.0

    with serving(
        sort, {kind: shaped(kind, refuse_later if sort == "async" else refuse)}, told, Retry(backoff=pause)
    ) as client:
        call = client.start("a", kind=kind, timeout=None)
        assert told.pausing.acquire(timeout=10)
        call.cancel()
        assert told.ended.acquire(timeout=10), "the flows were never told"

    assert [outcome.code for outcome in told.outcomes] == [grpc.StatusCode.CANCELLED]
    assert called == ["a"]


def shaped(kind: str, stream: Callable[..., Any]) -> Callable[..., Any]:
    """A generator of responses as a handler of this kind."""
    if kind.endswith("stream"):
        return stream
    if not inspect.isasyncgenfunction(stream):
        return lambda request, context: next(stream(request, context))

    async def handle(request: str, context: Any) -> str:
        first: str = await anext(stream(request, context))
        return first

    return handle


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_cancelling_during_the_pause_ends_a_sync_call(kind: Kind) -> None:
    """The application is not kept waiting, and nothing more is sent."""
    clock = FakeClock()
    place = Place(False, Side.CLIENT, kind)
    with place.open(Retry(clock=clock), script=refused(place, 2), clock=clock) as rpc:
        stub = getattr(rpc.channel, kind.value)(f"/interpose.testing.Echo/{kind.value}")
        call = stub(b"a") if kind.response_streaming else stub.future(b"a")
        clock.wait_for()
        call.cancel()

        assert call.code() is grpc.StatusCode.CANCELLED
    assert len(rpc.attempts) == 1


async def test_cancelling_during_the_pause_ends_an_asyncio_call() -> None:
    """The task that awaits it is free at once, and nothing more is sent."""
    pausing = asyncio.Event()
    loop = asyncio.get_running_loop()
    tries: list[str] = []

    async def refuse(request: bytes, context: Any) -> bytes:
        tries.append("asked")
        await context.abort(UNAVAILABLE, "not now")
        return request

    def pause(_: int) -> float:
        loop.call_soon(pausing.set)
        return 3600.0

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pay.v1.Cards", {"Charge": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as bare:
        channel: Any = intercept_channel(bare, Retry(backoff=pause))
        call = channel.unary_unary("/pay.v1.Cards/Charge")(b"a")
        await asyncio.wait_for(pausing.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await server.stop(None)

    assert tries == ["asked"]


# --- played by hand -------------------------------------------------------------------------------------------------


def test_pauses_follow_the_backoff() -> None:
    """Each retry asks to be sent later, by the number of the retry; the first attempt at once."""
    retry = Retry(4, backoff=exponential(0.1, jitter=0))

    sent, outcome = play(retry, outgoing(), *[failing(UNAVAILABLE)] * 4)

    assert [call.delay for call in sent] == pytest.approx([0, 0.1, 0.2, 0.4])
    assert outcome.code is UNAVAILABLE


def test_one_attempt_is_never_again() -> None:
    """`attempts=1` switches it off, without a note."""
    sent, outcome = play(Retry(1), outgoing(), failing(UNAVAILABLE))

    assert len(sent) == 1
    assert not hasattr(outcome.error, "__notes__")


def test_the_deadline_is_read_from_the_clock() -> None:
    """A pause that ends before the deadline is made; one that would end at it is not."""
    clock = FakeClock()
    retry = Retry(backoff=lambda number: number * 1.0, clock=clock)

    sent, outcome = play(
        retry, outgoing(timeout=2, clock=clock), failing(UNAVAILABLE), failing(UNAVAILABLE, "the last")
    )

    assert [call.delay for call in sent] == [0, 1]
    assert outcome.details == "the last"


def test_only_one_number_is_sent() -> None:
    """A number that the application or an outer Retry had set is replaced by ours, on retries."""
    sent, _ = play(Retry(3), outgoing(metadata=((KEY, "7"), ("a", "b"))), *[failing(UNAVAILABLE)] * 3)

    assert [call.metadata.get_all(KEY) for call in sent] == [["7"], ["1"], ["2"]]
    assert all(call.metadata["a"] == "b" for call in sent)


def test_what_is_not_replayable_is_not_replayed() -> None:
    """The core says whether the call bears it."""
    sent, _ = play(Retry(), outgoing(), failing(UNAVAILABLE, replayable=False))

    assert len(sent) == 1


def test_a_fault_on_this_side_stays() -> None:
    """INTERNAL made locally, a bug of an interceptor or a hook, is the same next time; a refusal is not."""
    retry = Retry(2, codes={UNAVAILABLE, INTERNAL}, safe=True)

    fault, _ = play(retry, outgoing(), failing(INTERNAL, local=True))
    refusal, _ = play(retry, outgoing(), failing(UNAVAILABLE, local=True), Outcome())

    assert (len(fault), len(refusal)) == (1, 2)


@pytest.mark.parametrize("make", [incoming, outgoing])
def test_a_bug_is_not_repeated(make: Callable[[], Any]) -> None:
    """An exception that is no status: a handler's bug, or grpc's ValueError for a closed channel."""
    broken = Outcome(grpc.StatusCode.UNKNOWN, error=ValueError("bug"), replayable=True)

    sent, _ = play(Retry(codes={grpc.StatusCode.UNKNOWN}, safe=True), make(), broken)

    assert len(sent) == 1


@pytest.mark.parametrize(
    ("safe", "attempts"),
    [(None, 1), (False, 1), (True, 2), (lambda call: call.method.name == "Charge", 2), (lambda call: False, 1)],
)
def test_other_codes_are_for_calls_that_are_safe(safe: Any, attempts: int) -> None:
    """INTERNAL may come after the deed is done, so somebody has to say that the call can be repeated."""
    script = [failing(INTERNAL), Outcome()][:attempts]

    sent, _ = play(Retry(codes={INTERNAL}, safe=safe), outgoing(), *script)

    assert len(sent) == attempts


@pytest.mark.parametrize("safe", [False, lambda call: False], ids=["False", "function"])
def test_who_says_no_means_it(safe: Any) -> None:
    """UNAVAILABLE may come from a server that was killed behind the deed; only what never left is sent again."""
    refused = Outcome.failure(errors.Unavailable("the circuit breaker is open", local=True))

    told, _ = play(Retry(2, safe=safe), outgoing(), failing(UNAVAILABLE))
    unsent, _ = play(Retry(2, safe=safe), outgoing(), refused, Outcome())

    assert (len(told), len(unsent)) == (1, 2)


def test_unavailable_after_metadata_is_for_calls_that_are_safe() -> None:
    """A server that had answered with metadata had begun to process the call."""
    begun = (("x-node", "7"),)

    def script(times: int) -> list[Outcome]:
        return [failing(UNAVAILABLE, initial_metadata=begun) for _ in range(times)]

    unsafe, _ = play(Retry(2), outgoing(), *script(1))
    safe, _ = play(Retry(2, safe=True), outgoing(), *script(2))

    assert (len(unsafe), len(safe)) == (1, 2)


@pytest.mark.parametrize(("name", "attempts"), [("Read", 2), ("Put", 2), ("Add", 1)])
def test_the_proto_says_what_is_safe(name: str, attempts: int, generated: Generated) -> None:
    """NO_SIDE_EFFECTS and IDEMPOTENT are repeated on every listed code, other methods on UNAVAILABLE alone."""
    generated("idempotency_pb2")
    call = outgoing(name=f"/interpose.tests.idempotency.Ledger/{name}")

    sent, _ = play(Retry(codes={INTERNAL}), call, *[failing(INTERNAL), Outcome()][:attempts])

    assert len(sent) == attempts


def test_request_streams_are_kept_on_clients() -> None:
    """Without an interceptor asking for more, up to 256 KiB; a server has nothing to keep."""

    def keeps_more(call: Call) -> Flow:
        yield call.buffered(10**6)

    sent, _ = play(Retry(), outgoing(Kind.STREAM_UNARY), Outcome())
    more, _ = play(chain(keeps_more, Retry()), outgoing(Kind.STREAM_UNARY), Outcome())
    server, _ = play(Retry(), incoming(Kind.STREAM_UNARY), Outcome())

    assert [calls[0]._asks.buffer for calls in (sent, more, server)] == [256 * 1024, 10**6, None]


def test_the_hook_is_told_of_each_retry() -> None:
    """Before it is sent: which, after what, and the pause."""
    told: list[RetryDetails] = []
    last = failing(UNAVAILABLE, "second")

    play(
        Retry(backoff=lambda number: number / 10, on_retry=told.append),
        outgoing(),
        failing(UNAVAILABLE),
        last,
        Outcome(),
    )

    assert [(details.number, details.pause) for details in told] == [(1, 0.1), (2, 0.2)]
    assert told[1].outcome.error is last.error
    assert told[1].call.method.name == "Charge"


def test_a_hook_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The RPC goes on."""

    def broken(details: RetryDetails) -> None:
        raise KeyError("no such counter")

    with caplog.at_level(logging.ERROR, "interpose"):
        sent, outcome = play(Retry(on_retry=broken), outgoing(), failing(UNAVAILABLE), Outcome())

    assert outcome.ok
    assert len(sent) == 2
    assert "on_retry failed" in caplog.text


# --- pushback -------------------------------------------------------------------------------------------------------


def pauses(retry: Retry, *script: Any, **given: Any) -> list[float]:
    """How long each call waited to be sent."""
    return [sent.delay for sent in testing.play(retry, script, **given).sent]


def test_the_backoff_begins_anew_after_a_pushback() -> None:
    """gRFC A6: exactly what the server said, then the pauses from the first on; the attempts go on."""
    retry = Retry(6, backoff=exponential(1.0, jitter=0), budget=Unlimited())
    down, pushed = failed(UNAVAILABLE), failed(UNAVAILABLE, pushback=0.007)

    assert pauses(retry, down, down, pushed, down, down, down) == [0, 1, 2, 0.007, 1, 2]


def test_the_trailer_wins_over_a_retry_info() -> None:
    """Both may be there: the one of gRPC counts."""
    error = errors.Unavailable("x", retry_info(9), trailing_metadata=(("grpc-retry-pushback-ms", "250"),))

    assert pauses(Retry(2), raised(error), ok()) == [0, 0.25]


def test_a_retry_info_beyond_reason_is_no_retry() -> None:
    """Less than nothing, or more than an int32 of milliseconds."""
    for seconds in (-1, 3_000_000):
        played = testing.play(Retry(), [raised(errors.Unavailable("x", retry_info(seconds)))])

        assert notes(played.outcome) == ["Retry: attempt 1 was the last: the server asked not to be tried again"]


@pytest.mark.parametrize("packed", [b"\xff\xff", b""])
def test_broken_details_change_nothing(packed: bytes) -> None:
    """They are a server's, and the backoff is ours."""
    retry = Retry(2, backoff=lambda _: 3.0)

    assert pauses(retry, failed(UNAVAILABLE, trailing=[("grpc-status-details-bin", packed)]), ok()) == [0, 3]


def test_without_protobuf_details_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `status` need not be installed for a server that sends rich errors."""
    error = errors.Unavailable("x", retry_info(9))
    monkeypatch.setitem(sys.modules, "interpose.contrib.status", None)

    assert pauses(Retry(2, backoff=lambda _: 3.0), raised(error), ok()) == [0, 3]


def test_a_pushback_makes_no_code_worth_a_retry() -> None:
    """NOT_FOUND stays an answer, whenever the server wants to be asked again."""
    played = testing.play(Retry(safe=True), [failed(grpc.StatusCode.NOT_FOUND, pushback=0.1)])

    assert len(played.sent) == 1
    assert notes(played.outcome) == []


def test_a_pushback_that_would_outlive_the_deadline() -> None:
    """Core waits for the deadline there; here the failure is the answer at once."""
    clock = FakeClock()
    played = testing.play(Retry(clock=clock), [failed(UNAVAILABLE, pushback=10)], timeout=1, clock=clock)

    assert played.outcome.code is UNAVAILABLE and played.elapsed == 0
    assert notes(played.outcome) == ["Retry: attempt 1 was the last: a pause of 10 s would outlive the deadline"]


# --- the budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "options", "tokens"),
    [
        (ok(), {}, 8.5),  # a half came back
        (failed(UNAVAILABLE), {}, 7.0),
        (failed(INTERNAL), {}, 8.0),  # no code of ours
        (failed(grpc.StatusCode.NOT_FOUND, pushback="-1"), {}, 7.0),  # it said not to retry
        (failed(grpc.StatusCode.NOT_FOUND, pushback=1.0), {}, 8.0),
        (failed(INTERNAL), {"codes": {INTERNAL}, "safe": False}, 7.0),  # the server fails, whether we may retry or not
        (ok(), {"retry_if": lambda outcome: True}, 7.0),
        (failed(UNAVAILABLE), {"retry_if": lambda outcome: False}, 8.0),
    ],
)
def test_what_an_attempt_costs(act: Act, options: dict[str, Any], tokens: float) -> None:
    """A failure that passes, or is told not to be repeated, takes a token; a success brings back a share; else nothing."""
    budget = RetryBudget(10, 0.5)
    for _ in range(2):
        budget.failed(0)

    testing.play(Retry(1, budget=budget, **options), [act])

    assert budget.tokens == tokens


def test_a_budget_is_shared() -> None:
    """What one Retry loses, another one lacks."""
    budget = RetryBudget(6)
    one, other = Retry(9, budget=budget, backoff=at_once), Retry(9, budget=budget, backoff=at_once)

    first = testing.play(one, [failed(UNAVAILABLE)] * 3)
    second = testing.play(other, [failed(UNAVAILABLE)])

    assert (len(first.sent), len(second.sent)) == (3, 1)
    assert budget.tokens == 2


def test_each_has_a_budget_of_its_own() -> None:
    """Ten tokens, of which five failures leave half: an instance that was given none makes one."""
    one, other = Retry(9, backoff=at_once), Retry(9, backoff=at_once)

    assert [len(testing.play(retry, [failed(UNAVAILABLE)] * 5).sent) for retry in (one, other)] == [5, 5]
    assert len(testing.play(one, [failed(UNAVAILABLE)]).sent) == 1


def test_a_budget_by_ratio_is_told_of_calls() -> None:
    """One call in two may be sent again, by the time of the clock."""
    clock = FakeClock()
    retry = Retry(2, budget=RatioBudget(0.5, 0), backoff=at_once, clock=clock)

    def attempts() -> int:
        acts = [failed(UNAVAILABLE), ok()]
        return len(testing.play(retry, [*acts, ...], clock=clock).sent)

    assert [attempts() for _ in range(4)] == [1, 2, 1, 2]
    clock.advance(10)
    assert [attempts() for _ in range(2)] == [1, 2]


def test_a_retry_that_is_not_made_is_not_spent() -> None:
    """The budget is asked last: neither the deadline nor safety cost it anything."""
    budget, clock = RatioBudget(0, 1), FakeClock()
    options: dict[str, Any] = {"budget": budget, "clock": clock, "codes": {UNAVAILABLE, INTERNAL}}
    testing.play(Retry(backoff=lambda _: 9.0, **options), [failed(UNAVAILABLE)], timeout=5, clock=clock)
    testing.play(Retry(**options), [failed(INTERNAL)], clock=clock)
    testing.play(Retry(1, **options), [failed(UNAVAILABLE)], clock=clock)

    assert len(testing.play(Retry(**options), [failed(UNAVAILABLE), ok()], clock=clock).sent) == 2


ACTS = st.sampled_from(
    [
        ok(),
        *(
            failed(code, pushback=pushback)
            for code in (UNAVAILABLE, UNAVAILABLE, INTERNAL, grpc.StatusCode.NOT_FOUND)
            for pushback in (None, None, "3000", "-1", "soon")
        ),
    ]
)


@given(
    st.lists(ACTS, min_size=1, max_size=8),
    st.integers(1, 6),
    st.sampled_from([None, True, False]),
    st.integers(2, 10),
    st.none() | st.just(9),
)
def test_against_a_slow_model(
    acts: list[Act], attempts: int, safe: bool | None, tokens: int, timeout: float | None
) -> None:
    """Whatever a server does, the pauses are those of gRFC A6, and so is what is left of the budget."""
    budget, clock = RetryBudget(tokens, 0.5), FakeClock()
    retry = Retry(
        attempts,
        codes={UNAVAILABLE, INTERNAL},
        safe=safe,
        budget=budget,
        backoff=exponential(1, jitter=0),
        clock=clock,
    )
    script: list[Any] = [*acts, ...]
    expected, left = by_the_book(acts, attempts, safe, tokens, timeout)
    acts_needed = len(expected)

    played = testing.play(
        retry, script if acts_needed > len(acts) else acts[:acts_needed], timeout=timeout, clock=clock
    )

    assert [sent.delay for sent in played.sent] == expected
    assert budget.tokens == left


def by_the_book(
    acts: list[Act], attempts: int, safe: bool | None, most: float, timeout: float | None
) -> tuple[list[float], float]:
    """The pauses before each attempt, and the tokens that are left."""
    tokens, pauses, steps, passed = most, [0.0], 0, 0.0
    while True:
        act = acts[min(len(pauses), len(acts)) - 1]
        asked = dict(act.trailing).get("grpc-retry-pushback-ms")
        if not act.fails:
            return pauses, min(tokens + 0.5, most)
        retryable = act.code in (UNAVAILABLE, INTERNAL)
        if retryable or asked in ("-1", "soon"):
            tokens = max(tokens - 1, 0)
        steps = 0 if asked else steps + 1
        pause = 3.0 if asked else min(2.0 ** (steps - 1), 5.0)
        passed += pause
        if (
            not retryable
            or asked in ("-1", "soon")
            or not (safe or (safe is None and act.code is UNAVAILABLE))
            or len(pauses) == attempts
            or (timeout is not None and passed >= timeout)
            or tokens <= most / 2
        ):
            return pauses, tokens
        pauses.append(pause)


# --- what is worth it -----------------------------------------------------------------------------------------------


def test_the_outcome_may_be_judged() -> None:
    """True and False decide whatever the code; None leaves it to the codes."""
    verdicts = {"again": True, "enough": False, "well": None}
    retry = Retry(2, safe=True, retry_if=lambda outcome: verdicts.get(outcome.details))

    def attempts(code: grpc.StatusCode, details: str) -> int:
        return len(testing.play(retry, [failed(code, details), ok("enough"), ...]).sent)

    found = {(code, details): attempts(code, details) for code in (UNAVAILABLE, INTERNAL) for details in verdicts}

    assert found == {
        (UNAVAILABLE, "again"): 2,
        (UNAVAILABLE, "enough"): 1,
        (UNAVAILABLE, "well"): 2,
        (INTERNAL, "again"): 2,
        (INTERNAL, "enough"): 1,
        (INTERNAL, "well"): 1,
    }


def test_what_is_wanted_again_has_to_be_safe() -> None:
    """`retry_if` does not say that a call may be executed twice; UNAVAILABLE does."""
    retry = Retry(2, retry_if=lambda outcome: True)

    sent = [testing.play(retry, [act, ok(), ...]).sent for act in (ok(), failed(INTERNAL), failed(UNAVAILABLE))]

    assert [len(calls) for calls in sent] == [1, 1, 2]


def test_a_judge_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The codes decide, and an answer is not lost."""
    retry = Retry(retry_if=lambda outcome: outcome.response["state"] == "pending", backoff=at_once)

    with caplog.at_level(logging.ERROR, "interpose"):
        played = testing.play(retry, [failed(UNAVAILABLE), ok("answer")])

    assert played.outcome.response == "answer"
    assert "retry_if failed; the status code decides" in caplog.text


def test_what_was_cancelled_here_is_never_sent_again() -> None:
    """Nobody waits for it, whatever the options say."""
    retry = Retry(codes={grpc.StatusCode.CANCELLED}, safe=True, retry_if=lambda outcome: True)
    here, there = (failing(grpc.StatusCode.CANCELLED, local=local) for local in (True, False))

    assert len(play(retry, outgoing(), here)[0]) == 1
    assert len(play(retry, outgoing(), there, Outcome())[0]) == 2


def test_errors_are_for_servers() -> None:
    """What a client's own machinery raises is no handler's."""
    broken = Outcome(grpc.StatusCode.UNKNOWN, error=OSError("bug"), replayable=True)
    retry = Retry(2, errors=(OSError,), safe=True)

    assert len(play(retry, outgoing(), broken)[0]) == 1
    assert len(play(retry, incoming(), broken, Outcome())[0]) == 2


def test_naming_an_error_makes_no_call_of_a_client_safe() -> None:
    """A status that a server told may be one of `errors` by its class; its call may have been executed all the same."""
    retry = Retry(2, codes={INTERNAL}, errors=(errors.Internal,))

    assert len(testing.play(retry, [failed(INTERNAL)]).sent) == 1


@pytest.mark.parametrize(("safe", "attempts"), [(None, 2), (True, 2), (False, 1), (lambda call: False, 1)])
def test_naming_an_error_says_that_it_is_safe(safe: Any, attempts: int) -> None:
    """Unless `safe` denies it."""
    retry = Retry(2, errors=(OSError,), safe=safe)
    script = [raised(ConnectionError()), ok()][:attempts]

    assert len(testing.play(retry, script, side=Side.SERVER).sent) == attempts


# --- an attempt's own time ------------------------------------------------------------------------------------------

HANG = Act(hang=True)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_each_attempt_has_its_time(kind: Kind) -> None:
    """Three times two seconds, and the pauses in between; then the failure stands."""
    clock = FakeClock()
    retry = Retry(3, per_attempt=2, safe=True, backoff=lambda _: 1.0, clock=clock)

    played = testing.play(retry, [HANG, ...], kind=kind, clock=clock)

    assert (played.outcome.code, len(played.sent), played.elapsed) == (DEADLINE_EXCEEDED, 3, 8)
    assert notes(played.outcome) == ["Retry: attempt 3 was the last"]


@pytest.mark.parametrize(("safe", "attempts"), [(True, 2), (False, 1), (None, 1)])
def test_who_took_too_long_may_have_done_it(safe: bool | None, attempts: int) -> None:
    """So the call has to be safe."""
    retry = Retry(2, per_attempt=2, safe=safe)

    assert len(testing.play(retry, [HANG, ok()][:attempts]).sent) == attempts


def test_the_deadline_of_the_rpc_is_not_an_attempts_time() -> None:
    """When that has passed nothing is sent, no token is taken, and there is nothing to note."""
    clock, budget = FakeClock(), RetryBudget()
    retry = Retry(per_attempt=2, safe=True, budget=budget, clock=clock)

    played = testing.play(retry, [HANG], timeout=1, clock=clock)

    assert (played.outcome.code, played.elapsed) == (DEADLINE_EXCEEDED, 1)
    assert budget.tokens == 10
    assert notes(played.outcome) == []


def test_a_stream_that_has_begun_has_all_the_time() -> None:
    """`per_attempt` is for its beginning."""
    slow = ok("a", initial=(("x-node", "7"),), delay=60)

    played = testing.play(Retry(per_attempt=2, safe=True), [slow], kind=Kind.UNARY_STREAM)

    assert played.outcome.ok and played.elapsed == 60


def test_without_it_a_deadline_is_a_failure_like_others() -> None:
    """DEADLINE_EXCEEDED that a server tells is retried if it is among the codes."""
    script: list[Any] = [failed(DEADLINE_EXCEEDED), ok(), ...]

    assert len(testing.play(Retry(safe=True), script).sent) == 1
    assert len(testing.play(Retry(safe=True, codes={DEADLINE_EXCEEDED}), script).sent) == 2


def test_on_a_server_it_changes_nothing() -> None:
    """A handler is limited by `Deadline`."""
    played = testing.play(Retry(per_attempt=2), [ok(delay=60)], side=Side.SERVER)

    assert played.outcome.ok and played.elapsed == 60


# --- resuming -------------------------------------------------------------------------------------------------------

BROKEN = failed(UNAVAILABLE, after=1)


def onwards(call: Call, last: str) -> Call:
    return call.with_request(f"after {last}").with_metadata(("x-from", last))


def watch(retry: Retry, *script: Any, **given: Any) -> testing.Played:
    options: dict[str, Any] = {"kind": Kind.UNARY_STREAM, "requests": ["a"]} | given
    return testing.play(retry, script, **options)


def test_a_stream_is_resumed_behind_its_last_message() -> None:
    """From the first call each time, so that nothing piles up; numbers and pauses begin anew with each message."""
    told: list[RetryDetails] = []
    retry = Retry(3, resume=onwards, backoff=lambda number: 1.0 * number, on_retry=told.append)

    played = watch(retry, failed(UNAVAILABLE), BROKEN, failed(UNAVAILABLE), BROKEN, ok("b", "c"))

    assert [sent.call.request for sent in played.sent] == ["a", "a", "after a", "after a", "after after a"]
    assert [sent.metadata.get_all("x-from") for sent in played.sent] == [[], [], ["a"], ["a"], ["after a"]]
    assert [sent.metadata.get_all(KEY) for sent in played.sent] == [[], ["1"], ["1"], ["2"], ["1"]]
    assert [(details.number, details.pause) for details in told] == [(1, 1), (1, 1), (2, 2), (1, 1)]
    assert [message for sent in played.sent for message in sent.responses] == ["a", "after a", "b", "c"]
    assert played.outcome.ok


def test_a_stream_that_makes_no_progress_is_given_up() -> None:
    """After as many attempts as any call has."""
    played = watch(Retry(3, resume=onwards), BROKEN, failed(UNAVAILABLE), failed(UNAVAILABLE, "the last"))

    assert len(played.sent) == 3
    assert played.outcome.details == "the last"


def test_it_goes_on_for_much_longer_than_any_call_is_retried() -> None:
    """As long as messages come, it is no retry that counts."""
    played = watch(Retry(2, resume=onwards, budget=Unlimited(), backoff=at_once), *[BROKEN] * 1500, ok("end"))

    assert played.outcome.ok and len(played.sent) == 1501


def test_each_break_costs_a_token() -> None:
    """The budget holds for streams that are resumed as for calls."""
    played = watch(Retry(resume=onwards, backoff=at_once), *[BROKEN] * 5)

    assert notes(played.outcome) == ["Retry: attempt 5 was the last: the budget for retries is used up"]


@pytest.mark.parametrize("options", [{"resume": lambda call, last: None}, {"resume": onwards, "safe": False}, {}])
def test_a_stream_that_is_not_resumed(options: dict[str, Any]) -> None:
    """If the function says None, or the call is not safe, or there is no function, the failure stands."""
    played = watch(Retry(**options), BROKEN)

    assert played.outcome.code is UNAVAILABLE
    assert notes(played.outcome) == []


@pytest.mark.parametrize("answer", [lambda last: last["id"], lambda last: "after"])
def test_a_function_that_fails_is_logged(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """So is one that gives no call: the failure stands, and says so."""
    with caplog.at_level(logging.ERROR, "interpose"):
        played = watch(Retry(resume=lambda call, last: answer(last)), BROKEN)

    (note,) = notes(played.outcome)
    assert played.outcome.code is UNAVAILABLE
    assert note.startswith("Retry: attempt 1 was the last: resume raised ")
    assert "resume failed" in caplog.text


def test_other_codes_do_not_resume() -> None:
    """What is not worth a retry is not worth going on."""
    assert len(watch(Retry(resume=onwards), failed(INTERNAL, after=1)).sent) == 1


@pytest.mark.parametrize("given", [{"kind": Kind.STREAM_STREAM, "requests": ["a", "b"]}, {"side": Side.SERVER}])
def test_what_cannot_be_resumed(given: dict[str, Any]) -> None:
    """A call with a request stream, or one on a server."""
    assert len(watch(Retry(resume=onwards), BROKEN, **given).sent) == 1


def test_a_stream_that_ended_may_be_resumed() -> None:
    """A watch that the server closes with OK goes on if `retry_if` wants it to."""
    retry = Retry(retry_if=lambda outcome: outcome.ok and outcome.responses == 1, resume=onwards, backoff=at_once)

    played = watch(retry, ok("b"), ok("c", "d"))

    assert [sent.call.request for sent in played.sent] == ["a", "after b"]


def test_a_message_that_was_refused_further_out_is_not_skipped() -> None:
    """It has been heard here but never reached the caller, so what comes after it would leave a gap."""

    def refuse(message: str) -> None:
        raise errors.Unavailable("no", local=True)

    def refusing(call: Call) -> Flow:
        yield call.tap(responses=refuse)

    played = testing.play(chain(refusing, Retry(resume=onwards)), [ok("b", "c")], kind=Kind.UNARY_STREAM)

    assert len(played.sent) == 1
    assert played.outcome.details == "no"


# --- threads --------------------------------------------------------------------------------------------------------

CROWD = 200


def test_futures_that_back_off_hold_no_thread() -> None:
    """Two hundred that wait for their next attempt have not one thread between them."""
    clock = FakeClock()
    place = Place(False, Side.CLIENT, Kind.UNARY_UNARY)
    retry = Retry(budget=Unlimited(), clock=clock)
    with place.open(retry, script=[*refused(place, CROWD), ok(), ...], clock=clock) as rpc:
        stub = Stub(rpc.channel).unary_unary
        assert not clock.waiting
        first = [stub.future("a") for _ in range(CROWD)]
        clock.wait_for(CROWD)
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("interpose")]
        clock.advance(10)

        assert {call.result(10) for call in first} == {"a"}
    assert threads == []
    assert len(rpc.attempts) == 2 * CROWD


async def test_asyncio_calls_that_back_off_hold_no_thread() -> None:
    """Nor have those of a loop."""
    clock = FakeClock()
    echo = Echo([*[failed(UNAVAILABLE)] * CROWD, ok(), ...])
    async with echo.serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        channel: Any = intercept_channel(bare, Retry(budget=Unlimited(), clock=clock), clock=clock)
        before = threading.active_count()
        calls = [Stub(channel).unary_unary("a") for _ in range(CROWD)]
        await clock.reached(CROWD)
        during = threading.active_count()
        clock.advance(10)

        assert set(await asyncio.gather(*calls)) == {"a"}
    assert during <= before
    assert len(echo.attempts) == 2 * CROWD


# --- options of a channel -------------------------------------------------------------------------------------------

POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
CONFIG = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not warned yet."""
    monkeypatch.setattr(module, "_unsaid", [True])


def test_the_cores_retries_are_switched_off() -> None:
    """In the place of any other word on it; all other options stay, in their order."""
    given = [("a", 1), ("grpc.enable_retries", 1), ("b", "2"), ("grpc.enable_retries", 1)]

    assert Retry.channel_options(given) == [("a", 1), ("b", "2"), ("grpc.enable_retries", 0)]
    assert Retry.channel_options() == Retry.channel_options(None) == [("grpc.enable_retries", 0)]
    assert given[1] == ("grpc.enable_retries", 1)


@pytest.mark.usefixtures("unsaid")
def test_a_policy_of_the_service_config_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """That it is off, and what to do instead."""
    with caplog.at_level(logging.WARNING, "interpose"):
        for _ in range(3):
            Retry.channel_options([("grpc.service_config", CONFIG)])

    (record,) = caplog.records
    assert "Retry.from_service_config" in record.getMessage()


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "null",
        "{}",
        '{"methodConfig": 5}',
        '{"methodConfig": [5]}',
        '{"methodConfig": [{}]}',
        None,
        "[" * 9**5,
    ],
)
def test_any_other_config_is_for_grpc_to_judge(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, and nothing raised."""
    with caplog.at_level(logging.WARNING, "interpose"):
        options = Retry.channel_options([("grpc.service_config", config)])

    assert options[0] == ("grpc.service_config", config)
    assert not caplog.records


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize(("options", "attempts"), [(Retry.channel_options, 3), (list, 12)])
def test_the_two_multiply(options: Callable[[Any], Any], attempts: int) -> None:
    """Three of ours times four of core's, unless the channel has these options."""
    echo = Echo([failed(UNAVAILABLE), ...])
    with echo.serve() as target:
        bare = grpc.insecure_channel(target, options([("grpc.service_config", CONFIG)]))
        with intercept_channel(bare, Retry(3, backoff=at_once)) as channel, pytest.raises(errors.Unavailable):
            Stub(channel).unary_unary("a", timeout=20)

    assert len(echo.attempts) == attempts


def test_a_service_config_is_read_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded when it is asked for, and given all that was said."""
    told: list[Any] = []
    reader = SimpleNamespace(from_service_config=lambda config, **options: told.append((config, options)))
    monkeypatch.setitem(sys.modules, "interpose.interceptors.service_config", reader)
    options: dict[str, Any] = {"budget": Unlimited(), "clock": FakeClock(), "on_retry": print, "on_hedge": print}

    Retry.from_service_config("{}", **options)

    assert told == [("{}", options)]


def test_the_policy_of_a_service_config_is_taken_over(place: Place) -> None:
    """The very text that core reads, with as many attempts as it says."""
    stack = Retry.from_service_config(CONFIG)

    with place.open(stack, script=[*refused(place, 3), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert len(rpc.attempts) == 4


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"attempts": 0}, "attempts must be a whole number from 1"),
        ({"attempts": True}, "attempts must be a whole number from 1"),
        ({"attempts": 1001}, "to 1000, not 1001"),
        ({"codes": UNAVAILABLE}, "codes must be a set like"),
        ({"codes": {"UNAVAILABLE"}}, "codes must be a set like"),
        ({"codes": {grpc.StatusCode.OK}}, "without OK"),
        ({"codes": ()}, "codes must be a set like"),
        ({"backoff": 0.1}, "backoff must be a function like exponential"),
        ({"budget": 10}, r"budget must be None or a budget like RetryBudget\(\)"),
        ({"budget": RetryBudget}, "budget must be None or a budget like"),
        ({"safe": "yes"}, "safe must be None, True, False or a function"),
        ({"retry_if": True}, "retry_if must be a function of the outcome, not True"),
        ({"per_attempt": 0}, "per_attempt must be None or above 0 and below 1e\\+08 seconds, not 0"),
        ({"per_attempt": 1e8}, "per_attempt must be None or above 0"),
        ({"buffer": -1}, "buffer must be a whole number of bytes from 0, not -1"),
        ({"buffer": 1.5}, "buffer must be a whole number of bytes from 0, not 1.5"),
        ({"resume": 1}, "resume must be a function of"),
        ({"errors": [KeyError]}, "errors must be a tuple of exception classes"),
        ({"errors": KeyError}, "errors must be a tuple of exception classes"),
        ({"errors": (KeyboardInterrupt,)}, "errors must be a tuple of exception classes"),
        ({"clock": 0}, r"clock must have a method now\(\)"),
        ({"on_retry": 1}, "on_retry must be a function of RetryDetails"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Each with what to write instead."""
    with pytest.raises(ValueError, match=f"^Retry: .*{complaint}"):
        Retry(**options)


def test_every_fault_is_told_at_once() -> None:
    """One error names all that is wrong."""
    wrong: dict[str, Any] = dict.fromkeys(
        ("attempts", "codes", "backoff", "budget", "safe", "retry_if", "per_attempt", "resume", "errors", "clock"), "x"
    )
    with pytest.raises(ValueError, match=f"{' .*; '.join(wrong)} .*; on_retry ") as refused:
        Retry(**wrong, buffer=-1, on_retry=1)  # type: ignore[arg-type]

    assert str(refused.value).count(";") == 11


def test_the_buffer_may_be_another() -> None:
    """In bytes, for request streams; 0 keeps nothing."""
    kept = [play(Retry(buffer=size), outgoing(Kind.STREAM_UNARY), Outcome())[0][0] for size in (0, 1_000_000)]

    assert [call._asks.buffer for call in kept] == [0, 1_000_000]


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_handler_that_sent_metadata_is_not_called_again(sort: str) -> None:
    """The response has begun, as with a client: metadata cannot be sent a second time."""
    called: list[str] = []

    def begin(request: str, context: Any) -> str:
        called.append(request)
        context.send_initial_metadata((("x-node", "7"),))
        context.abort(UNAVAILABLE, "not now")
        return request

    async def begin_later(request: str, context: Any) -> str:
        called.append(request)
        await context.send_initial_metadata((("x-node", "7"),))
        await context.abort(UNAVAILABLE, "not now")
        return request

    handlers = {"unary_unary": begin_later if sort == "async" else begin}
    with serving(sort, handlers, Retry(backoff=at_once, safe=True)) as client:
        reply = client.call("a")

    assert (reply.code, reply.details) == (UNAVAILABLE, "not now")
    assert called == ["a"]
