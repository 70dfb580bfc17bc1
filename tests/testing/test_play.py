"""play: an interceptor run by hand, and what it says of a script that does not fit."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import anyio
import grpc
import pytest

from interpose import AsyncFlow, Call, Flow, Interceptor, Kind, Outcome, Side, chain, context, errors, wait
from interpose.testing import FakeClock, ScriptError, died, failed, incoming, ok, play, raised
from tests.interceptors.driving import Told

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
SIDES = pytest.mark.parametrize("side", list(Side), ids=lambda side: side.value)


def passes(call: Call) -> Flow:
    yield call


def once_more(call: Call) -> Flow:
    outcome = yield call
    if outcome.code is UNAVAILABLE and outcome.replayable:
        outcome = yield call.with_metadata(("x-retry", "1")).after(0.5)
    return outcome


def races(call: Call) -> Flow:
    yield call.hedged(copies=3, delay=2.0)


# --- what is played ---------------------------------------------------------------------------------------------------


@KINDS
@SIDES
def test_a_script_is_an_answer_unless_it_says_otherwise(kind: Kind, side: Side) -> None:
    """The service echoes, in every kind of RPC and on both sides; messages are counted and given."""
    played = play(passes, kind=kind, side=side)

    echoed = ["hello"] * (3 if kind is Kind.UNARY_STREAM else 1)
    assert played.outcome.ok
    assert played.responses == echoed
    assert (played.outcome.requests, played.outcome.responses) == (1, len(echoed))
    assert [sent.responses for sent in played.sent] == [tuple(echoed)]


def test_a_failure_then_an_answer() -> None:
    """Each send is kept with its metadata, its delay, when it was, and how it ended."""
    played = play(once_more, [failed(UNAVAILABLE), ok("hello")], metadata=(("x-a", "b"),), timeout=10)

    first, second = played.sent
    assert played.outcome.response == "hello" and played.responses == ["hello"]
    assert (played.outcome.attempts, played.elapsed) == (2, 0.5)
    assert (first.outcome.code, first.delay, first.at, first.timeout) == (UNAVAILABLE, 0, 0, 10)
    assert (second.outcome.code, second.delay, second.at) == (grpc.StatusCode.OK, 0.5, 0.5)
    assert second.metadata.get_all("x-retry") == ["1"] and second.metadata["x-a"] == "b"


def test_the_last_act_may_repeat() -> None:
    """`...` lets it happen as often as the interceptor sends."""
    played = play(once_more, [failed(UNAVAILABLE), ...])

    assert len(played.sent) == 2
    assert played.outcome.code is UNAVAILABLE


def test_an_answer_without_sending() -> None:
    """An empty script says that nothing is sent."""

    def cached(call: Call) -> Flow:
        return Outcome.success("kept")
        yield call

    played = play(cached, [])

    assert (played.sent, played.responses, played.outcome.attempts) == ([], ["kept"], 0)


def test_a_stream_answered_here() -> None:
    """The messages that the interceptor made are what the caller receives."""

    def cached(call: Call) -> Flow:
        return Outcome.success(["a", "b"])
        yield call

    assert play(cached, [], kind=Kind.UNARY_STREAM).responses == ["a", "b"]


def test_a_stream_that_breaks() -> None:
    """What came before the failure was received, counts, and cannot be sent for again."""
    played = play(once_more, [failed(UNAVAILABLE, after=2)], kind=Kind.UNARY_STREAM)

    assert played.responses == ["hello", "hello"]
    assert (played.outcome.responses, played.outcome.replayable) == (2, False)


def test_a_connection_that_breaks() -> None:
    """A client is told UNAVAILABLE, and a server that its client has gone."""
    client, server = play(passes, [died()]), play(passes, [died()], side=Side.SERVER)

    assert (client.outcome.code, client.outcome.local) == (UNAVAILABLE, False)
    assert (server.outcome.code, server.outcome.local) == (CANCELLED, True)


def test_what_a_handler_raises() -> None:
    """On a server the flow sees the exception itself; on a client what a server makes of it."""
    bug = KeyError("id")

    server, client = play(passes, [raised(bug)], side=Side.SERVER), play(passes, [raised(bug)])

    assert server.outcome.error is bug and server.outcome.code is grpc.StatusCode.UNKNOWN
    assert isinstance(client.outcome.error, errors.Unknown)
    assert play(passes, [raised(errors.NotFound("x"))]).outcome.code is grpc.StatusCode.NOT_FOUND


def test_the_side_is_the_call_s() -> None:
    """A server's call has a peer, and is the current one; a client's has none."""
    seen: list[tuple[Any, ...]] = []

    def look(call: Call) -> Flow:
        current = context.current_call()
        seen.append((call.side, call.peer, call.timeout, call.metadata.get("x-a"), current and current.side))
        yield call

    play(look, side=Side.SERVER, metadata=(("x-a", "b"),), timeout=3, peer="unix:/run/me")
    play(look, metadata=(("x-a", "b"),), timeout=3)

    assert seen == [(Side.SERVER, "unix:/run/me", 3, "b", Side.SERVER), (Side.CLIENT, None, 3, "b", None)]


def test_a_call_made_by_a_handler() -> None:
    """`incoming=` is the call that is being handled; it does not stay in the context."""

    def on_behalf(call: Call) -> Flow:
        asked = context.current_call()
        assert asked is not None and asked.peer == "ipv4:10.0.0.7:4242"
        yield call.with_metadata(("x-tenant", asked.metadata["x-tenant"]))

    asked = incoming(metadata=(("x-tenant", "acme"),), peer="ipv4:10.0.0.7:4242", method="/pay.v1.Cards/Charge")
    played = play(on_behalf, incoming=asked)

    assert played.sent[0].metadata["x-tenant"] == "acme"
    assert asked.method.name == "Charge"
    assert context.current_call() is None


def test_the_method_can_be_named() -> None:
    """For interceptors that look at it."""
    played = play(passes, method="/pay.v1.Cards/Charge")

    assert str(played.sent[0].call.method) == "/pay.v1.Cards/Charge"


@KINDS
@SIDES
def test_taps_and_maps_see_each_message(kind: Kind, side: Side) -> None:
    """Taps look, maps change; what passed is kept as they left it."""
    requests, responses = [], []

    def looks(call: Call) -> Flow:
        yield call.map(requests=lambda text: f"<{text}>", responses=lambda text: f"{text}!").tap(
            requests=requests.append, responses=responses.append
        )

    played = play(looks, kind=kind, side=side, requests=["a", "b"])

    sent = ["<a>", "<b>"] if kind.request_streaming else ["<a>"]
    assert requests == list(played.sent[0].requests) == sent
    assert all(message.startswith("<a>") or message == "<b>" for message in responses)
    assert played.responses == [f"{message}!" for message in responses] == list(played.sent[0].responses)


def test_metadata_of_the_response_is_seen() -> None:
    """In front of it by a tap, and both in the outcome."""
    seen: list[Any] = []

    def looks(call: Call) -> Flow:
        yield call.tap(initial_metadata=seen.append)

    played = play(looks, [ok(initial=(("x-node", "7"),), trailing=(("x-cost", "3"),))])

    assert seen[0]["x-node"] == played.outcome.initial_metadata["x-node"] == "7"
    assert played.outcome.trailing_metadata["x-cost"] == "3"


def test_a_whole_outcome_may_stand_in_the_script() -> None:
    """For what no act says; each attempt is told a copy of its own."""
    given = Outcome(UNAVAILABLE, error=errors.Unavailable("full", local=True), replayable=True)

    played = play(once_more, [given, ...])

    assert [sent.outcome.attempts for sent in played.sent] == [1, 2]
    assert (played.outcome.error, given.attempts) == (given.error, 0)


# --- time -------------------------------------------------------------------------------------------------------------


def test_delays_move_the_clock() -> None:
    """Those of interceptors and those of the other side, and nothing waits."""
    clock = FakeClock(100.0)
    told: list[float] = []

    def timed(call: Call) -> Flow:
        yield call
        told.append(clock.now())

    played = play(chain(timed, once_more), [failed(UNAVAILABLE, delay=2), ok(delay=30)], clock=clock)

    assert (played.elapsed, told) == (32.5, [132.5])
    assert [sent.outcome.elapsed for sent in played.sent] == [2, 30]


def test_an_attempt_takes_no_longer_than_it_may() -> None:
    """A slow or hanging answer ends with DEADLINE_EXCEEDED, when the time is up."""

    def limited(call: Call) -> Flow:
        yield call.with_timeout(2)

    slow, hanging = play(limited, [ok(delay=3)]), play(passes, [ok(hang=True)], timeout=5)

    assert (slow.outcome.code, slow.elapsed) == (DEADLINE_EXCEEDED, 2)
    assert (hanging.outcome.code, hanging.elapsed) == (DEADLINE_EXCEEDED, 5)
    assert play(limited, [ok(delay=1)]).outcome.ok


def test_a_deadline_is_for_all_attempts() -> None:
    """What is left for the second is what the first and the pause leave; a pause that is too long is cut."""
    played = play(once_more, [failed(UNAVAILABLE, delay=1), ok(hang=True)], timeout=2)
    late = play(once_more, [failed(UNAVAILABLE)], timeout=0.3)

    assert (played.outcome.code, played.elapsed) == (DEADLINE_EXCEEDED, 2)
    assert played.sent[1].outcome.elapsed == 0.5
    assert (late.outcome.code, len(late.sent)) == (DEADLINE_EXCEEDED, 1)
    assert late.elapsed == pytest.approx(0.3)


def test_what_hangs_for_ever() -> None:
    """Is said, rather than waited for."""
    with pytest.raises(ScriptError, match="hangs for ever, and nothing limits its time"):
        play(passes, [ok(hang=True)])


# --- races ------------------------------------------------------------------------------------------------------------


def test_the_first_good_answer_wins() -> None:
    """Copies leave one delay after the other; who runs when somebody wins is told CANCELLED."""
    told = Told()

    played = play(chain(races, told), [ok("slow", delay=9), ok("quick", delay=1)])

    assert (played.outcome.response, played.outcome.attempts, played.elapsed) == ("quick", 2, 3)
    assert [(sent.at, sent.outcome.code) for sent in played.sent] == [(0, CANCELLED), (2, grpc.StatusCode.OK)]
    assert [outcome.code for outcome in told.outcomes] == [grpc.StatusCode.OK, CANCELLED]
    assert [(race.copies, race.delay) for race in played.races] == [(3, 2.0)]


def test_a_failure_lets_the_next_copy_go() -> None:
    """At once; and when all have failed the last failure stands."""
    played = play(races, [failed(UNAVAILABLE, "one"), failed(UNAVAILABLE, "two"), failed(UNAVAILABLE, "three")])

    assert [sent.at for sent in played.sent] == [0, 0, 0]
    assert (played.outcome.details, played.outcome.attempts) == ("three", 3)


def test_a_copy_that_is_refused_here() -> None:
    """An interceptor further in that answers without sending fails its copy, and the next goes at once."""
    asked: list[Call] = []

    def refuses_once(call: Call) -> Flow:
        asked.append(call)
        if len(asked) == 1:
            raise errors.Unavailable("full", local=True)
        yield call

    played = play(chain(races, refuses_once), [ok()])

    assert (played.outcome.ok, played.elapsed, len(asked)) == (True, 0, 2)


def test_copies_go_through_what_stands_further_in() -> None:
    """Each on its own: here every copy is sent again once."""
    script = [failed(UNAVAILABLE, delay=1), ok("second try", delay=1), ok("second copy", hang=True)]
    played = play(chain(races, once_more), script)

    # The first copy fails at 1 s and is sent again at 1.5 s, for an answer at 2.5 s; the second leaves at 2 s.
    assert [(sent.at, sent.delay) for sent in played.sent] == [(0, 0), (1.5, 0.5), (2, 0)]
    assert (played.outcome.response, played.elapsed) == ("second try", 2.5)


def test_a_copy_that_pauses_takes_its_act_when_it_leaves() -> None:
    """Acts are taken in the order in which calls leave, whatever the order in which they were asked for."""

    def patient(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            yield call.after(5)

    script = [failed(UNAVAILABLE, delay=1), failed(UNAVAILABLE, delay=1), ok("third copy")]
    played = play(chain(races, patient), script)

    assert [sent.at for sent in played.sent] == [0, 2, 4]
    assert played.outcome.response == "third copy"


def test_a_copy_may_wait() -> None:
    """A flow further in that waits before it sends is answered in each copy, the first and those that follow."""

    def authorised(call: Call) -> Flow:
        value = yield from wait(token())
        yield call.with_metadata(("authorization", value))

    played = play(chain(races, authorised), [failed(UNAVAILABLE), ok("hello")], answers=["t-1", "t-2"])

    assert played.waits == ["t-1", "t-2"]
    assert [sent.metadata["authorization"] for sent in played.sent] == ["t-1", "t-2"]
    assert (played.outcome.response, played.outcome.attempts) == ("hello", 2)


def test_a_copy_that_has_lost_sends_no_more() -> None:
    """It may wait, and ask to be sent again: that is told CANCELLED at once, and takes nothing from the script."""
    told = Told()

    def stubborn(call: Call) -> Flow:
        outcome = yield call
        while not outcome.ok:
            if (yield from wait(token())) == "give up":
                return outcome
            outcome = yield call
        return outcome

    script = [ok("slow", hang=True), ok("quick", delay=1)]
    played = play(chain(races, stubborn, told), script, answers=["again", "give up"])

    assert (played.outcome.response, played.elapsed) == ("quick", 3)
    assert [(sent.at, sent.outcome.code) for sent in played.sent] == [(0, CANCELLED), (2, grpc.StatusCode.OK)]
    assert played.waits == ["again", "give up"]
    assert [outcome.code for outcome in told.outcomes] == [grpc.StatusCode.OK, CANCELLED, CANCELLED]


def test_a_race_in_which_everybody_hangs() -> None:
    """Ends with the deadline; without one that is said."""
    played = play(races, [ok(hang=True), ...], timeout=3)

    assert (played.outcome.code, played.elapsed, len(played.sent)) == (DEADLINE_EXCEEDED, 3, 2)
    with pytest.raises(ScriptError, match="hangs for ever"):
        play(races, [ok(hang=True), ...])


# --- waiting ----------------------------------------------------------------------------------------------------------


async def token() -> str:
    await asyncio.sleep(0)
    return "t-1"


def bearer(call: Call) -> Flow:
    yield call.with_metadata(("x-token", (yield from wait(token()))))


def test_a_coroutine_is_run_by_hand() -> None:
    """As long as it needs no loop; a plain value comes straight back, and is no wait."""

    def plain(call: Call) -> Flow:
        yield call.with_metadata(("x-token", (yield from wait("p-1"))))

    played = play(bearer)

    assert (played.sent[0].metadata["x-token"], played.waits) == ("t-1", ["t-1"])
    assert (play(plain).sent[0].metadata["x-token"], play(plain).waits) == ("p-1", [])


def test_what_a_wait_gives_can_be_said() -> None:
    """In order; an exception is raised where the flow waits."""

    def patient(call: Call) -> Flow:
        try:
            value = yield from wait(token())
        except ConnectionError:
            value = yield from wait(token())
        yield call.with_metadata(("x-token", value))

    refused = ConnectionError("the store is down")
    played = play(patient, answers=[refused, "t-2"])

    assert (played.sent[0].metadata["x-token"], played.waits) == ("t-2", [refused, "t-2"])


def test_what_a_coroutine_raises_is_raised_in_the_flow() -> None:
    """A bug of the interceptor then, unless it says otherwise."""

    async def broken() -> str:
        raise RuntimeError("no such key")

    def waits(call: Call) -> Flow:
        yield from wait(broken())
        yield call

    played = play(waits, [])

    assert played.outcome.code is grpc.StatusCode.INTERNAL
    assert "waits raised RuntimeError" in played.outcome.details
    assert [str(error) for error in played.waits] == ["no such key"]


async def pending() -> None:
    await asyncio.get_running_loop().create_future()


async def event() -> None:
    await asyncio.Event().wait()


async def limited() -> None:
    async with asyncio.timeout(1):
        await asyncio.Event().wait()


class Future:
    """An awaitable that hands out a future, as those of a loop do."""

    def __await__(self) -> Iterator[Any]:
        yield self


@pytest.mark.parametrize(
    "make",
    [lambda: asyncio.sleep(1), pending, event, limited, lambda: anyio.sleep(1), Future],
    ids=["sleep", "future", "event", "timeout", "anyio", "yields"],
)
def test_what_needs_a_loop(make: Any) -> None:
    """There is none, and the message says what to do."""

    def waits(call: Call) -> Flow:
        yield from wait(make())
        yield call

    with pytest.raises(ScriptError, match=r"waits waits for .* needs a running loop: .* play\(…, answers=\[…\]\)"):
        play(waits)
    assert play(waits, answers=[None]).outcome.ok


def test_an_async_generator_may_be_played() -> None:
    """Its own awaits are run by hand; they are no waits of a flow, and `answers` are not for them."""

    async def asynchronous(call: Call) -> AsyncFlow:
        outcome = yield call.with_metadata(("x-token", await token()))
        if not outcome.ok:
            yield call.after(1)

    played = play(asynchronous, [failed(UNAVAILABLE), ok()], answers=["not for it"])

    assert (played.outcome.ok, played.elapsed, played.waits) == (True, 1, [])
    assert played.sent[0].metadata["x-token"] == "t-1"


def test_an_async_generator_that_needs_a_loop() -> None:
    """Is for a place where there is one."""

    async def asynchronous(call: Call) -> AsyncFlow:
        await asyncio.sleep(1)
        yield call

    with pytest.raises(ScriptError, match="awaits what needs a running loop: open it in one of the asyncio PLACES"):
        play(asynchronous)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_script_that_is_too_short() -> None:
    """The message tells which call was one too many, and what came before."""
    with pytest.raises(ScriptError) as caught:
        play(once_more, [failed(UNAVAILABLE, "busy")])

    told = str(caught.value)
    assert told.startswith(
        "the script has 1 act, and one call more was sent, <Call /interpose.testing.Echo/unary_unary"
    )
    assert "with (('x-retry', '1'),). What came before:" in told
    assert "  1. sent with (), timeout None → <Outcome UNAVAILABLE 'busy'" in told


def test_a_script_that_is_too_long() -> None:
    """The message names the interceptor, how it ended, and what it did."""
    with pytest.raises(ScriptError) as caught:
        play(once_more, [ok(), ok(), ok()])

    told = str(caught.value)
    assert re.match(
        r"once_more ended with <Outcome OK, .*>, and 2 of 3 acts are left\. What it did:\n  1\. sent ", told
    )


def test_a_script_of_which_nothing_was_used() -> None:
    """That is said too."""

    def refuses(call: Call) -> Flow:
        raise errors.PermissionDenied("not you")
        yield call

    with pytest.raises(ScriptError, match=r"1 of 1 act are left\. What it did:\n  nothing was sent"):
        play(refuses, [ok()])


def test_what_was_sent_reads_well() -> None:
    """One line per attempt, with the pause before it."""
    played = play(once_more, [failed(UNAVAILABLE), ok()])

    first, second = str(played).splitlines()
    assert first.startswith("  1. sent with (), timeout None → ")
    assert second.startswith("  2. sent after 0.5 s with (('x-retry', '1'),), timeout None → ")


@pytest.mark.parametrize("nonsense", [print, None, races, passes(None)], ids=["function", "None", "class", "generator"])  # type: ignore[arg-type]
def test_only_interceptors_can_be_played(nonsense: Any) -> None:
    """The error is that of attaching it."""
    interceptor: Interceptor = Told if nonsense is races else nonsense

    with pytest.raises(TypeError):
        play(interceptor)


@pytest.mark.parametrize("requests", ["hello", b"hello", [], ()])
def test_requests_are_a_sequence_of_messages(requests: Any) -> None:
    """A text is none, and there is at least one."""
    with pytest.raises(ValueError, match="must be a sequence of one or more messages"):
        play(passes, requests=requests)


def test_a_script_holds_acts() -> None:
    """A bare status code is a mistake that is easily made."""
    with pytest.raises(TypeError, match=r"made of acts like ok\(\) and failed\(code\)"):
        play(passes, [UNAVAILABLE])  # type: ignore[list-item]


def test_nothing_stays_in_the_context() -> None:
    """What an interceptor leaves for handlers is gone after the RPC, as on a server."""

    def leaves(call: Call) -> Flow:
        context._request_id.set("r-1")
        yield call

    play(leaves, side=Side.SERVER)

    assert context.request_id() is None
