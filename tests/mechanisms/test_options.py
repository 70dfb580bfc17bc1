"""Options, looked at all together."""

import pytest

from interpose._clock import SYSTEM
from interpose.mechanisms.options import insist, is_clock, is_flag, is_function_or_none, is_whole


def test_all_faults_are_told() -> None:
    """The text of each requirement that is not met, and of no other."""
    with pytest.raises(ValueError, match=r"^Thing: a must be 1; c must be 3$"):
        insist("Thing", (False, "a must be 1"), (True, "b must be 2"), (False, "c must be 3"))


def test_nothing_is_told_of_good_options() -> None:
    """No fault, no error."""
    insist("Thing", (True, "a must be 1"))


def test_kinds_of_values() -> None:
    """True is no number, 1 no flag, and a clock is what has a now()."""
    assert [is_whole(value, 1, 3) for value in (0, 1, 3, 4, True, 2.0, "2")] == [False, True, True, *[False] * 4]
    assert [is_flag(value) for value in (True, False, 1, None)] == [True, True, False, False]
    assert [is_function_or_none(value) for value in (None, print, 1)] == [True, True, False]
    assert [is_clock(value) for value in (SYSTEM, print, None)] == [True, False, False]
