"""What `play` says is what happens: played by hand and on real servers, an interceptor comes to the same end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpose import AsyncFlow, Call, Flow, Interceptor, Kind, Outcome, Side, chain, errors, wait
from interpose.interceptors import Retry
from interpose.testing import PLACES, Act, FakeClock, Place, died, failed, ok, play, raised
from tests.interceptors.driving import Told, is_server, requests
from tests.support.examples import examples

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND

SOON, LATER = 0.1, 3.0  # seconds, of grpc's time: to connect and send, and the same on a machine that is very busy

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
UPLOADS = [place for place in CLIENTS if place.kind.request_streaming]
INTERRUPTIBLE = [place for place in PLACES if place in CLIENTS or place.asyncio]


# --- a small family of interceptors -----------------------------------------------------------------------------------


def passes(call: Call) -> Flow:
    yield call


def sends_again(call: Call) -> Flow:
    """Twice more, if the outcome bears it."""
    outcome = yield call
    for number in range(2):
        if outcome.ok or not outcome.replayable or outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            break
        outcome = yield call.with_metadata(("x-number", str(number))).after(30)
    return outcome


def keeps_and_sends_again(call: Call) -> Flow:
    return (yield from chain(sends_again)(call.buffered()))


def sends_again_whatever_happened(call: Call) -> Flow:
    outcome = yield call
    if not outcome.ok:
        yield call


def answers(call: Call) -> Flow:
    return Outcome.success(["made", "here"] if call.kind.response_streaming else "made here")
    yield call


def refuses(call: Call) -> Flow:
    raise errors.PermissionDenied("not you", trailing_metadata=(("x-why", "rules"),))
    yield call


def refuses_afterwards(call: Call) -> Flow:
    outcome = yield call
    if outcome.ok:
        raise errors.DataLoss("it was wrong")


def falls_back(call: Call) -> Flow:
    outcome = yield call
    if not outcome.ok:
        return Outcome.success(["fallen", "back"] if call.kind.response_streaming else "fallen back")
    return None


def adds_to_the_answer(call: Call) -> Flow:
    outcome = yield call
    if not call.kind.response_streaming and outcome.ok:
        outcome = outcome.with_response(f"{outcome.response}!")
    return outcome.with_trailing_metadata(("x-seen", "yes"))


def translates(call: Call) -> Flow:
    outcome = yield call
    if outcome.code is NOT_FOUND:
        raise errors.FailedPrecondition(f"was: {outcome.details}") from outcome.error


def maps(call: Call) -> Flow:
    yield call.map(requests=lambda text: f"<{text}>", responses=lambda text: f"{text}?").tap(
        requests=lambda text: None, responses=lambda text: None
    )


def fails_at_a_request(call: Call) -> Flow:
    yield call.tap(requests=_fails("b" if call.kind.request_streaming else "a", KeyError("secret")))


def refuses_a_response(call: Call) -> Flow:
    yield call.map(responses=_fails("b", errors.OutOfRange("no b")))


def _fails(at: str, error: Exception) -> Callable[[str], str]:
    def look(text: str) -> str:
        if at in text:
            raise error
        return text

    return look


def has_no_time(call: Call) -> Flow:
    yield call.with_timeout(0)


def has_no_time_to_pause(call: Call) -> Flow:
    outcome = yield call
    if not outcome.ok and outcome.replayable:
        yield call.after(30).with_timeout(-1)


def is_broken_before(call: Call) -> Flow:
    raise KeyError("secret")
    yield call


def is_broken_afterwards(call: Call) -> Flow:
    yield call
    raise KeyError("secret")


def yields_nonsense(call: Call) -> Flow:
    yield "nonsense"  # type: ignore[misc]


def returns_nonsense(call: Call) -> Flow:
    yield call
    return "nonsense"


def takes_another_request(call: Call) -> Flow:
    yield call if call.kind.request_streaming else call.with_request("another")


async def waits_as_a_generator(call: Call) -> AsyncFlow:
    outcome = yield call
    if not outcome.ok and outcome.replayable:
        yield call.with_metadata(("x-again", "yes"))


def waits(call: Call) -> Flow:
    async def token() -> str:
        return "t-1"

    outcome = yield call.with_metadata(("x-token", (yield from wait(token()))))
    if not outcome.ok and outcome.replayable:
        yield call.with_metadata(("x-token", (yield from wait("t-2"))))


def waits_for_what_fails(call: Call) -> Flow:
    async def broken() -> str:
        raise KeyError("secret")

    yield call
    yield from wait(broken())


def races(call: Call) -> Flow:
    yield call.hedged(copies=3, delay=3600)


def races_with_a_verdict(call: Call) -> Flow:
    """Only what is UNAVAILABLE lets another copy go, and there are two of them in all."""
    copies = iter([True, False])

    def verdict(outcome: Outcome) -> float | None:
        return 0.0 if outcome.code is UNAVAILABLE else None

    yield call.hedged(copies=4, delay=3600, verdict=verdict, ready=lambda: next(copies))


def resumes(call: Call) -> Flow:
    """Goes on behind what was delivered, once."""
    outcome = yield call
    if not outcome.ok:
        yield call.with_request("more").resumed()


def retries(call: Call) -> Flow:
    return (yield from chain(Retry(3, safe=True, backoff=lambda number: 10.0 * number))(call))


ANYWHERE: list[Interceptor] = [
    passes,
    sends_again,
    keeps_and_sends_again,
    sends_again_whatever_happened,
    answers,
    refuses,
    refuses_afterwards,
    falls_back,
    adds_to_the_answer,
    translates,
    maps,
    fails_at_a_request,
    refuses_a_response,
    has_no_time,
    has_no_time_to_pause,
    is_broken_before,
    is_broken_afterwards,
    yields_nonsense,
    returns_nonsense,
    takes_another_request,
    retries,
]
NEEDS_A_LOOP: list[Interceptor] = [waits_as_a_generator, waits, waits_for_what_fails]


def family(place: Place) -> list[Interceptor]:
    """What can run there."""
    loop = NEEDS_A_LOOP if place.asyncio else []
    racing = [races, races_with_a_verdict] if place in CLIENTS else []
    resuming = [resumes] if place in CLIENTS and place.kind is Kind.UNARY_STREAM else []
    return [*ANYWHERE, *loop, *racing, *resuming]


# --- scripts ----------------------------------------------------------------------------------------------------------

TRAILING = (("x-trailing", "t"),)
INITIAL = (("x-initial", "i"),)


def acts(place: Place) -> st.SearchStrategy[Act]:
    """What the service can do there, and `play` as well."""
    codes = st.sampled_from([UNAVAILABLE, NOT_FOUND, grpc.StatusCode.INTERNAL])
    details = st.sampled_from(["", "as scripted"])
    after = st.integers(0, 2)
    # A client that still sends when it is refused may see another status.
    unread = st.booleans() if place.kind.request_streaming and is_server(place) else st.just(False)
    answers = st.sampled_from([(), ("x",), ("x", "b", "z")] if place.kind.response_streaming else [(), ("xb",)])
    errors_raised = st.sampled_from([KeyError("id"), errors.NotFound("no such thing", trailing_metadata=TRAILING)])
    initial, trailing = st.sampled_from([(), INITIAL]), st.sampled_from([(), TRAILING])
    return st.one_of(
        st.builds(
            lambda given, before, behind: ok(*given, initial=before, trailing=behind), answers, initial, trailing
        ),
        st.builds(failed, codes, details, after=after, unread=unread, trailing=trailing),
        st.builds(raised, errors_raised, after=after, trailing=trailing),
    )


# --- played and performed ---------------------------------------------------------------------------------------------


@dataclass
class End:
    """What the outermost flow was told, what the caller received, and what the other side saw of each attempt."""

    code: grpc.StatusCode
    details: str
    error: type | None
    local: bool
    requests: int
    responses: int
    attempts: int
    replayable: bool
    initial: dict[str, Any]
    trailing: dict[str, Any]
    messages: list[str]
    sent: list[dict[str, Any]]


def end(outcome: Outcome, messages: list[str], sent: list[Any]) -> End:
    # On a handler's exception; each stack has its own.
    text_of_grpc = outcome.details.startswith(("Exception ", "Unexpected "))
    return End(
        outcome.code,
        "in grpc's words" if text_of_grpc else outcome.details,
        None if outcome.error is None else getattr(type(outcome.error), "status_code", type(outcome.error)),
        outcome.local,
        outcome.requests,
        outcome.responses,
        outcome.attempts,
        outcome.replayable,
        ours(outcome.initial_metadata),
        ours(outcome.trailing_metadata),
        messages,
        [ours(one.metadata) for one in sent],
    )


def ours(metadata: Any) -> dict[str, Any]:
    """What is not grpc's own."""
    return {key: value for key, value in metadata if key.startswith("x-")}


