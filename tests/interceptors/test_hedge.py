"""Hedge: which copies are sent, when, and which answer is taken."""

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interpose import Call, Flow, Interceptor, Kind, Outcome, Side, chain, errors, intercept_channel, wait
from interpose.interceptors import CircuitBreaker, Hedge, HedgeDetails, RatioBudget, Retry, RetryBudget
from interpose.interceptors.hedge import ATTEMPT, quantile
from interpose.mechanisms.budget import Unlimited
from interpose.testing import PLACES, FakeClock, Place, Played, failed, ok, play, raised
from interpose.testing.acts import Act
from interpose.testing.echo import Echo, Stub
from tests.interceptors.driving import each, is_server, requests
from tests.protos.compiled import Generated

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL

PATIENCE = 10.0  # seconds; what takes so long has hung
FAR = 3600.0  # a delay that no test waits for
SOON = 0.01

HANG = Act(hang=True)
DOWN = failed(UNAVAILABLE)

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
UPLOADS = [place for place in CLIENTS if place.kind.request_streaming]
STREAMED = [place for place in CLIENTS if place.kind.response_streaming]
KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


def hedge(copies: int = 2, delay: Any = 1.0, **options: Any) -> Hedge:
    """One that may hedge everything."""
    return Hedge(copies, delay=delay, **{"safe": True, **options})


def times(played: Played) -> list[float]:
    """When each copy was sent, in seconds since the RPC began."""
    return [sent.at for sent in played.sent]


def codes(played: Played) -> list[str]:
    """How each copy ended."""
    return [sent.outcome.code.name for sent in played.sent]


def answers(place: Place) -> list[str]:
    """What the service echoes there."""
    return ok().answer(place.kind, requests(place))


def notes(outcome: Outcome) -> list[str]:
    """What its error tells beside its text."""
    return getattr(outcome.error, "__notes__", [])


def retry_info(seconds: int) -> Any:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds))


# --- in all places --------------------------------------------------------------------------------------------------


def test_a_failure_lets_the_next_copy_go_at_once(place: Place) -> None:
    """On a client the second copy, which carries its number, answers; on a server nothing is hedged."""
    outcomes: list[Outcome] = []
    script = [failed(UNAVAILABLE, unread=is_server(place)), ok()]

    with place.open(each(outcomes), hedge(delay=FAR), script=script) as rpc:
        reply = rpc.call(*requests(place))

    if is_server(place):
        assert [outcome.code for outcome in outcomes] == [UNAVAILABLE]
        assert len(rpc.attempts) == 1
    else:
        assert reply.ok
        assert reply.messages == answers(place)
        assert [attempt.values(ATTEMPT) for attempt in rpc.attempts] == [[], ["1"]]
        assert [attempt.requests for attempt in rpc.attempts] == [list(requests(place))] * 2
        assert [outcome.attempts for outcome in outcomes] == [2]


def test_a_quick_answer_needs_no_copy(place: Place) -> None:
    """One attempt, without a number."""
    with place.open(hedge(delay=FAR)) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert [attempt.values(ATTEMPT) for attempt in rpc.attempts] == [[]]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_copy_that_hangs_is_overtaken(place: Place) -> None:
    """The second copy goes after the delay and answers; the first is cancelled, and its handler knows."""
    with place.open(hedge(delay=SOON), script=[HANG, ok("second"), ...]) as rpc:
        reply = rpc.call(*requests(place))
        rpc.echo.wait_ended(2)

    assert (reply.ok, reply.messages) == (True, ["second"])
    assert rpc.attempts[0].cancelled
    assert not rpc.attempts[1].cancelled


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_when_all_have_failed(place: Place) -> None:
    """The last failure is the answer, as the server told it; a note says how many copies there were."""
    script = [failed(UNAVAILABLE, f"copy {number}") for number in range(1, 4)]

    with place.open(hedge(3, FAR), script=script) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.details) == (UNAVAILABLE, "copy 3")
    assert getattr(reply.error, "__notes__", []) == ["Hedge: none of 3 copies had a good answer"]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_deadline_ends_all_copies(place: Place) -> None:
    """It is that of the RPC: no copy outlives it, and none is sent when it has passed."""
    ended: list[HedgeDetails] = []

    with place.open(hedge(2, SOON, on_hedge=ended.append), script=[HANG, ...]) as rpc:
        reply = rpc.call(*requests(place), timeout=0.5)
        rpc.echo.wait_ended(len(rpc.attempts))

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert all(attempt.cancelled for attempt in rpc.attempts)
    assert sorted(details.number for details in ended) == [0, 1]


