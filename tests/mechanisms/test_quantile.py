"""The quantile of the last observations, and what hedging by it does to it."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.quantile import EVERY, Observed, Quantile, quantile

CALLS = 5_000
COPIES_EVERY = 1_000  # calls, over which a share of hedged ones is told


def below(values: list[float], limit: float) -> int:
    return sum(value < limit for value in values)


# --- against a sorted list ------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=400),
    st.floats(0.001, 0.999),
    st.integers(20, 120),
)
def test_it_is_what_sorting_the_window_gives(values: list[float], share: float, window: int) -> None:
    """At each step it is the quantile of a window that ended no more than sixteen observations ago."""
    observed = Observed(quantile(share, initial=7.0, window=window))
    possible = [7.0]

    for seen, value in enumerate(values, 1):
        observed.add(value)
        last = sorted(values[max(seen - window, 0) : seen])
        possible.append(last[int(share * len(last))])
        assert observed.value in possible[-EVERY:] or (seen < max(EVERY, window // 10) and observed.value == 7.0)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_that_share_is_below_it(share: float) -> None:
    """Of a thousand calls, that share was quicker, and no more."""
    observed = Observed(quantile(share, window=1000))
    times = random.Random(1).sample(range(10_000), 1000)

    for time in times:
        observed.add(time)

    # The last eight are not in it yet: 1000 is no multiple of 16.
    assert abs(below(list(map(float, times)), observed.value) - 1000 * share) <= EVERY


def test_what_is_old_is_forgotten() -> None:
    """A server that was slow is quick again: after one window the quantile knows."""
    observed = Observed(quantile(0.95, window=100))

    for time in [10.0] * 200 + [0.1] * (100 + EVERY):
        observed.add(time)

    assert observed.value == 0.1


@pytest.mark.parametrize(("window", "minimum"), [(20, 16), (200, 20), (1000, 100)])
def test_the_initial_value_holds_at_first(window: int, minimum: int) -> None:
    """Until a tenth of the window, and no less than sixteen calls, has been seen."""
    observed = Observed(quantile(initial=7.0, window=window))
    values = []

    for _ in range(minimum):
        values.append(observed.value)
        observed.add(1.0)

    assert values == [7.0] * minimum
    assert observed.value == 1.0


def test_threads_may_add_at_the_same_time() -> None:
    """None of them fails, the window stays as long as it is, and the quantile is one of the observations."""
    observed = Observed(quantile(0.5, window=50))
    start = threading.Barrier(4)
    faults: list[BaseException] = []

    def add(time: float) -> None:
        start.wait()
        try:
            for _ in range(5_000):
                observed.add(time)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=add, args=(float(number),)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert observed.value in (1.0, 2.0, 3.0, 4.0)
    assert repr(observed).endswith("of 50>")


def test_it_tells_what_it_is() -> None:
    """In a debugger one sees the value, and of how many calls it is."""
    observed = Observed(quantile(0.95, initial=0.25))
    observed.add(1.0)

    assert repr(observed) == "<0.25, the 0.95 quantile of 1>"


# --- options --------------------------------------------------------------------------------------------------------


def test_what_it_is_made_of() -> None:
    """The policy is a value that can be compared, and shared."""
    assert quantile() == Quantile(0.95, 0.05, 200)
    assert quantile(0.5, initial=0, window=20) == Quantile(0.5, 0, 20)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"share": 0}, "share must be a number above 0 and below 1, not 0"),
        ({"share": 1}, "share must be a number above 0 and below 1, not 1"),
        ({"share": True}, "share must be a number above 0 and below 1, not True"),
        ({"share": float("nan")}, "share must be a number above 0 and below 1, not nan"),
        ({"share": "0.9"}, "share must be a number above 0 and below 1, not '0.9'"),
        ({"initial": -1}, "initial must be 0 or more seconds, not -1"),
        ({"initial": float("inf")}, "initial must be 0 or more seconds, not inf"),
        ({"window": 19}, "window must be a whole number from 20 to 10000, not 19"),
        ({"window": 10_001}, "window must be a whole number from 20 to 10000, not 10001"),
        ({"window": 100.0}, "window must be a whole number from 20 to 10000, not 100.0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """They are a ValueError that says what to write instead."""
    with pytest.raises(ValueError, match=f"^quantile: {fault}$"):
        quantile(**options)


def test_all_faults_at_once() -> None:
    """One error tells every one of them."""
    with pytest.raises(ValueError, match=r"^quantile: share .*; initial .*; window .*$"):
        quantile(2, initial=-1, window=0)


# --- hedging by it --------------------------------------------------------------------------------------------------


def shares_of_hedged_calls(counts: Callable[[float, float], float | None]) -> list[float]:
    """How many of each thousand calls were hedged, in a simulation.

    counts: what is observed of a call, by the time that its first copy takes and the time in which the call had its
    answer; None: nothing.
    """
    chance = random.Random(95)
    observed = Observed(quantile(0.95, initial=0.5))
    hedged: list[bool] = []
    for _ in range(CALLS):
        delay, first, second = observed.value, chance.lognormvariate(-3, 1.2), chance.lognormvariate(-3, 1.2)
        hedged.append(first > delay)
        answered = min(first, delay + second) if first > delay else first
        seen = counts(first, answered)
        if seen is not None:
            observed.add(seen)
    return [sum(hedged[at : at + COPIES_EVERY]) / COPIES_EVERY for at in range(0, CALLS, COPIES_EVERY)]


def test_the_share_of_hedged_calls_stays_what_was_asked_for() -> None:
    """A first copy that lost counts with the time at which it was cancelled: one call in twenty is hedged, for ever."""
    shares = shares_of_hedged_calls(lambda first, answered: answered)

    assert all(0.02 <= share <= 0.09 for share in shares)
    assert sum(shares) / len(shares) == pytest.approx(0.05, abs=0.01)


def test_to_leave_the_losers_out_would_not_do() -> None:
    """If only first copies that won counted, the slow ones would be missing: twice as many would be hedged, and more."""
    shares = shares_of_hedged_calls(lambda first, answered: answered if answered == first else None)

    assert all(share > 0.1 for share in shares)