def performed(place: Place, interceptor: Interceptor, script: list[Act]) -> End:
    """The RPC on a real server."""
    told = Told()
    # Pauses are over at once, but copies do not all leave together.
    clock = FakeClock(auto=interceptor not in (races, races_with_a_verdict))
    with place.open(told, interceptor, script=script, clock=clock) as rpc:
        reply = rpc.call(*requests(place))
        assert told.ended.acquire(timeout=10)
        return end(told.outcomes[0], reply.messages, list(rpc.attempts))


def played(place: Place, interceptor: Interceptor, script: list[Act], attempts: int) -> End:
    """The RPC played by hand; ScriptError unless it makes as many attempts."""
    told = Told()
    script = [*script, *[ok()] * attempts][:attempts]
    done = play(chain(told, interceptor), script, side=place.side, kind=place.kind, requests=requests(place))
    return end(told.outcomes[0], done.responses, done.sent)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_played_as_performed(place: Place) -> None:
    """Outcome, counts, metadata, attempts and what the caller receives are the same by hand and over the wire."""

    @settings(max_examples=examples(30), deadline=None, database=None)
    @given(st.sampled_from(family(place)), st.lists(acts(place), max_size=3))
    def agree(interceptor: Interceptor, script: list[Act]) -> None:
        over_the_wire = performed(place, interceptor, script)
        if interceptor is fails_at_a_request and place in UPLOADS:
            # The call is broken off while it is being sent: no telling what the server saw of it, or had answered.
            by_hand = played(place, interceptor, script, over_the_wire.attempts)
            over_the_wire.sent, over_the_wire.initial = by_hand.sent, by_hand.initial
        else:
            by_hand = played(place, interceptor, script, len(over_the_wire.sent))

        assert by_hand == over_the_wire

    agree()


