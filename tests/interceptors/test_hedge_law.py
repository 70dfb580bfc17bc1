"""Hedge: gRFC A6, word by word."""

import math
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interpose import Call, Flow, Kind, chain
from interpose.interceptors import RetryBudget
from interpose.interceptors.hedge import ATTEMPT
from interpose.testing import FakeClock, Played, failed, ok, play
from interpose.testing.acts import Act
from tests.interceptors.driving import hedge, times
from tests.support.examples import examples

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL


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


@settings(max_examples=examples(500), deadline=None)
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
    stack = chain(hedge(copies, delay, budget=budget), number)
    played = play(stack, acts[: len(expected_sent)], kind=kind, timeout=timeout, clock=clock)

    assert (times(played), end_of(played)) == (expected_sent, expected_end)
    assert played.elapsed == pytest.approx(expected_at, abs=1e-9)  # play leaves out what its clock cannot tell apart
    assert budget.tokens == pytest.approx(expected_tokens)
    assert numbers == list(range(len(expected_sent)))
    assert played.outcome.attempts == len(expected_sent)
