"""The breaker and its windows: against a slow, obvious model, and from many threads at once."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interpose.mechanisms.breaker import Admitted, Breaker, Mode, Policy, Refusal, SerialQueue, Transition, Window
from interpose.mechanisms.window import calls, seconds
from tests.support.examples import examples
from tests.support.patience import PATIENCE

QUARTERS = st.integers(0, 60).map(lambda number: number / 4)  # seconds; a float holds them exactly
VERDICTS = st.sampled_from([True, False, None])

RATE, MINIMUM, OPEN_FOR, PROBES = 0.5, 3, 5.0, 2


def policy(window: Window, **changes: Any) -> Policy:
    return Policy(RATE, MINIMUM, window, OPEN_FOR, PROBES)._replace(**changes)


# --- a model --------------------------------------------------------------------------------------------------------


class Model:
    """What a breaker should do, with everything that ever happened kept in lists."""

    def __init__(self, counted: Callable[[list[tuple[float, bool]], float], list[bool]]) -> None:
        self.counted = counted
        self.era = 0  # calls that were let pass in an earlier one count nowhere
        self.told: list[Transition] = []
        self.mode = Mode.CLOSED
        self.results: list[tuple[float, bool]] = []
        self.until = 0.0
        self.tally = (0, 0)
        self.probes: list[tuple[int, float]] = []  # that are out: which, and since when
        self.admitted = 0
        self.succeeded = 0

    def enter(self, mode: Mode, now: float, tally: tuple[int, int] = (0, 0)) -> None:
        if mode is not self.mode:
            self.told.append(Transition(self.mode, mode, *(tally if mode is Mode.OPEN else self.count(now))))
        self.mode, self.tally, self.until = mode, tally, now + OPEN_FOR
        self.era, self.probes, self.succeeded, self.results = self.era + 1, [], 0, []

    def admit(self, now: float) -> bool:
        if self.mode is Mode.OPEN and now >= self.until:
            self.enter(Mode.HALF_OPEN, now)
        if self.mode is not Mode.HALF_OPEN:
            return self.mode in (Mode.CLOSED, Mode.DISABLED)
        if len(self.probes) + self.succeeded == PROBES:
            if now < self.probes[0][1] + OPEN_FOR:
                return False
            del self.probes[0]  # it is given up
        self.admitted += 1
        self.probes.append((self.admitted, now))
        return True

    def report(self, call: tuple[int, int], healthy: bool | None, now: float) -> None:
        era, number = call
        if era != self.era:
            return
        if self.mode is Mode.HALF_OPEN:
            self.probed(number, healthy, now)
        elif self.mode is Mode.CLOSED and healthy is not None:
            self.results.append((now, not healthy))
            total, failures = self.count(now)
            if total >= MINIMUM and failures >= RATE * total:
                self.enter(Mode.OPEN, now, (total, failures))

    def probed(self, number: int, healthy: bool | None, now: float) -> None:
        if number not in dict(self.probes):
            return
        self.probes = [probe for probe in self.probes if probe[0] != number]
        if healthy is False:
            self.enter(Mode.OPEN, now, (self.succeeded + 1, 1))
        elif healthy:
            self.succeeded += 1
            if self.succeeded == PROBES:
                self.enter(Mode.CLOSED, now)

    def count(self, now: float) -> tuple[int, int]:
        if self.mode is Mode.CLOSED:
            failed = self.counted(self.results, now)
            return len(failed), sum(failed)
        return (self.succeeded, 0) if self.mode is Mode.HALF_OPEN else self.tally


def last_ten_seconds(results: list[tuple[float, bool]], now: float) -> list[bool]:
    """Second by second: this one, and the nine before it."""
    return [failed for then, failed in results if int(then) > int(now) - 10]


def last_five_calls(results: list[tuple[float, bool]], now: float) -> list[bool]:
    return [failed for _, failed in results[-5:]]


class AgainstModel(RuleBasedStateMachine):
    """Calls that pass, end and overlap, time that goes on, and an operator; the breaker does what the model does."""

    window: Window
    counted: Callable[[list[tuple[float, bool]], float], list[bool]]

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.told: list[Transition] = []
        self.breaker = Breaker(policy(self.window), self.told.append)
        self.model = Model(type(self).counted)
        self.flying: list[tuple[Admitted, tuple[int, int]]] = []

    @rule()
    def call(self) -> None:
        admitted = self.breaker.admit(self.now)

        assert isinstance(admitted, Refusal) is not self.model.admit(self.now)
        if not isinstance(admitted, Refusal):
            self.flying.append((admitted, (self.model.era, self.model.admitted)))

    @precondition(lambda self: self.flying)
    @rule(healthy=VERDICTS, data=st.data())
    def end(self, healthy: bool | None, data: st.DataObject) -> None:
        admitted, call = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        self.breaker.report(admitted, healthy, self.now)
        self.model.report(call, healthy, self.now)

    @rule(healthy=VERDICTS, times=st.integers(1, 4))
    def call_and_end(self, healthy: bool | None, times: int) -> None:
        for _ in range(times):
            before = len(self.flying)
            self.call()
            if len(self.flying) > before:
                admitted, call = self.flying.pop()
                self.breaker.report(admitted, healthy, self.now)
                self.model.report(call, healthy, self.now)

    @rule(pause=QUARTERS)
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule(mode=st.sampled_from([Mode.CLOSED, Mode.FORCED_OPEN, Mode.DISABLED]))
    def operate(self, mode: Mode) -> None:
        self.breaker.force(mode, self.now)
        self.model.enter(mode, self.now)

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.mode is self.model.mode
        assert self.breaker.tally(self.now) == self.model.count(self.now)
        assert self.told == self.model.told
        left = max(self.model.until - self.now, 0.0) if self.model.mode is Mode.OPEN else None
        assert self.breaker.retry_in(self.now) == left

    @invariant()
    def no_more_than_the_probes_are_under_way(self) -> None:
        here = [era for _, era in self.flying if era == self.model.era]
        assert self.model.mode is not Mode.HALF_OPEN or len(here) <= PROBES


class OverTime(AgainstModel):
    window = seconds(10)
    counted = staticmethod(last_ten_seconds)


class OverCalls(AgainstModel):
    window = calls(5)
    counted = staticmethod(last_five_calls)


TestOverTime = OverTime.TestCase
TestOverTime.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)
TestOverCalls = OverCalls.TestCase
TestOverCalls.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)


# --- windows --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(QUARTERS, st.booleans())), QUARTERS)
def test_a_time_window_counts_the_last_ten_slices(steps: list[tuple[float, bool]], later: float) -> None:
    """However results are spread, the tally is what a list of all of them gives."""
    window, now = seconds(10).fresh(), 0.0
    results: list[tuple[float, bool]] = []
    for pause, failed in steps:
        now += pause
        window.add(failed, now)
        results.append((now, failed))
    expected = last_ten_seconds(results, now + later)

    assert window.tally(now + later) == (len(expected), sum(expected))


@given(st.lists(st.booleans()), st.integers(1, 7))
def test_a_call_window_counts_the_last_ones(results: list[bool], number: int) -> None:
    """Older ones are forgotten, and time plays no part."""
    window = calls(number).fresh()
    for failed in results:
        window.add(failed, 0.0)

    assert window.tally(1e9) == (len(results[-number:]), sum(results[-number:]))


def test_a_result_that_comes_late_counts_with_the_latest() -> None:
    """A thread that was held up does not bring an order of its own."""
    window = seconds(10).fresh()
    window.add(True, 20.0)
    window.add(True, 13.0)

    assert window.tally(29.9) == (2, 2)
    assert window.tally(30.0) == (0, 0)


@given(st.lists(st.floats(0, 1e6), max_size=300))
def test_a_time_window_keeps_ten_slices_at_most(pauses: list[float]) -> None:
    """Its memory does not grow with what is counted."""
    window, now = seconds(30).fresh(), 0.0
    for pause in pauses:
        now += pause
        window.add(True, now)

    assert len(window._slices) <= 10  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [0, -1, True, "30", None, float("nan"), float("inf"), 86_401])
def test_a_length_that_makes_no_sense(length: Any) -> None:
    """It is refused when the window is made."""
    with pytest.raises(ValueError, match="the length must be a number above 0"):
        seconds(length)


@pytest.mark.parametrize("number", [0, -1, True, 2.0, None, 100_001])
def test_a_number_of_calls_that_makes_no_sense(number: Any) -> None:
    """It is refused when the window is made."""
    with pytest.raises(ValueError, match="the number must be a whole one"):
        calls(number)


def test_a_window_says_how_it_was_made() -> None:
    """As one writes it."""
    assert [repr(seconds(30)), repr(calls(100))] == ["seconds(30)", "calls(100)"]


# --- details of the breaker -----------------------------------------------------------------------------------------


def tripped(probes: int = PROBES, tell: Callable[[Transition], Any] | None = None) -> Breaker:
    """A breaker that has opened at second 0."""
    breaker = Breaker(policy(calls(5), minimum=1, probes=probes), tell)
    breaker.report(passed(breaker, 0), False, 0)
    assert breaker.mode is Mode.OPEN
    return breaker


def passed(breaker: Breaker, now: float) -> Admitted:
    admitted = breaker.admit(now)
    assert not isinstance(admitted, Refusal)
    return admitted


def test_a_refusal_tells_when_to_come_again() -> None:
    """While open, until the first probes; while half open, until other probes; forced open, nobody knows."""
    breaker = tripped()
    while_open = breaker.admit(1)
    passed(breaker, 7)
    passed(breaker, 8)
    while_half_open = breaker.admit(9)
    breaker.force(Mode.FORCED_OPEN, 10)

    assert while_open == Refusal(Mode.OPEN, 4)
    assert while_half_open == Refusal(Mode.HALF_OPEN, 3)
    assert breaker.admit(10) == Refusal(Mode.FORCED_OPEN, None)


def test_probes_that_live_on_are_given_up() -> None:
    """After `open_for` seconds others are tried, and what the first ones say then counts nowhere."""
    breaker = tripped()
    first = [passed(breaker, 5) for _ in range(PROBES)]
    assert isinstance(breaker.admit(9.75), Refusal)
    second = [passed(breaker, 10) for _ in range(PROBES)]
    for probe in first:
        breaker.report(probe, False, 11)
    half_open = breaker.mode
    for probe in second:
        breaker.report(probe, True, 12)

    assert half_open is Mode.HALF_OPEN
    assert breaker.mode is Mode.CLOSED


def test_a_probe_is_given_up_by_its_own_age() -> None:
    """However old the half-open state is: one probe is allowed, so there is one, until it is `open_for` seconds old."""
    breaker = tripped(probes=1)
    breaker.report(passed(breaker, 5), None, 6)  # its place is free again
    probe = passed(breaker, 9)

    assert breaker.admit(10) == Refusal(Mode.HALF_OPEN, 4)  # the state is 5 seconds old, the probe only one
    assert breaker.admit(13.75) == Refusal(Mode.HALF_OPEN, 0.25)
    breaker.report(probe, True, 13.75)
    assert breaker.mode is Mode.CLOSED


def test_probes_are_given_up_one_by_one() -> None:
    """Each frees its own place."""
    breaker = tripped(probes=2)
    first, second = passed(breaker, 5), passed(breaker, 8)
    third = passed(breaker, 10)

    assert breaker.admit(10) == Refusal(Mode.HALF_OPEN, 3)
    for probe in (first, second, third):
        breaker.report(probe, True, 11)
    assert breaker.mode is Mode.CLOSED


def test_a_hook_may_use_the_breaker() -> None:
    """It is told while nothing is held, and what it changes is told as well, in order."""
    told: list[tuple[Mode, Mode]] = []

    def tell(change: Transition) -> None:
        if change.after is Mode.OPEN:
            breaker.force(Mode.DISABLED, 0)
        told.append((change.before, change.after))
        assert breaker.mode is Mode.DISABLED

    breaker = Breaker(policy(calls(5), minimum=1), tell)
    breaker.report(passed(breaker, 0), False, 0)

    assert told == [(Mode.CLOSED, Mode.OPEN), (Mode.OPEN, Mode.DISABLED)]


def test_a_call_that_ends_in_the_middle_of_another_one_is_counted() -> None:
    """As when the garbage collector closes a flow while the same thread counts: nothing hangs, nothing is lost."""
    breaker = Breaker(policy(_Collected(), minimum=9))
    abandoned = passed(breaker, 0)
    _Collected.meanwhile.append(lambda: breaker.report(abandoned, True, 0))
    breaker.report(passed(breaker, 0), True, 0)

    assert breaker.tally(0) == (2, 0)


class _Collected:
    """A window in whose `add` something else happens, once."""

    meanwhile: ClassVar[list[Callable[[], None]]] = []

    def __init__(self) -> None:
        self._window = calls(9).fresh()

    def fresh(self) -> "_Collected":
        return _Collected()

    def add(self, failed: bool, now: float) -> None:
        while self.meanwhile:
            self.meanwhile.pop()()
        self._window.add(failed, now)

    def tally(self, now: float) -> tuple[int, int]:
        return self._window.tally(now)


# --- turns ----------------------------------------------------------------------------------------------------------


def test_turns_keep_the_order() -> None:
    """What is added while a turn is taken comes after what waits already."""
    turns, done = SerialQueue(), []

    def first() -> None:
        turns.add(lambda: done.append("third"))
        turns.run()
        done.append("first")

    turns.add(first)
    turns.add(lambda: done.append("second"))
    turns.run()

    assert done == ["first", "second", "third"]


def test_work_that_raises_gives_the_turn_back() -> None:
    """The next to come does what is left."""
    turns, done = SerialQueue(), []

    def fail() -> None:
        raise KeyError

    turns.add(fail)
    turns.add(lambda: done.append("second"))
    with pytest.raises(KeyError):
        turns.run()
    turns.run()

    assert done == ["second"]


def at_once(work: Callable[[], Any], threads: int = 100) -> list[Any]:
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
    return results


def test_turns_of_many_threads() -> None:
    """Everything is done, and never two things at a time."""
    turns = SerialQueue()
    inside = [0]
    most = [0]
    done = [0]

    def work() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        done[0] += 1  # would lose some if two did it at a time
        inside[0] -= 1

    def add() -> None:
        for _ in range(100):
            turns.add(work)
            turns.run()

    at_once(add, 20)

    assert (done, most) == ([2000], [1])


@pytest.mark.parametrize("probes", [1, 3, 10])
def test_as_many_threads_pass_as_there_are_probes(probes: int) -> None:
    """Of 100 at once exactly so many, whichever of them finds that the time is up; and the change is told once."""
    for _ in range(10):
        told: list[Transition] = []
        breaker = tripped(probes, told.append)
        results = at_once(lambda: breaker.admit(5))  # noqa: B023  called in this turn of the loop

        assert sum(not isinstance(result, Refusal) for result in results) == probes
        assert len(results) == 100
        assert [change.after for change in told] == [Mode.OPEN, Mode.HALF_OPEN]


def test_as_many_threads_pass_in_the_second_round() -> None:
    """When probes are given up, 100 threads at once take as many new ones."""
    breaker = tripped()
    at_once(lambda: breaker.admit(5), 10)

    results = at_once(lambda: breaker.admit(10))

    assert sum(not isinstance(result, Refusal) for result in results) == PROBES


def test_all_who_come_at_the_same_time_find_the_same() -> None:
    """Whoever looks before the change is made finds the state that everybody finds: its slots are for all of them."""
    breaker = tripped()
    opened = breaker._state
    half_open = opened.at(5)
    for _ in range(PROBES):
        passed(breaker, 5)

    assert opened.at(5) is half_open is breaker._state


def test_who_finds_the_time_up_too_late_changes_nothing() -> None:
    """A thread that was held up between its look and its step does not bring an old state back."""
    breaker = tripped()
    opened = breaker._state
    breaker.report(passed(breaker, 5), False, 6)
    reopened = breaker._state

    breaker._follow(opened, opened.at(7), 7)

    assert breaker._state is reopened
    assert breaker.mode is Mode.OPEN


def test_no_result_of_a_thread_is_lost() -> None:
    """100 threads that end ten calls each are a thousand results."""
    breaker = Breaker(policy(calls(5000), minimum=5000))

    def ten() -> None:
        for number in range(10):
            breaker.report(passed(breaker, 0), number % 2 == 0, 0)

    at_once(ten)

    assert breaker.tally(0) == (1000, 500)