# --- ends that need their time ----------------------------------------------------------------------------------------


def test_a_call_that_hangs(place: Place) -> None:
    """When the client's time is up the flow is told DEADLINE_EXCEEDED, after the same messages."""
    by_hand = Told()
    play(by_hand, [ok(hang=True)], side=place.side, kind=place.kind, requests=requests(place), timeout=SOON)

    told = unhurried(lambda seconds: hung(place, timeout=seconds), by_hand)

    assert counted(by_hand) == counted(told)
    if is_server(place):
        assert by_hand.outcomes[0].details == told.outcomes[0].details
        assert by_hand.outcomes[0].local


@pytest.mark.parametrize("place", INTERRUPTIBLE, ids=str)
def test_a_call_that_takes_longer_than_an_interceptor_allows(place: Place) -> None:
    """The flow is told DEADLINE_EXCEEDED, after the same messages; where there is no thread that cannot be interrupted."""

    def limits(seconds: float) -> Interceptor:
        def limit(call: Call) -> Flow:
            yield call.with_timeout(seconds)

        return limit

    by_hand = Told()
    play(chain(by_hand, limits(SOON)), [ok(hang=True)], side=place.side, kind=place.kind, requests=requests(place))

    told = unhurried(lambda seconds: hung(place, limits(seconds)), by_hand)

    assert counted(by_hand) == counted(told)


