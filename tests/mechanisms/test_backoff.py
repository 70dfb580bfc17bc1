"""Pauses between attempts."""

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.backoff import Backoff, decorrelated, exponential, full_jitter

seconds = st.floats(min_value=0, max_value=1e9)
growth = st.floats(min_value=0.1, max_value=1e9)
share = st.floats(min_value=0, max_value=1)
retries = st.one_of(st.integers(1, 200), st.integers(1, 10**500))


def test_the_defaults_double_from_a_tenth_of_a_second_up_to_five() -> None:
    """0.1, 0.2, 0.4 … 5 seconds, each times 0.8 to 1.2 (gRFC A6)."""
    middle = exponential(random=lambda: 0.5)

    assert [middle(retry) for retry in range(1, 9)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


@pytest.mark.parametrize(("drawn", "factor"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_jitter_is_a_share_of_the_pause(drawn: float, factor: float) -> None:
    """The least number gives 1 - jitter of the pause, the greatest 1 + jitter."""
    assert exponential(1.0, random=lambda: drawn)(1) == pytest.approx(factor)


bounds = st.tuples(seconds, seconds).map(sorted)  # initial, and a cap that is not below it


@given(bounds, growth, share, st.floats(0, 1), retries)
def test_a_pause_stays_in_its_bounds(
    bounds: list[float], multiplier: float, jitter: float, drawn: float, retry: int
) -> None:
    """However often one retries, a pause is finite, at least nothing, and at most the cap and its jitter."""
    initial, cap = bounds
    pause = exponential(initial, cap=cap, multiplier=multiplier, jitter=jitter, random=lambda: drawn)(retry)

    assert 0 <= pause <= cap * (1 + jitter) * (1 + 1e-12)
    assert math.isfinite(pause)


@given(bounds, st.floats(min_value=1, max_value=1e9), st.lists(retries, min_size=2))
def test_without_jitter_pauses_never_shrink(bounds: list[float], multiplier: float, numbers: list[int]) -> None:
    """A later retry waits at least as long as an earlier one."""
    initial, cap = bounds
    pause = exponential(initial, cap=cap, multiplier=multiplier, jitter=0)

    assert all(pause(early) <= pause(late) for early, late in pairwise(sorted(numbers)))


@given(seconds, st.integers(1, 10**500))
def test_a_multiplier_of_one_gives_equal_pauses(initial: float, retry: int) -> None:
    """They stay as they began, even at a retry whose number no float can hold."""
    assert exponential(initial, cap=1e9, multiplier=1, jitter=0)(retry) == initial


def test_the_same_chance_gives_the_same_pauses() -> None:
    """Randomness is handed in."""
    first, second = (exponential(random=random.Random(7).random) for _ in range(2))

    assert [first(retry) for retry in range(1, 20)] == [second(retry) for retry in range(1, 20)]


def test_nothing_times_infinity_is_nothing() -> None:
    """A pause that begins with none stays none."""
    assert exponential(0)(5000) == 0.0


# --- other jitters --------------------------------------------------------------------------------------------------


def drawing(*numbers: float) -> Any:
    """Chance that is known before."""
    return iter(numbers).__next__


def test_full_jitter_is_anything_up_to_the_pause() -> None:
    """Of 0.1, 0.2, 0.4, 0.5, 0.5 … seconds a share that is drawn, from nothing to all of it."""
    pause = full_jitter(0.1, cap=0.5, random=drawing(1.0, 0.5, 0.25, 1.0, 0.0))

    assert [pause(retry) for retry in range(1, 6)] == pytest.approx([0.1, 0.1, 0.1, 0.5, 0.0])


def test_decorrelated_pauses_wander() -> None:
    """Each step is from `initial` to three times the one before; the cap holds."""
    upwards = decorrelated(1.0, cap=10.0, random=lambda: 1.0)
    down_again = decorrelated(1.0, cap=10.0, random=drawing(1.0, 0.5))

    assert [upwards(retry) for retry in range(1, 5)] == [3.0, 9.0, 10.0, 10.0]
    assert down_again(2) == 5.0  # after 3.0 it is from 1 to 9


@given(bounds, st.lists(st.floats(0, 1), min_size=1), retries)
def test_other_jitters_stay_in_their_bounds(bounds: list[float], drawn: list[float], retry: int) -> None:
    """A full jitter from nothing to the cap, a decorrelated one from `initial` to the cap, whatever is drawn."""
    initial, cap = bounds
    chances = (drawn[turn % len(drawn)] for turn in range(1000))
    full = full_jitter(initial, cap=cap, random=chances.__next__)
    wandering = decorrelated(initial, cap=cap, random=chances.__next__)

    assert 0 <= full(retry) <= cap
    assert initial * (1 - 1e-12) <= wandering(retry) <= cap


def test_a_late_retry_is_drawn_in_no_time() -> None:
    """A decorrelated pause takes a hundred steps at most: from there on it is the same to begin anywhere."""
    draws: list[float] = []

    def draw() -> float:
        draws.append(0.5)
        return 0.5

    decorrelated(0.1, cap=5.0, random=draw)(10**500)

    assert len(draws) == 100


@pytest.mark.parametrize("pause", [exponential(), full_jitter(0.1, cap=1), decorrelated(0.1, cap=1)])
@pytest.mark.parametrize("retry", [0, -1])
def test_retries_are_counted_from_one(pause: Backoff, retry: int) -> None:
    """The first attempt is no retry, and has no pause."""
    with pytest.raises(ValueError, match="counted from 1"):
        pause(retry)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"initial": -1}, "initial must be 0 or more seconds, not -1"),
        ({"initial": math.nan}, "initial must be 0 or more seconds, not nan"),
        ({"initial": 6}, "cap must not be below initial, as 5.0 is below 6"),
        ({"cap": math.inf}, "cap must be 0 or more seconds, not inf"),
        ({"multiplier": 0}, "multiplier must be above 0, not 0"),
        ({"multiplier": "2"}, "multiplier must be above 0, not '2'"),
        ({"jitter": 1.5}, "jitter must be from 0 to 1, not 1.5"),
        ({"jitter": True}, "jitter must be from 0 to 1, not True"),
        ({"random": 0.5}, "random must be a function like random.random, not 0.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Each with what to write instead."""
    with pytest.raises(ValueError, match=f"exponential: {complaint}"):
        exponential(**options)


def test_every_fault_is_told_at_once() -> None:
    """One error names all that is wrong."""
    with pytest.raises(ValueError, match=r"initial .*; cap .*; multiplier .*; jitter .*; random "):
        exponential(-1, cap=-1, multiplier=-1, jitter=-1, random=None)  # type: ignore[arg-type]


def test_every_fault_of_other_jitters_is_told_at_once() -> None:
    """They are as strict."""
    with pytest.raises(ValueError, match=r"full_jitter: initial .*; cap .*; multiplier .*; random "):
        full_jitter(-1, cap=-1, multiplier=-1, random=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"decorrelated: initial .*; cap .*; random "):
        decorrelated(-1, cap=-1, random=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decorrelated: cap must not be below initial, as 1 is below 2"):
        decorrelated(2, cap=1)
