"""The cancellation storm, the short form: nothing is left of calls that were cancelled or timed out."""

import pytest

from tests.torture.storm import AFTER, blow, plans

SHORT = 200  # calls that are cancelled or time out
WARM_UP = 100


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_is_left_of_a_storm() -> None:
    """No thread, task, flow, callback or file descriptor is left, memory has not grown, and the next calls succeed."""
    defects, _ = blow(seed=9, calls=SHORT, warm_up=WARM_UP)

    assert defects == []


def test_the_same_seed_makes_the_same_storm() -> None:
    """A run can be repeated from its seed; another seed is another run."""
    assert plans(1, 50) == plans(1, 50) != plans(2, 50)


def test_all_of_a_storm_is_stormy_and_nothing_behind_it() -> None:
    """Each call is cancelled or has a deadline, but for those that have to succeed afterwards."""
    endings = [plan.ending for plan in plans(9, SHORT)]

    assert set(endings[:SHORT]) == {"cancel", "deadline"}
    assert endings[SHORT:] == ["wait"] * AFTER