def hung(place: Place, *inner: Interceptor, timeout: float | None = None) -> Told:
    """What an interceptor is told of a handler that never answers."""
    told = Told()
    with place.open(told, *inner, script=[ok(hang=True)]) as rpc:
        rpc.call(*requests(place), timeout=timeout)
        assert told.ended.acquire(timeout=10)
    return told


def unhurried(perform: Callable[[float], Told], by_hand: Told) -> Told:
    """Played with little time; once more with much, if not everything had arrived when it was up."""
    told = perform(SOON)
    return told if counted(told) == counted(by_hand) else perform(LATER)


def test_a_deadline_that_comes_during_a_pause(place: Place) -> None:
    """Nothing more is sent, and the flow is told DEADLINE_EXCEEDED."""
    told, by_hand, clock = Told(), Told(), FakeClock()
    script = [failed(UNAVAILABLE, unread=is_server(place))]
    timeout = SOON if is_server(place) else 10  # grpc tells a server that the time is up, and the clock tells a client

    with place.open(told, keeps_and_sends_again, script=script, clock=clock) as rpc:
        calling = threading.Thread(target=rpc.call, args=requests(place), kwargs={"timeout": timeout})
        calling.start()
        clock.wait_for(1)
        if not is_server(place):
            clock.advance(10)
        assert told.ended.acquire(timeout=10)
        calling.join()
    stack = chain(by_hand, keeps_and_sends_again)
    play(stack, script, side=place.side, kind=place.kind, requests=requests(place), timeout=timeout)

    outcome = told.outcomes[0]
    # The news that the client has gone may come to a server before its own clock says that the time is up.
    if is_server(place) and outcome.code is grpc.StatusCode.CANCELLED:
        assert counted(by_hand)[1:] == counted(told)[1:]
    else:
        assert outcome.details == by_hand.outcomes[0].details
        assert counted(by_hand) == counted(told)


def test_a_connection_that_breaks(place: Place) -> None:
    """A client is told UNAVAILABLE, a server CANCELLED; what had passed before counts."""
    told, by_hand = Told(), Told()

    with place.open(told, script=[died(after=1)]) as rpc:
        reply = rpc.call(*requests(place))
        assert told.ended.acquire(timeout=10)
    done = play(by_hand, [died(after=1)], side=place.side, kind=place.kind, requests=requests(place))

    assert counted(by_hand) == counted(told)
    assert reply.code is UNAVAILABLE
    assert reply.messages == done.responses


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_copy_that_loses(place: Place) -> None:
    """The flow further in is told CANCELLED, in the same words; the winner stands."""
    told, by_hand = Told(), Told()
    clock = FakeClock()

    with place.open(races, told, script=[ok(hang=True), ok()], clock=clock) as rpc:
        calling = threading.Thread(target=rpc.call, args=requests(place))
        calling.start()
        clock.wait_for(1)
        rpc.echo.wait_begun()
        clock.advance(3600)
        calling.join()
        assert told.ended.acquire(timeout=10) and told.ended.acquire(timeout=10)
    done = play(chain(races, by_hand), [ok(hang=True), ok()], kind=place.kind, requests=requests(place))

    assert done.outcome.ok and done.outcome.attempts == 2
    assert sorted(ends(by_hand)) == sorted(ends(told))


def counted(told: Told) -> tuple[Any, ...]:
    """The end of an RPC without its words: for timeouts they are those of grpc's core."""
    [outcome] = told.outcomes
    return (outcome.code, outcome.requests, outcome.responses, outcome.attempts, outcome.replayable)


def ends(told: Told) -> list[tuple[str, str]]:
    return [(outcome.code.name, outcome.details) for outcome in told.outcomes]