@pytest.mark.parametrize("place", STREAMED, ids=str)
def test_a_stream_that_breaks_after_its_first_message_has_failed(place: Place) -> None:
    """It had won, so no other copy is sent, and no message comes twice."""
    with place.open(hedge(3, FAR), script=[failed(UNAVAILABLE, after=1)]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.code, reply.messages) == (UNAVAILABLE, ["a"])
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", UPLOADS, ids=str)
@pytest.mark.parametrize(("size", "copies"), [(100_000, 2), (200_000, 1)])
def test_a_request_stream_is_kept_up_to_a_quarter_of_a_mebibyte(place: Place, size: int, copies: int) -> None:
    """Two messages that fit go with the second copy; beyond that there is none."""
    with place.open(hedge(delay=FAR), script=[DOWN, ok("second")]) as rpc:
        reply = rpc.call("x" * size, "y" * size)

    assert [len(attempt.requests) for attempt in rpc.attempts] == [2] * copies
    assert reply.messages == (["second"] if copies == 2 else [])


@pytest.mark.parametrize("place", UPLOADS, ids=str)
@pytest.mark.parametrize(("room", "copies"), [(4, 2), (3, 1)])
def test_the_buffer_may_be_chosen(place: Place, room: int, copies: int) -> None:
    """In bytes, as serialized."""
    with place.open(hedge(delay=FAR, buffer=room), script=[DOWN, ok()]) as rpc:
        reply = rpc.call("ab", "cd")

    assert len(rpc.attempts) == copies
    assert reply.ok is (copies == 2)


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_server_asks_for_no_more(place: Place) -> None:
    """A negative `grpc-retry-pushback-ms`: the failure is the answer, and no copy is sent."""
    with place.open(hedge(3, FAR), script=[failed(UNAVAILABLE, pushback="-1")]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is UNAVAILABLE
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_an_error_detail_asks_for_no_haste(place: Place) -> None:
    """`google.rpc.RetryInfo` chooses the pause as the trailer does: none at all here, or it would take an hour."""
    busy = raised(errors.Unavailable("busy", retry_info(0)))

    with place.open(hedge(2, FAR), script=[busy, ok("second")]) as rpc:
        reply = rpc.call(*requests(place))

    assert (reply.ok, reply.messages) == (True, ["second"])


# --- the five responses of gRFC A6 ----------------------------------------------------------------------------------


@KINDS
def test_ok(kind: Kind) -> None:
    """The first good answer is taken; the others are cancelled."""
    played = play(hedge(3), [ok("late", delay=9), ok("first", delay=1.5), ok("later", delay=5)], kind=kind)

    assert times(played) == [0, 1, 2]
    assert codes(played) == ["CANCELLED", "OK", "CANCELLED"]
    assert (played.responses, played.elapsed, played.outcome.attempts) == (["first"], 2.5, 3)


@KINDS
def test_fatal(kind: Kind) -> None:
    """Any other code than those of `codes` is the answer; the others are cancelled."""
    played = play(hedge(3), [ok(delay=9), failed(NOT_FOUND, "no such", delay=0.5)], kind=kind)

    assert times(played) == [0, 1]
    assert codes(played) == ["CANCELLED", "NOT_FOUND"]
    assert (played.outcome.details, played.elapsed) == ("no such", 1.5)


@KINDS
def test_not_fatal(kind: Kind) -> None:
    """The next copy goes at once, and from then on the delay begins anew."""
    played = play(hedge(4), [ok(delay=9), failed(UNAVAILABLE, delay=0.25), ok(delay=9), ok("fourth")], kind=kind)

    assert times(played) == [0, 1, 1.25, 2.25]
    assert played.responses == ["fourth"]


@KINDS
@pytest.mark.parametrize("word", ["-1", "soon", "2147483648", ""])
def test_pushback_do_not_retry(kind: Kind, word: str) -> None:
    """No more copies; those that run are waited for."""
    played = play(hedge(4), [ok("first", delay=9), failed(UNAVAILABLE, pushback=word)], kind=kind)

    assert times(played) == [0, 1]
    assert (played.responses, played.elapsed) == (["first"], 9)


@KINDS
def test_pushback_in_so_many_milliseconds(kind: Kind) -> None:
    """The next copy goes then, be that sooner or later than it would have, and from then on the delay begins anew."""
    script = [
        ok(delay=9),
        failed(UNAVAILABLE, pushback=3.5),
        failed(UNAVAILABLE, pushback=0.25),
        ok(delay=9),
        ok("fifth"),
    ]
    played = play(hedge(5), script, kind=kind)

    assert times(played) == [0, 1, 4.5, 4.75, 5.75]
    assert played.responses == ["fifth"]


def test_pushback_of_a_fatal_failure() -> None:
    """It makes no failure less fatal."""
    played = play(hedge(3), [failed(NOT_FOUND, pushback=1)])

    assert (played.outcome.code, played.elapsed) == (NOT_FOUND, 0)


def test_retry_info() -> None:
    """`google.rpc.RetryInfo` in the error details counts as the trailer does."""
    played = play(hedge(), [raised(errors.Unavailable("busy", retry_info(7))), ok()])

    assert times(played) == [0, 7]


def test_codes_may_be_chosen() -> None:
    """What is not fatal is a matter of the service."""
    busy = failed(grpc.StatusCode.RESOURCE_EXHAUSTED)

    chosen = play(hedge(codes={grpc.StatusCode.RESOURCE_EXHAUSTED}), [busy, ok()])
    none = play(hedge(codes=()), [DOWN])

    assert times(chosen) == [0, 0]
    assert none.outcome.code is UNAVAILABLE


def test_all_at_once() -> None:
    """Without a delay no copy waits for another."""
    played = play(hedge(3, 0), [ok(delay=3), ok(delay=2), ok("third", delay=1)])

    assert times(played) == [0, 0, 0]
    assert played.responses == ["third"]


def test_the_pause_would_outlive_the_deadline() -> None:
    """With nothing else under way, the failure is the answer at once."""
    played = play(hedge(), [failed(UNAVAILABLE, pushback=60)], timeout=10)

    assert (played.outcome.code, played.elapsed) == (UNAVAILABLE, 0)


@KINDS
def test_an_empty_stream_that_ends_well_wins(kind: Kind) -> None:
    """No message is an answer as well, where responses are a stream."""
    empty = Outcome(replayable=True, elapsed=0.5)
    played = play(hedge(), [Act(hang=True), empty], kind=kind)

    assert played.outcome.ok
    assert (played.responses, played.elapsed) == ([] if kind.response_streaming else [None], 1.5)


# --- the law --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """What becomes of one copy: how it ends, and after how long."""

    end: str  # ok, fatal, passes, no more, later, hangs
    after: float = 0.0
    pause: float = 0.0  # that is asked for by "later"

    def act(self, number: int) -> Act:
        match self.end:
            case "hangs":
                return Act(hang=True)
            case "ok":
                return ok(f"answer {number}", delay=self.after)
            case "fatal":
                return failed(NOT_FOUND, f"copy {number}", delay=self.after)
            case "no more":
                return failed(UNAVAILABLE, f"copy {number}", delay=self.after, pushback="-1")
            case "later":
                return failed(UNAVAILABLE, f"copy {number}", delay=self.after, pushback=self.pause)
            case _:
                return failed(UNAVAILABLE, f"copy {number}", delay=self.after)


@dataclass
class Model:
    """Gravely simple: gRFC A6 word by word, one event at a time."""

    copies: int
    delay: float
    script: list[Copy]
    timeout: float
    tokens: float
    sent: list[float] = field(default_factory=list)
    running: dict[int, float] = field(default_factory=dict)  # number → when it ends
    next: float = 0.0  # when the next copy goes
    last: str = ""  # failure

    def run(self) -> tuple[list[float], str, float, float]:
        """When copies are sent, the end of the RPC, when that is, and the tokens that are left."""
        most, end, now = self.tokens, None, 0.0
        while end is None:
            first = min(self.running.values(), default=math.inf)
            if len(self.sent) < self.copies and self.next < first:
                now = self.next
                if not self.sent or self.tokens > most / 2:
                    self._send(now)
                else:
                    self.copies = 0  # for good
            elif self.running:
                now = first
                end = self._ended(min(self.running, key=lambda number: self.running[number]), now)
            else:
                end = self.last
        return self.sent, end, now, min(self.tokens, most)

    def _send(self, now: float) -> None:
        copy = self.script[len(self.sent)]
        self.running[len(self.sent)] = self.timeout if copy.end == "hangs" else min(now + copy.after, self.timeout)
        self.sent.append(now)
        self.next = now + self.delay

    def _ended(self, number: int, now: float) -> str | None:
        """The end of the RPC, if that of this copy is it."""
        copy = self.script[number]
        del self.running[number]
        if now >= self.timeout:
            return "DEADLINE_EXCEEDED"
        if copy.end in ("ok", "fatal"):
            self.tokens += 0.1 if copy.end == "ok" else 0
            return f"{'answer' if copy.end == 'ok' else 'copy'} {number}"
        self.tokens = max(self.tokens - 1, 0)
        self.last = f"copy {number}"
        self.next = math.inf if copy.end == "no more" else now + copy.pause
        if copy.end == "no more":
            self.copies = 0
        if copy.pause and not self.running and self.next >= self.timeout:
            return self.last  # nobody waits for what cannot be sent any more
        return None


def bit(number: int) -> float:
    """So much is added to the time of each copy, that no two things ever happen at the same time."""
    return 2.0 ** -(number + 4)


def end_of(played: Played) -> str:
    """How the RPC ended, in the words of the model."""
    outcome = played.outcome
    if outcome.ok:
        return str(played.responses[0])
    return "DEADLINE_EXCEEDED" if outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED else outcome.details


@st.composite
def races(draw: st.DrawFn) -> tuple[int, float, list[Copy], float, float]:
    copies = draw(st.integers(2, 6))
    ends = st.sampled_from(["ok", "fatal", "passes", "passes", "no more", "later", "later", "hangs"])
    script = []
    for number in range(copies):
        end = draw(ends)
        pause = float(draw(st.integers(0, 6))) if end == "later" else 0.0
        script.append(Copy(end, draw(st.integers(0, 8)) + bit(number), pause))
    delay, timeout, tokens = draw(st.integers(0, 4)), draw(st.integers(1, 30)), draw(st.sampled_from([1, 4, 100]))
    return copies, float(delay), script, timeout + bit(12), tokens


@settings(max_examples=500, deadline=None)
@given(races(), st.sampled_from(Kind))
@example((2, 1.0, [Copy("hangs"), Copy("hangs")], 5.0, 4), Kind.UNARY_UNARY)
@example((2, 1.0, [Copy("later", 0.5, 6.0), Copy("ok")], 5.0, 100), Kind.UNARY_STREAM)
@example((3, 4.0, [Copy("ok", 8.0), Copy("later", 0.5, 30.0), Copy("ok")], 25.0, 100), Kind.UNARY_UNARY)
def test_it_is_gRFC_A6(race: tuple[int, float, list[Copy], float, float], kind: Kind) -> None:
    """Whatever becomes of the copies: those that are sent, when, how it ends and what tokens are left is by the book."""
    copies, delay, script, timeout, tokens = race
    clock, budget, numbers = FakeClock(), RetryBudget(tokens), list[int]()
    acts = [copy.act(number) for number, copy in enumerate(script)]

    def number(call: Call) -> Flow:
        numbers.append(int(str(call.metadata.get(ATTEMPT, "0"))))
        yield call

    expected_sent, expected_end, expected_at, expected_tokens = Model(copies, delay, script, timeout, tokens).run()
    stack = chain(hedge(copies, delay, budget=budget, clock=clock), number)
    played = play(stack, acts[: len(expected_sent)], kind=kind, timeout=timeout, clock=clock)

    assert (times(played), end_of(played), played.elapsed) == (expected_sent, expected_end, expected_at)
    assert budget.tokens == pytest.approx(expected_tokens)
    assert numbers == list(range(len(expected_sent)))
    assert played.outcome.attempts == len(expected_sent)


# --- the budget -----------------------------------------------------------------------------------------------------


def test_each_failure_that_passes_takes_a_token() -> None:
    """A good answer brings a tenth back, a fatal failure and a copy that lost nothing."""
    budget = RetryBudget(10)
    seen: list[float] = []

    for script in ([DOWN, ok()], [failed(NOT_FOUND)], [ok(delay=9), ok()], [DOWN, DOWN]):
        play(hedge(budget=budget), script)
        seen.append(budget.tokens)

    assert seen == [9.1, 9.1, 9.2, 7.2]


@pytest.mark.parametrize("code", [UNAVAILABLE, NOT_FOUND])
def test_to_be_asked_for_no_more_takes_a_token_as_well(code: grpc.StatusCode) -> None:
    """Whatever the code, as gRFC A6 has it."""
    budget = RetryBudget(10)

    play(hedge(budget=budget), [failed(code, pushback="-1")])

    assert budget.tokens == 9


def test_with_half_of_the_tokens_no_copies_are_sent() -> None:
    """What runs is waited for, the call itself is sent in any case, and a good answer allows copies again."""
    budget = RetryBudget(4)
    slow = ok("slow", delay=9)

    first = play(hedge(9, budget=budget), [slow, DOWN, DOWN])
    left = budget.tokens
    play(hedge(9, budget=budget), [DOWN])
    alone = play(hedge(9, budget=budget), [slow])
    for _ in range(9):
        play(hedge(budget=budget))
    again = play(hedge(budget=budget), [slow, ok("quick")])

    assert (times(first), first.responses, left) == ([0, 1, 1], ["slow"], 2.1)
    assert times(alone) == [0]
    assert again.responses == ["quick"]


def test_a_budget_may_be_shared_with_a_retry() -> None:
    """What retries have used up sends no copies; the call itself is sent."""
    budget = RetryBudget(4)
    play(Retry(backoff=lambda number: 0.0, budget=budget), [DOWN, DOWN])

    played = play(hedge(3, budget=budget), [ok("slow", delay=9)])

    assert budget.tokens == 2.1
    assert (times(played), played.responses) == ([0], ["slow"])


def test_a_share_of_the_calls() -> None:
    """Of ten calls three may be hedged; only what was sent is counted."""
    clock = FakeClock()
    budget = RatioBudget(0.3, minimum=0, window=100.0)
    hedging = hedge(budget=budget, clock=clock)

    for _ in range(9):
        play(hedging, clock=clock)
    slow = [len(play(hedging, [ok(delay=2), ok()], clock=clock).sent) for _ in range(3)]
    suppressed = play(hedging, [ok("slow", delay=2)], clock=clock)
    quick = play(hedging, [ok(delay=0.5)], clock=clock)

    assert slow == [2, 2, 2]
    assert suppressed.responses == ["slow"]
    assert len(quick.sent) == 1
    assert budget.tally(clock.now()) == (14, 3)


def test_each_has_a_budget_of_its_own() -> None:
    """One that nobody gave is not shared: what one service does is not another one's fault."""
    first, second = hedge(10), hedge(10)
    play(first, [*[DOWN] * 5])

    played = play(second, [*[DOWN] * 4, ok()])

    assert played.outcome.ok


# --- the hook -------------------------------------------------------------------------------------------------------


def test_the_hook_is_told_of_every_copy() -> None:
    """Of the winner, and of those that were cancelled: what was sent, how it ended, and its number."""
    told: list[HedgeDetails] = []

    play(hedge(3, on_hedge=told.append), [ok(delay=9), DOWN, ok()])

    assert [(details.number, details.outcome.code) for details in told] == [
        (1, UNAVAILABLE),
        (2, grpc.StatusCode.OK),
        (0, CANCELLED),
    ]
    assert [details.call.metadata.get(ATTEMPT) for details in told] == ["1", "2", None]
    assert told[2].outcome.local


def test_a_hook_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The RPC goes on."""

    def fail(details: HedgeDetails) -> None:
        raise KeyError(details.number)

    with caplog.at_level(logging.ERROR, "interpose"):
        played = play(hedge(on_hedge=fail), [DOWN, ok("second")])

    assert played.responses == ["second"]
    logged = [record.getMessage() for record in caplog.records if record.name == "interpose"]
    assert logged == ["on_hedge failed; the RPC goes on all the same"] * 2


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_hook_is_told_when_all_is_over(place: Place) -> None:
    """When the caller has its answer, each copy has ended, and was told once."""
    told: list[HedgeDetails] = []

    with place.open(hedge(2, SOON, on_hedge=told.append), script=[HANG, ok("second"), ...]) as rpc:
        rpc.call(*requests(place))

    assert sorted(details.number for details in told) == [0, 1]
    assert sorted(details.outcome.code.name for details in told) == ["CANCELLED", "OK"]


# --- what is safe ---------------------------------------------------------------------------------------------------


@KINDS
def test_what_may_not_be_safe_is_refused(kind: Kind) -> None:
    """Nothing is sent; the status says what to write."""
    played = play(Hedge(), [], kind=kind)

    assert played.outcome.code is INTERNAL
    assert played.outcome.local
    assert played.outcome.details == (
        f"Hedge: /interpose.testing.Echo/{kind.value} may not be safe to execute twice, since its proto has no "
        "idempotency_level: write Hedge(safe=True), or keep it out with when(…)"
    )


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_refusal_is_what_the_caller_sees(place: Place) -> None:
    """As any other status, and no server hears of it."""
    with place.open(Hedge()) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is INTERNAL
    assert "write Hedge(safe=True)" in reply.details
    assert rpc.attempts == []


@pytest.mark.parametrize(("name", "copies"), [("Read", 2), ("Put", 2), ("Add", 0)])
def test_the_proto_may_say_that_it_is_safe(generated: Generated, name: str, copies: int) -> None:
    """By `idempotency_level`."""
    generated("idempotency_pb2")
    method = f"/interpose.tests.idempotency.Ledger/{name}"

    played = play(Hedge(), [DOWN, ok()][: 2 if copies else 0], method=method)

    assert len(played.sent) == copies


def test_a_function_may_say_what_is_safe() -> None:
    """Calls for which it is false are sent once, as if there were no hedge; the budget is not told of them."""
    budget = RatioBudget()
    hedging = Hedge(delay=1, safe=lambda call: call.request == "read", budget=budget, clock=FakeClock())

    read = play(hedging, [ok(delay=9), ok()], requests=["read"])
    write = play(hedging, [ok(delay=9)], requests=["write"])

    assert [len(played.sent) for played in (read, write)] == [2, 1]
    assert budget.tally(FakeClock().now()) == (1, 1)


# --- among others ---------------------------------------------------------------------------------------------------


def test_a_copy_that_is_refused_inside() -> None:
    """An open breaker refuses each copy with UNAVAILABLE, at once: nothing is sent, and no time is lost."""
    breaker = CircuitBreaker()
    breaker.force_open()

    played = play(chain(hedge(3), breaker), [])

    assert (played.outcome.code, played.outcome.local, played.elapsed) == (UNAVAILABLE, True, 0)
    assert played.outcome.attempts == 0
    assert notes(played.outcome) == []


def test_a_copy_that_is_refused_inside_for_good() -> None:
    """What an interceptor further in refuses with another status is the answer."""

    def forbid(call: Call) -> Flow:
        raise errors.PermissionDenied("not you", local=True)
        yield call

    played = play(chain(hedge(3, codes={grpc.StatusCode.PERMISSION_DENIED}), forbid), [])

    assert played.outcome.details == "not you"


def test_a_retry_outside_sends_the_race_again() -> None:
    """Two times two copies, each race with numbers of its own."""
    retry = Retry(2, backoff=lambda number: 10.0, safe=True)

    played = play(chain(retry, hedge()), [DOWN, DOWN, DOWN, ok()])

    assert times(played) == [0, 0, 10, 10]
    assert [sent.metadata.get(ATTEMPT) for sent in played.sent] == [None, "1", "1", "1"]
    assert played.outcome.attempts == 4


def test_a_retry_inside_makes_several_attempts_of_a_copy() -> None:
    """A copy pauses and tries again while the next one is under way."""
    retry = Retry(2, backoff=lambda number: 10.0, safe=True)

    played = play(chain(hedge(), retry), [DOWN, ok(delay=20), ok("third")])

    assert times(played) == [0, 1, 10]
    assert played.responses == ["third"]


def test_a_copy_that_has_lost_is_not_tried_again() -> None:
    """A retry inside is told that its copy was cancelled, and lets it be."""
    retry = Retry(3, codes={UNAVAILABLE, CANCELLED}, safe=True)

    played = play(chain(hedge(), retry), [HANG, ok("second")])

    assert played.responses == ["second"]
    assert codes(played) == ["CANCELLED", "OK"]


def test_what_a_copy_waits_for_inside() -> None:
    """A flow below that has something to await does so for each copy."""

    def with_token(call: Call) -> Flow:
        token = yield from wait(fetch())
        yield call.with_metadata(("x-token", token))

    async def fetch() -> str:
        return "secret"

    played = play(chain(hedge(), with_token), [DOWN, ok()])

    assert [sent.metadata.get("x-token") for sent in played.sent] == ["secret", "secret"]


def test_there_is_no_note_for_one_copy() -> None:
    """Nor for an answer."""
    fatal = play(hedge(), [failed(NOT_FOUND)])
    good = play(hedge(), [DOWN, ok()])
    both = play(hedge(), [DOWN, failed(NOT_FOUND)])

    assert [notes(played.outcome) for played in (fatal, good, both)] == [
        [],
        [],
        ["Hedge: none of 2 copies had a good answer"],
    ]


def test_a_buffer_that_is_there_is_kept() -> None:
    """An interceptor further out that asks for more has it; unary requests need none."""

    def keeps_more(call: Call) -> Flow:
        yield call.buffered(10**6)

    hedging = hedge(buffer=1000)
    calls = [
        play(stack, kind=kind).sent[0].call
        for stack, kind in [
            (hedging, Kind.STREAM_UNARY),
            (chain(keeps_more, hedging), Kind.STREAM_STREAM),
            (hedging, Kind.UNARY_STREAM),
        ]
    ]

    assert [call._asks.buffer for call in calls] == [1000, 10**6, None]


def test_the_callers_own_number_is_replaced() -> None:
    """A server that passes its metadata on does not confuse the next one."""
    played = play(hedge(), [DOWN, ok()], metadata=((ATTEMPT, "7"), ("x-id", "1")))

    assert [list(sent.metadata) for sent in played.sent] == [
        [(ATTEMPT, "7"), ("x-id", "1")],
        [("x-id", "1"), (ATTEMPT, "1")],
    ]


# --- an end from outside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_cancelling_a_sync_call_cancels_every_copy(kind: Kind) -> None:
    """Also while none has answered; the hook is told of each."""
    told: list[HedgeDetails] = []

    with Place(False, Side.CLIENT, kind).open(hedge(2, SOON, on_hedge=told.append), script=[HANG, ...]) as rpc:
        stub = getattr(Stub(rpc.channel), kind.value)
        call = stub("a") if kind.response_streaming else stub.future("a")
        rpc.echo.wait_begun(2)
        assert call.cancel()
        assert call.code() is CANCELLED
        rpc.echo.wait_ended(2)

    assert [attempt.cancelled for attempt in rpc.attempts] == [True, True]
    assert sorted(details.number for details in told) == [0, 1]


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
async def test_cancelling_an_asyncio_call_cancels_every_copy(kind: Kind) -> None:
    """On asyncio as well."""
    echo, told = Echo([HANG, ...]), list[HedgeDetails]()

    async with echo.serve_aio() as target, hedged_channel(target, hedge(2, SOON, on_hedge=told.append)) as channel:
        call = getattr(Stub(channel), kind.value)("a")
        await asyncio.to_thread(echo.wait_begun, 2)
        assert call.cancel()
        assert await call.code() is CANCELLED
        await asyncio.to_thread(echo.wait_ended, 2)

    assert [attempt.cancelled for attempt in echo.attempts] == [True, True]
    assert sorted(details.number for details in told) == [0, 1]


def hedged_channel(target: str, *stack: Interceptor) -> Any:
    return intercept_channel(grpc.aio.insecure_channel(target), *stack)


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_closing_a_sync_channel_ends_it(kind: Kind) -> None:
    """The copies under way end, the one that was to come is never sent, and the caller is told."""
    outcomes: list[Outcome] = []

    with Echo([HANG, ...]).serve() as target:
        channel = intercept_channel(grpc.insecure_channel(target), each(outcomes), hedge(3, FAR))
        stub = getattr(Stub(channel), kind.value)
        call = stub("a") if kind.response_streaming else stub.future("a")
        channel.close()
        assert call.code() is CANCELLED

    assert [outcome.code for outcome in outcomes] == [CANCELLED]


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
async def test_closing_an_asyncio_channel_ends_it(kind: Kind) -> None:
    """On asyncio as well."""
    echo, outcomes = Echo([HANG, ...]), list[Outcome]()

    async with echo.serve_aio() as target:
        channel = hedged_channel(target, each(outcomes), hedge(3, FAR))
        call = getattr(Stub(channel), kind.value)("a")
        await asyncio.to_thread(echo.wait_begun)
        await channel.close()
        assert await call.code() is CANCELLED

    assert [outcome.code for outcome in outcomes] == [CANCELLED]
    assert len(echo.attempts) == 1


def test_a_future_is_hedged() -> None:
    """What `.future()` gives does not block, and is hedged as any other call."""
    with Place(False, Side.CLIENT, Kind.UNARY_UNARY).open(hedge(2, SOON), script=[HANG, ok("second")]) as rpc:
        assert Stub(rpc.channel).unary_unary.future("a").result(PATIENCE) == "second"
        rpc.echo.wait_ended(2)

    assert rpc.attempts[0].cancelled


# --- a delay that is observed ---------------------------------------------------------------------------------------


def observing(clock: FakeClock, **options: Any) -> Hedge:
    """One that hedges after the median of the last 20 calls, and one second at first."""
    return hedge(delay=quantile(0.5, initial=1.0, window=20), clock=clock, **options)


def method_delay(hedging: Hedge) -> float:
    [delay] = hedging.delays().values()
    return delay


@KINDS
def test_the_delay_follows_the_calls(kind: Kind) -> None:
    """It is `initial` at first, and what was asked for once enough calls have been seen."""
    clock = FakeClock()
    hedging = observing(clock)

    first = play(hedging, [ok(delay=9), ok("second")], kind=kind, clock=clock)
    for _ in range(15):
        play(hedging, [ok(delay=0.25)], kind=kind, clock=clock)
    played = play(hedging, [ok(delay=9), ok()], kind=kind, clock=clock)

    assert times(first) == [0, 1.0]
    assert times(played) == [0, 0.25]


def test_each_method_has_a_delay_of_its_own() -> None:
    """One that is slow by nature does not delay another."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [ok(delay=0.5)], method="/a.A/Slow", clock=clock)
        play(hedging, [ok(delay=0.01)], method="/a.A/Quick", clock=clock)

    assert hedging.delays() == pytest.approx({"/a.A/Slow": 0.5, "/a.A/Quick": 0.01})


def test_where_the_delay_is_fixed_none_is_observed() -> None:
    """There is nothing to tell."""
    hedging = hedge()
    play(hedging)

    assert hedging.delays() == {}


def test_a_first_copy_that_lost_counts_with_the_time_it_was_cancelled_at() -> None:
    """Its answer would have taken longer still."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [Act(hang=True), ok(delay=3)], clock=clock)

    assert method_delay(hedging) == 4.0


def test_one_that_was_late_counts_however_it_ended() -> None:
    """At the deadline, say, when every copy hangs: or a server that is too slow would be hedged all the time."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [Act(hang=True), ...], timeout=3, clock=clock)

    assert method_delay(hedging) == 3.0


@pytest.mark.parametrize("act", [failed(NOT_FOUND, delay=0.125), failed(CANCELLED, delay=0.125)])
def test_one_that_failed_early_does_not_count(act: Act) -> None:
    """It does not tell how long an answer takes; nor does one that was given up before it was late."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [act], clock=clock)

    assert method_delay(hedging) == 1.0


@pytest.mark.parametrize("place", [place for place in STREAMED if place.kind is Kind.UNARY_STREAM], ids=str)
def test_of_a_stream_the_time_to_its_first_message_counts(place: Place) -> None:
    """However long it goes on."""
    clock = FakeClock()
    hedging = observing(clock)

    def slow_reader(call: Call) -> Flow:
        seen: list[str] = []

        def look(message: str) -> None:
            seen.append(message)
            if len(seen) > 1:
                clock.advance(100)

        yield call.tap(responses=look)

    with place.open(hedging, slow_reader, clock=clock) as rpc:
        for _ in range(16):
            rpc.call("a")

    assert method_delay(hedging) == 0.0


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"copies": 1}, "copies must be a whole number from 2 to 100, not 1"),
        ({"copies": 101}, "copies must be a whole number from 2 to 100, not 101"),
        ({"copies": 2.0}, "copies must be a whole number from 2 to 100, not 2.0"),
        ({"delay": -1}, r"delay must be 0 or more seconds, or quantile\(0.95\), not -1"),
        ({"delay": True}, r"delay must be 0 or more seconds, or quantile\(0.95\), not True"),
        ({"delay": math.inf}, "delay must be 0 or more seconds, or .*, not inf"),
        ({"delay": math.nan}, "delay must be 0 or more seconds, or .*, not nan"),
        ({"delay": "1s"}, "delay must be 0 or more seconds, or .*, not '1s'"),
        ({"codes": UNAVAILABLE}, "codes must be a set like"),
        ({"codes": {14}}, "codes must be a set like"),
        ({"codes": {grpc.StatusCode.OK}}, "codes must be a set like .*, without OK, not "),
        ({"budget": RetryBudget}, r"budget must be None or a budget like RetryBudget\(\) or Unlimited\(\), not <class"),
        ({"budget": 10}, "budget must be None or a budget like"),
        ({"safe": False}, "safe must be None, True or a function .*, not False: what is not safe cannot be hedged"),
        ({"safe": "yes"}, "safe must be None, True or a function of the call, not 'yes'"),
        ({"buffer": -1}, "buffer must be a whole number of bytes from 0, not -1"),
        ({"buffer": 2**31}, "buffer must be a whole number of bytes from 0, not 2147483648"),
        ({"clock": 7}, r"clock must have a method now\(\), not be 7"),
        ({"on_hedge": 7}, "on_hedge must be a function of HedgeDetails, not 7"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """They are a ValueError that says what to write instead."""
    with pytest.raises(ValueError, match=f"^Hedge: {fault}"):
        Hedge(**options)


def test_all_faults_at_once() -> None:
    """One error tells every one of them."""
    with pytest.raises(
        ValueError, match=r"^Hedge: copies .*; delay .*; codes .*; budget .*; safe .*; buffer .*; clock .*; on"
    ):
        Hedge(1, delay=-1, codes=7, budget=7, safe=7, buffer=-1, clock=7, on_hedge=7)  # type: ignore[arg-type]


def test_options_that_make_sense() -> None:
    """The ends of the ranges are in them."""
    Hedge(2, delay=0, codes=[], safe=True, buffer=0)
    Hedge(100, delay=quantile(), codes=frozenset({UNAVAILABLE}), budget=Unlimited(), safe=bool, buffer=2**31 - 1)


def test_delays_are_observed_of_so_many_methods() -> None:
    """What a proxy passes on may have any name; beyond a thousand they share one delay."""
    hedge = Hedge(delay=quantile(), safe=True)

    for number in range(1100):
        play(hedge, method=f"/proxied.S/M{number}")

    assert len(hedge.delays()) == 1025 and "other methods" in hedge.delays()
