"""Pauses between attempts."""

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.backoff import exponential

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


@given(seconds, seconds, growth, share, st.floats(0, 1), retries)
def test_a_pause_stays_in_its_bounds(
    initial: float, cap: float, multiplier: float, jitter: float, drawn: float, retry: int
) -> None:
    """However often one retries, a pause is finite, at least nothing, and at most the cap and its jitter."""
    pause = exponential(initial, cap=cap, multiplier=multiplier, jitter=jitter, random=lambda: drawn)(retry)

    assert 0 <= pause <= cap * (1 + jitter) * (1 + 1e-12)
    assert math.isfinite(pause)


@given(seconds, seconds, st.floats(min_value=1, max_value=1e9), st.lists(retries, min_size=2))
def test_without_jitter_pauses_never_shrink(initial: float, cap: float, multiplier: float, numbers: list[int]) -> None:
    """A later retry waits at least as long as an earlier one."""
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


@pytest.mark.parametrize("retry", [0, -1])
def test_retries_are_counted_from_one(retry: int) -> None:
    """The first attempt is no retry, and has no pause."""
    with pytest.raises(ValueError, match="counted from 1"):
        exponential()(retry)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"initial": -1}, "initial must be 0 or more seconds, not -1"),
        ({"initial": math.nan}, "initial must be 0 or more seconds, not nan"),
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
