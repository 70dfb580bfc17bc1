"""Hedge: what keeps copies from multiplying an outage."""

import grpc
import grpc.aio
import pytest

from interpose.interceptors import RatioBudget, RetryBudget
from interpose.testing import FakeClock, failed, ok, play
from tests.interceptors.driving import hedge, retrying, times

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL


DOWN = failed(UNAVAILABLE)


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
    play(retrying(backoff=lambda number: 0.0, budget=budget), [DOWN, DOWN])

    played = play(hedge(3, budget=budget), [ok("slow", delay=9)])

    assert budget.tokens == 2.1
    assert (times(played), played.responses) == ([0], ["slow"])


def test_a_share_of_the_calls() -> None:
    """Of ten calls three may be hedged; only what was sent is counted."""
    clock = FakeClock()
    budget = RatioBudget(0.3, minimum=0, window=100.0)
    hedging = hedge(budget=budget)

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
