"""Three clients in an outage, over the wire: with their stacks, and with something missing from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("grpc_tools")

from interpose import Side, describe
from interpose.demo import claims, outage, report
from interpose.demo.interceptors import REQUEST_ID
from interpose.demo.outage import (
    AFTER,
    BARE,
    BEFORE,
    CALLS,
    CLIENTS,
    DURING,
    HEDGE,
    PHASES,
    RETRY,
    SLOW,
    Ask,
    Passage,
    Patient,
)
from interpose.demo.run import Story
from interpose.demo.stack import RETRIED, Stack
from interpose.interceptors import Retry
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import Unlimited
from interpose.testing import FakeClock, ok, play

pytestmark = pytest.mark.slow  # whole runs of the demo's scenes

Without = Callable[[Stack], Stack]


@pytest.fixture
def passages(ended: Any) -> list[Passage]:
    """How the clients of the whole demo came through; `ended` stands in conftest."""
    seen: list[Passage] = ended.story.passages
    return seen


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_each_client_makes_the_same_calls(passages: list[Passage]) -> None:
    """All of them in all phases, in order."""
    assert [passage.client for passage in passages] == list(CLIENTS)
    for passage in passages:
        assert [ask.number for ask in passage.asks] == list(range(sum(CALLS.values())))
        assert {phase: len(passage.during(phase)) for phase in PHASES} == CALLS


def test_a_call_is_an_attempt_without_the_stack(passages: list[Passage]) -> None:
    """Neither more nor less of them reach the server."""
    (bare,) = [passage for passage in passages if passage.client == BARE]

    assert bare.attempts == CALLS


def test_nobody_is_answered_during_the_outage(passages: list[Passage]) -> None:
    """A stack does not make a server well."""
    assert [passage.answered(DURING) for passage in passages] == [0.0, 0.0, 0.0]


def test_a_slow_answer_is_slow_for_who_does_not_hedge(passages: list[Passage]) -> None:
    """Each of them; and no other answer is."""
    slow = [number for number in range(CALLS[BEFORE]) if outage.slow_once(number)]

    for passage in passages[:2]:
        assert [ask.number for ask in passage.asks if ask.slowly] == slow
        assert all(passage.asks[number].seconds > 0.9 * SLOW for number in slow)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_order_of_each_stack_is_well(client: str) -> None:
    """A demo shows what its pages recommend."""
    assert "!" not in describe(*outage.client_stack(client, FakeClock()))


# --- something is missing ---------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer calls, made faster."""
    monkeypatch.setattr(outage, "CALLS", {BEFORE: 40, DURING: 100, AFTER: 60})
    monkeypatch.setattr(outage, "PACE", 0.001)


def unlimited(stack: Stack) -> Stack:
    """The stack with retries that no budget ends."""
    again = Retry(codes=RETRIED, backoff=exponential(0.001, cap=0.002), budget=Unlimited(), safe=True)
    return tuple(again if isinstance(part, Retry) else part for part in stack)


def lacking(name: str) -> Without:
    """The stack without the interceptor of this name."""
    return lambda stack: tuple(part for part in stack if type(part).__name__ != name)


@pytest.mark.parametrize(
    ("client", "change", "text"),
    [
        (RETRY, lacking("Retry"), "before the outage, Retry answered"),
        (RETRY, unlimited, "in the outage, its budget kept the load"),
        (HEDGE, lacking("CircuitBreaker"), "a circuit breaker spared"),
        (HEDGE, lacking("Hedge"), "of the calls that had a slow answer"),
    ],
    ids=["Retry", "RetryBudget", "CircuitBreaker", "Hedge"],
)
@pytest.mark.usefixtures("short")
def test_what_is_missing_is_noticed(client: str, change: Without, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim about it does not hold."""
    whole = outage.client_stack
    monkeypatch.setattr(
        outage, "client_stack", lambda name, clock: (change if name == client else tuple)(whole(name, clock))
    )

    passages = asyncio.run(outage.outage(lambda: None))

    broken = [claim.text for claim in claims.judge(Story(1, [], passages=passages)) if not claim.holds]
    assert any(claim.startswith(text) for claim in broken), passages


@pytest.mark.usefixtures("short")
def test_a_breaker_that_stays_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client does not come back to normal."""
    monkeypatch.setattr(outage, "OPEN_FOR", 60.0)

    passages = asyncio.run(outage.outage(lambda: None))

    broken = [claim.against for claim in claims.judge(Story(1, [], passages=passages)) if not claim.holds]
    assert f"{HEDGE}: 40 of the last 40 calls failed" in broken


# --- the parts --------------------------------------------------------------------------------------------------------


def met(patient: Patient, number: int) -> tuple[str, float]:
    """How an attempt of this call ends on the server, and after how many seconds."""
    played = play(patient, [ok(), ...], side=Side.SERVER, metadata=((REQUEST_ID, str(number)),))
    return played.outcome.code.name, round(played.elapsed, 6)


@pytest.mark.parametrize(
    ("phase", "number", "first", "second"),
    [
        (BEFORE, 1, ("OK", 0), ("OK", 0)),
        (BEFORE, 25, ("UNAVAILABLE", 0), ("OK", 0)),
        (BEFORE, 30, ("OK", SLOW), ("OK", 0)),
        (DURING, 1, ("UNAVAILABLE", 0), ("UNAVAILABLE", 0)),
        (DURING, 30, ("UNAVAILABLE", 0), ("UNAVAILABLE", 0)),
        (AFTER, 25, ("OK", 0), ("OK", 0)),
        (AFTER, 30, ("OK", 0), ("OK", 0)),
    ],
)
def test_a_call_is_met_as_its_phase_and_number_want(phase: str, number: int, first: Any, second: Any) -> None:
    """Small faults come to the first attempt alone; an outage comes to all of them."""
    patient = Patient()
    patient.phase = phase

    assert [met(patient, number), met(patient, number)] == [first, second]
    assert patient.attempts == dict.fromkeys(PHASES, 0) | {phase: 2}


def test_normal_is_reached_with_the_last_failure() -> None:
    """Of the calls behind the recovery; milliseconds in the report, and 0 where none failed."""
    asks = [Ask(0, BEFORE, True, True, 0.5, 6.0), Ask(1, DURING, False, False, 0.1, 6.5)]
    asks += [Ask(2, AFTER, False, False, 0.1, 7.25), Ask(3, AFTER, True, False, 0.1, 7.5)]
    slow = Passage(HEDGE, asks, {BEFORE: 1, DURING: 30, AFTER: 2}, recovered=7.0)
    quick = Passage(BARE, [*asks[:2], asks[3]], {BEFORE: 1, DURING: 1, AFTER: 1}, recovered=7.0)

    first, second = report.survivors(Story(1, [], passages=[slow, quick]))
    assert (first.normal_ms, second.normal_ms) == (250.0, 0.0)
    assert (first.calls, first.answered, first.load) == (4, {BEFORE: 100.0, DURING: 0.0, AFTER: 50.0}, 0.1)
    assert first.latency_ms == {"p50": 500.0, "p99": 500.0}


def test_the_table_has_a_line_per_client(ended: Any) -> None:
    """Not wider than a terminal; the explanation above it is no longer than that either."""
    lines = list(report.as_text(ended.story, []))
    table = [line for line in lines if line.startswith(CLIENTS)]

    assert [line.split("  ")[0] for line in table] == list(CLIENTS)
    assert all(len(line.removeprefix(client).split()) == 9 for client, line in zip(CLIENTS, table, strict=True))
