"""Budgets: against slow, obvious models, and from many threads at once."""

import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from interpose.mechanisms.budget import AtomicValue, Budget, RatioBudget, RetryBudget, Unlimited, is_budget
from tests.support.examples import examples
from tests.support.patience import PATIENCE

QUARTERS = st.integers(0, 60).map(lambda number: number / 4)  # seconds; a float holds them exactly
TIMES = st.integers(1, 12)


# --- against models -------------------------------------------------------------------------------------------------


class OfTokens(RuleBasedStateMachine):
    """Attempts that end; the budget counts as one does on paper, in fractions."""

    @initialize(most=st.integers(1, 20), ratio=st.integers(1, 3000))
    def begin(self, most: int, ratio: int) -> None:
        self.most, self.ratio = Fraction(most), Fraction(ratio, 1000)
        self.tokens = self.most
        self.budget = RetryBudget(most, ratio / 1000)

    @rule(times=TIMES)
    def fail(self, times: int) -> None:
        for _ in range(times):
            self.budget.failed(0)
            self.tokens = max(self.tokens - 1, Fraction(0))

    @rule(times=TIMES)
    def succeed(self, times: int) -> None:
        for _ in range(times):
            self.budget.succeeded(0)
            self.tokens = min(self.tokens + self.ratio, self.most)

    @rule()
    def begin_a_call(self) -> None:
        self.budget.began(0)

    @invariant()
    def they_agree(self) -> None:
        assert self.budget.spend(0) is (self.tokens > self.most / 2)
        assert self.budget.tokens == float(self.tokens)


class OfRatio(RuleBasedStateMachine):
    """Calls, retries that ask, and time that goes on; everything that ever happened is kept in two lists."""

    @initialize(ratio=st.sampled_from([0.0, 0.25, 0.5, 2.0]), minimum=st.integers(0, 4))
    def begin(self, ratio: float, minimum: int) -> None:
        self.ratio, self.minimum = ratio, minimum
        self.budget = RatioBudget(ratio, minimum, window=10.0)
        self.now = 1000.0
        self.calls: list[float] = []
        self.retries: list[float] = []

    @rule(times=TIMES)
    def call(self, times: int) -> None:
        for _ in range(times):
            self.budget.began(self.now)
            self.calls.append(self.now)

    @rule(times=TIMES)
    def ask(self, times: int) -> None:
        for _ in range(times):
            allowed = len(self.counted(self.retries)) < max(
                self.minimum, int(self.ratio * len(self.counted(self.calls)))
            )
            assert self.budget.spend(self.now) is allowed
            self.retries += [self.now] if allowed else []

    @rule(pause=QUARTERS)
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule()
    def end(self) -> None:
        self.budget.failed(self.now)
        self.budget.succeeded(self.now)

    @invariant()
    def they_agree(self) -> None:
        counted = len(self.counted(self.calls)), len(self.counted(self.retries))
        assert self.budget.tally(self.now) == counted
        assert len(self.budget._slices.value) <= 10  # its memory does not grow with what is counted

    def counted(self, times: list[float]) -> list[float]:
        """Second by second: this one, and the nine before it."""
        return [then for then in times if int(then) > int(self.now) - 10]


TestOfTokens = OfTokens.TestCase
TestOfTokens.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)
TestOfRatio = OfRatio.TestCase
TestOfRatio.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)


# --- details --------------------------------------------------------------------------------------------------------


def test_the_default_is_the_one_of_a6() -> None:
    """Ten tokens: five failures in a row, and there are no more retries; one success in ten brings one back."""
    budget = RetryBudget()
    allowed = []
    for _ in range(6):
        budget.failed(0)
        allowed.append(budget.spend(0))

    assert allowed == [True, True, True, True, False, False]
    assert budget.tokens == 4.0
    for _ in range(10):
        budget.succeeded(0)
    assert budget.tokens == 5.0
    assert not budget.spend(0)
    budget.succeeded(0)
    assert budget.spend(0)


@pytest.mark.parametrize(
    ("given", "counted"), [(0.1, 0.1), (0.57, 0.57), (0.4669, 0.466), (1.001, 1.001), (2, 2.0), (0.001, 0.001)]
)
def test_thousandths_are_counted(given: float, counted: float) -> None:
    """More decimals are ignored, as gRFC A6 has it; those that count are not lost to rounding."""
    budget = RetryBudget(1000, given)
    for _ in range(3):
        budget.failed(0)
    budget.succeeded(0)

    assert budget.tokens == pytest.approx(997 + counted, abs=1e-9)


def test_a_few_retries_are_always_allowed_by_a_ratio() -> None:
    """Three in ten seconds, also for a client that has made one call; then again when they are forgotten."""
    budget = RatioBudget()
    budget.began(0)

    assert [budget.spend(1) for _ in range(4)] == [True, True, True, False]
    assert [budget.spend(11) for _ in range(4)] == [True, True, True, False]


