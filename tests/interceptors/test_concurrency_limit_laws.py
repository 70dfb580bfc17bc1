"""ConcurrencyLimit: what its algorithms make of an overload, in simulated time."""

import pytest

from interpose.interceptors.concurrency_limit import Aimd, ConcurrencyLimit, Fixed, Gradient, Vegas
from interpose.mechanisms.concurrency import Algorithm, Window
from interpose.testing import FakeClock
from tests.interceptors.overloaded import Loop, Server, simulated

pytestmark = pytest.mark.slow  # hours of a simulated service

FINDING = 10.0  # seconds in which a limit has to be found again
SERVICE = 0.025  # seconds
ALGORITHMS = [Gradient(), Vegas(), Aimd(timeout=5 * SERVICE)]


def server(algorithm: Algorithm, units: int) -> Server:
    return simulated(lambda clock: ConcurrencyLimit(algorithm, queue=0), units, SERVICE)


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_goodput_holds_at_three_times_the_capacity(algorithm: Algorithm, units: int) -> None:
    """At least 80 % of the capacity is served, the slowest admitted calls at most three times as slow as at half load."""
    capacity = units / SERVICE
    calm = server(algorithm, units).serve(capacity / 2, 10)
    crowded = server(algorithm, units)
    crowded.serve(3 * capacity, FINDING)
    overload = crowded.serve(3 * capacity, 10)

    assert not calm.shed or calm.shed < 0.05 * len(calm.times)
    assert overload.useful >= 0.8 * 10 * capacity
    assert overload.quantile(0.99) <= max(3 * calm.quantile(0.99), 7 * SERVICE)


def test_without_a_limit_it_collapses() -> None:
    """The same overload without a limit: hardly an answer is of use any more."""
    crowded = server(Fixed(100_000), 1)
    crowded.serve(120, FINDING)

    assert crowded.serve(120, 5).useful == 0


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()], ids=repr)
@pytest.mark.parametrize("units", [(4, 2), (2, 4)], ids=str)
def test_a_change_of_capacity_is_found(algorithm: Algorithm, units: tuple[int, int]) -> None:
    """Half as many, or twice as many, are worked on at a time: within 10 s goodput and latency are what they should be."""
    before, after = units
    crowded = server(algorithm, before)
    crowded.serve(3 * before / SERVICE, FINDING)
    crowded.units = after
    crowded.serve(3 * after / SERVICE, FINDING)
    found = crowded.serve(3 * after / SERVICE, 10)

    assert found.useful >= 0.8 * 10 * after / SERVICE
    assert found.quantile(0.99) <= 6 * SERVICE


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()], ids=repr)
@pytest.mark.parametrize("slower", [2.0, 0.5])
def test_a_change_of_speed_is_found(algorithm: Algorithm, slower: float) -> None:
    """Each call takes twice as long, or half: found within 10 s."""
    crowded = server(algorithm, 2)
    crowded.serve(6 / SERVICE, FINDING)
    crowded.service *= slower
    crowded.serve(6 / SERVICE / slower, FINDING)
    found = crowded.serve(6 / SERVICE / slower, 10)

    assert found.useful >= 0.8 * 10 * 2 / crowded.service
    assert found.quantile(0.99) <= 6 * crowded.service


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()], ids=repr)
def test_an_overload_that_lasts_does_not_lift_the_limit(algorithm: Algorithm) -> None:
    """After a minute of it calls take no longer than at first: what they take without load is measured anew."""
    crowded = server(algorithm, 2)
    crowded.serve(240, FINDING)
    first = crowded.serve(240, 10)
    crowded.serve(240, 40)

    assert crowded.serve(240, 10).quantile(0.99) <= 1.5 * first.quantile(0.99)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_the_important_are_served(algorithm: Algorithm) -> None:
    """One call in five has a high priority: of these at least 95 % are served, at three times the capacity."""
    crowded = simulated(lambda clock: ConcurrencyLimit(algorithm, queue=8), 1, SERVICE)
    crowded.serve(3 / SERVICE, FINDING, important=0.2)
    served = crowded.serve(3 / SERVICE, 10, important=0.2)

    assert sum(served.important) >= 0.95 * len(served.important) > 0
    assert served.shed > len(served.times)


def test_a_few_callers_in_a_hurry_do_not_lower_the_limit() -> None:
    """A deadline that is too short says nothing of the load; only where most calls run out of time it is the server's."""
    hurried, slow = Gradient(100).begin(), Gradient(100).begin()
    assert not isinstance(hurried, int) and not isinstance(slow, int)
    for number in range(3):
        hurried.update(Window(0.01, 100, 0.4), 0.1 * number)
        slow.update(Window(0.01, 100, 0.6), 0.1 * number)

    assert hurried.limit > 100
    assert slow.limit < 40


# --- asyncio --------------------------------------------------------------------------------------------------------

COST = 0.04  # seconds of CPU, as in the storm
QUEUE_TIMEOUT = 0.25


def loop(turns: int) -> Loop:
    clock = FakeClock()
    limit = ConcurrencyLimit(Gradient(maximum=40), queue=8, queue_timeout=QUEUE_TIMEOUT)
    return Loop(limit, clock, turns, COST)


@pytest.mark.parametrize("turns", [1, 3, 5])
def test_a_loop_that_takes_up_calls_slowly_does_not_collapse(turns: int) -> None:
    """The more calls are in hand, the longer its turns, and the older a call when the limit first sees it."""
    calm = loop(turns).serve(0.5 / COST, 10)
    crowded = loop(turns)
    crowded.serve(3 / COST, FINDING, important=0.2)
    served = crowded.serve(3 / COST, 10, important=0.2)

    assert served.useful >= 0.8 * 10 / COST
    assert served.quantile(0.99) <= 3 * calm.quantile(0.99)
    assert sum(served.important) >= 0.95 * len(served.important) > 0


def test_a_loop_that_has_collapsed_recovers() -> None:
    """All that it has taken up is too old, and what it does for them is in vain: the limit finds out within 10 s."""
    crowded = loop(5)
    crowded.serve(12 / COST, FINDING)
    crowded.serve(3 / COST, FINDING)

    assert crowded.serve(3 / COST, 10).useful >= 0.8 * 10 / COST
