"""Retry: what is sent again, when, and what is not."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, chain, intercept_channel
from interpose.interceptors import Retry, RetryDetails
from interpose.mechanisms.backoff import exponential
from interpose.testing import PLACES, FakeClock, Place, failed, ok
from tests.facts.serving import serving
from tests.interceptors.driving import Told, each, failing, incoming, is_server, outgoing, play, requests
from tests.protos.compiled import Generated

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
KEY = "x-retry-attempt"

STREAMED = [place for place in PLACES if place.kind.response_streaming]
UPLOADS = [place for place in PLACES if place.kind.request_streaming and place.side is Side.CLIENT]


def at_once(_: int) -> float:
    return 0.0


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
        ({"safe": "yes"}, "safe must be None, True, False or a function"),
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
    with pytest.raises(ValueError, match=r"attempts .*; codes .*; backoff .*; safe .*; clock .*; on_retry "):
        Retry(0, codes=(), backoff=1, safe=1, clock=1, on_retry=1)  # type: ignore[arg-type]


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