def test_who_comes_late_counts_with_the_latest() -> None:
    """A thread that was held up does not bring an order of its own."""
    budget = RatioBudget(1, 0, 10)
    budget.began(20)
    budget.began(13)

    assert [budget.spend(29) for _ in range(3)] == [True, True, False]
    assert budget.tally(29.9) == (2, 2)
    assert budget.tally(30) == (0, 2)


def test_unlimited_is_unlimited() -> None:
    """Whatever it is told."""
    budget = Unlimited()
    for _ in range(100):
        budget.failed(0)
    budget.began(0)
    budget.succeeded(0)

    assert budget.spend(0) is True


def test_budgets_say_what_they_are() -> None:
    """For logs and debuggers."""
    budgets = [RetryBudget(), RatioBudget(), Unlimited()]

    assert [repr(budget) for budget in budgets] == [
        "<RetryBudget, 10 of 10 tokens>",
        "RatioBudget(0.2, minimum=3, window=10.0)",
        "Unlimited()",
    ]


def test_what_is_a_budget() -> None:
    """Whatever has the four methods, of instances."""
    assert all(map(is_budget, [RetryBudget(), RatioBudget(), Unlimited()]))
    assert not any(map(is_budget, [None, 10, object(), True, RetryBudget]))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RetryBudget(0), "RetryBudget: max_tokens must be a number from 0.001 to 1000, not 0$"),
        (lambda: RetryBudget(1000.1), "max_tokens .* not 1000.1"),
        (lambda: RetryBudget(True), "max_tokens .* not True"),
        (lambda: RetryBudget(float("nan")), "max_tokens .* not nan"),
        (lambda: RetryBudget(10, 0.0009), "token_ratio must be a number from 0.001, not 0.0009"),
        (lambda: RetryBudget(10, float("inf")), "token_ratio .* not inf"),
        (lambda: RetryBudget(-1, -1), "max_tokens .*; token_ratio "),
        (lambda: RatioBudget(-0.1), "RatioBudget: ratio must be a number from 0, not -0.1"),
        (lambda: RatioBudget(minimum=1.5), "minimum must be a whole number from 0, not 1.5"),  # type: ignore[arg-type]
        (lambda: RatioBudget(window=0), "window must be a number of seconds above 0, up to 86400, not 0"),
        (lambda: RatioBudget("a", -1, None), "ratio .*; minimum .*; window "),  # type: ignore[arg-type]
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], Budget], complaint: str) -> None:
    """All of them at once, each with what to write instead."""
    with pytest.raises(ValueError, match=complaint):
        make()


# --- many at once ---------------------------------------------------------------------------------------------------


def at_once(work: Callable[[], Any], threads: int = 50) -> list[Any]:
    """What each of so many threads gives, all let go at the same moment."""
    results: list[Any] = []
    barrier = threading.Barrier(threads)

    def run() -> None:
        barrier.wait(PATIENCE)
        results.append(work())

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    assert len(results) == threads
    return results


def test_no_token_of_a_thread_is_lost() -> None:
    """Fifty threads that fail ten times each, and succeed as often, leave what is left on paper."""
    budget = RetryBudget(1000, 0.5)

    def ten() -> None:
        for _ in range(10):
            budget.failed(0)
            budget.succeeded(0)

    at_once(ten)

    assert budget.tokens == 750.0


@pytest.mark.parametrize("minimum", [1, 3, 20])
def test_as_many_threads_retry_as_the_ratio_allows(minimum: int) -> None:
    """Of fifty that ask at the same moment exactly so many."""
    for _ in range(10):
        budget = RatioBudget(0, minimum)

        assert sum(at_once(lambda: budget.spend(0))) == minimum  # noqa: B023  called in this turn of the loop


def test_no_call_of_a_thread_is_lost() -> None:
    """Each of them is one of which a share may be sent again."""
    budget = RatioBudget(1, 0)

    def twenty() -> None:
        for _ in range(20):
            budget.began(0)

    at_once(twenty)

    assert budget.tally(0) == (1000, 0)


def test_what_happens_in_the_middle_of_a_change_is_kept() -> None:
    """As when the garbage collector ends an abandoned call on the thread that counts: nothing hangs, nothing is lost."""
    value = AtomicValue(0)
    meanwhile = [lambda: value.change(lambda number: number + 10)]

    def one_more(number: int) -> int:
        if meanwhile:
            meanwhile.pop()()
        return number + 1

    assert value.change(one_more)
    assert value.value == 11


def test_a_change_to_the_same_is_none() -> None:
    """A full budget that is told of a success keeps what it has."""
    value = AtomicValue(5)
    before = value._last()

    assert not value.change(lambda number: number)
    assert value._last() is before


def test_a_reader_that_was_held_up_sees_the_latest() -> None:
    """Wherever in the chain one begins to look, its end is found."""
    value = AtomicValue(0)
    first = value._near
    for _ in range(3):
        value.change(lambda number: number + 1)
    value._near = first  # as a slow thread leaves it

    assert value.value == 3
    assert value.change(lambda number: number + 1)
    assert value.value == 4
