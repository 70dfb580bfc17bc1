"""GCRA: never one more than the burst and the rate allow, in any stretch of time; and not one less."""

import dis
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.gcra import Gcra, Together
from interpose.mechanisms.rate import Rate

HOUR = 3600 * 10**9  # nanoseconds
START = 5 * HOUR

rates = st.builds(Rate, st.integers(1, 40), st.sampled_from([0.001, 1.0, 7.0, 60.0]), st.none() | st.integers(1, 8))
# Pauses around the steps of such rates, and none.
pauses = st.one_of(
    st.just(0), st.integers(0, 3), st.integers(0, 10**9), st.sampled_from([10**9 // n for n in (1, 3, 7, 40)])
)


def made(rate: Rate, keys: int = 100, patience: int = 0) -> tuple[Gcra, int]:
    parts, step = rate.ticks(10**9)
    return Gcra(step, rate.at_once, keys, patience * parts), parts


class Law:
    """The law itself, as slow as it is plain: of calls at these times, may one more pass?"""

    def __init__(self, rate: Rate, per_second: int = 10**9) -> None:
        self._parts, self._step = rate.ticks(per_second)
        self._burst = rate.at_once
        self.passed: list[int] = []  # times, `per_second` of them in a second

    def allows(self, now: int) -> bool:
        """From each call that has passed until now: no more than the burst, and the rate times the time between."""
        count = len(self.passed)
        return self._burst >= 1 and all(
            (count - place + 1) * self._step <= self._burst * self._step + (now - at) * self._parts
            for place, at in enumerate(self.passed)
        )


# --- the law --------------------------------------------------------------------------------------------------------


@given(rates, st.lists(st.tuples(pauses, st.sampled_from("ab")), max_size=60))
def test_it_lets_pass_what_the_law_allows_and_nothing_else(rate: Rate, calls: list[tuple[int, str]]) -> None:
    """Call by call, for each key on its own."""
    gcra, parts = made(rate)
    laws = {"a": Law(rate), "b": Law(rate)}
    now = START

    for pause, key in calls:
        now += pause
        allowed = laws[key].allows(now)
        assert (gcra.early(key, now * parts) <= 0) is allowed
        assert (gcra.take(key, now * parts) <= 0) is allowed
        if allowed:
            laws[key].passed.append(now)


@given(rates, st.lists(st.tuples(pauses, st.sampled_from([0, 0, 0, HOUR, -HOUR])), max_size=60))
def test_a_clock_that_jumps_lets_no_more_pass(rate: Rate, calls: list[tuple[int, int]]) -> None:
    """By the time that went forwards: one jump back is no time, and keeps nobody out for longer than a step."""
    gcra, parts = made(rate)
    law, now, forwards = Law(rate), START, 0

    for pause, jump in calls:
        now += pause + jump
        forwards += pause + max(jump, 0)
        allowed = law.allows(forwards)
        early = gcra.take("a", now * parts)
        assert early <= rate.ticks(10**9)[1]
        if early <= 0:
            assert allowed
            law.passed.append(forwards)


@given(rates, st.lists(st.tuples(pauses, st.integers(0, 3 * 10**9)), max_size=40))
def test_calls_that_wait_meet_the_law_in_their_order(rate: Rate, calls: list[tuple[int, int]]) -> None:
    """Each goes at the earliest tick that the law allows; one that would wait longer than it likes takes nothing."""
    gcra, parts = made(rate, patience=3 * 10**9)
    law, now = Law(rate, per_second=10**9 * parts), START

    for pause, patience in calls:
        now += pause
        early = gcra.take("a", now * parts, patience * parts)
        sent = now * parts + max(early, 0)
        assert early <= 0 or not law.allows(sent - 1)
        if early <= patience * parts:
            assert law.allows(sent)
            law.passed.append(sent)


@given(st.lists(rates, min_size=2, max_size=3), st.lists(st.tuples(pauses, st.sampled_from("ab")), max_size=40))
def test_together_all_allow_it_or_nothing_is_taken(several: list[Rate], calls: list[tuple[int, str]]) -> None:
    """The last of the rates is one for all callers, the others are for each."""
    gcras = [made(rate) for rate in several]
    together, now = Together(gcras), START
    laws = {(place, key): Law(rate) for place, rate in enumerate(several) for key in ("a", "b", "all")}

    for pause, caller in calls:
        now += pause
        keys = [*[caller] * (len(several) - 1), "all"]
        met = [laws[place, key] for place, key in enumerate(keys)]
        allowed = [law.allows(now) for law in met]
        early = together.take(keys, now)
        assert [by <= 0 for by in early] == allowed
        if all(allowed):
            for law in met:
                law.passed.append(now)


def test_a_rate_without_a_key_does_not_count() -> None:
    """The others do."""
    one, two = (made(Rate(1)) for _ in range(2))
    together = Together([one, two])

    assert together.take([None, "a"], START) == [0, 0]
    assert together.take(["a", None], START) == [0, 0]
    assert together.take(["a", "a"], START) == [10**9, 10**9]
    assert together.take([None, None], START) == [0, 0]


def test_what_waits_for_one_rate_is_counted_by_the_other_when_it_comes() -> None:
    """Not before: then two could come at once."""
    each, everyone = Rate(1), Rate(2, burst=1)
    together = Together([made(each, patience=10**10), made(everyone, patience=10**10)])

    assert together.take(["a", "all"], START, 10**10) == [0, 0]
    assert together.take(["a", "all"], START, 10**10) == [10**9, 5 * 10**8]  # goes after 1 s
    assert together.take(["b", "all"], START + 10**9, 10**10) == [0, 5 * 10**8]


# --- many keys ------------------------------------------------------------------------------------------------------


def test_the_key_used_longest_ago_is_forgotten() -> None:
    """A call that is refused uses its key as well."""
    gcra, _ = made(Rate(1), keys=2)

    for key in "aba":
        gcra.take(key, START)
    gcra.take("c", START)

    assert len(gcra) == 2
    assert gcra.take("a", START) > 0  # kept
    assert gcra.take("b", START) <= 0  # forgotten, so new


@pytest.mark.slow
def test_memory() -> None:
    """100,000 keys in 25 MB, also when most of those that came are forgotten."""
    gcra, now = made(Rate(100), keys=100_000)[0], time.monotonic_ns()

    for number in range(250_000):
        gcra.take(f"{number:016}", now)  # no key of `RateLimit` is longer

    assert len(gcra) == 100_000
    times = gcra._next
    assert sys.getsizeof(times) + sum(sys.getsizeof(key) + sys.getsizeof(at) for key, at in times.items()) <= 25 * 10**6


# --- threads --------------------------------------------------------------------------------------------------------


@contextmanager
def switching() -> Iterator[None]:
    """CPython changes threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("together", [False, True])
def test_threads_share_a_burst(together: bool) -> None:
    """Eight of them, many keys of which each is new to all: what passes is the burst of each key, to the last one."""
    gcra, _ = made(Rate(50), keys=1000)
    both = Together([(gcra, 1), made(Rate(10**6))])
    passed = [0] * 8
    begin = threading.Barrier(8)

    def calls(thread: int) -> None:
        begin.wait()
        for number in range(4000):
            key = str(number // 200)
            early = both.take([key, key], START)[0] if together else gcra.take(key, START)
            passed[thread] += early <= 0

    with switching():
        threads = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sum(passed) == 50 * 20


def test_a_decision_is_one_step() -> None:
    """Between the reading of a key's time and the last writing of it stands no call, no jump back and no await."""
    code = [one.opname for one in dis.get_instructions(Gcra.take)]
    read = code.index("BINARY_SUBSCR" if sys.version_info < (3, 14) else "BINARY_OP")
    writes = [place for place, name in enumerate(code) if name == "STORE_SUBSCR"]
    between = code[read : writes[-1]]

    assert len(writes) == 2
    assert [name for name in between if name.startswith(("CALL", "JUMP_BACKWARD", "RESUME", "SEND", "WITH"))] == []


def test_a_key_that_is_forgotten_meanwhile() -> None:
    """By another thread, between the decision and the noting of its use: the decision stands."""
    gcra, _ = made(Rate(1), keys=1)

    class Forgetful(type(gcra._next)):  # type: ignore[misc]
        def move_to_end(self, key: str, last: bool = True) -> None:
            self.pop(key)
            super().move_to_end(key, last)

        def popitem(self, last: bool = True) -> tuple[str, int]:
            super().popitem(last)
            raise KeyError

    gcra._next = Forgetful()

    assert gcra.take("a", START) <= 0
    assert gcra.take("b", START) <= 0
    assert gcra.take("c", START) <= 0
    assert len(gcra) == 0
