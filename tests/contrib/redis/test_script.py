"""The script that decides in Redis: the law of `RateLimit`, at times that the test sets."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpose.contrib.redis.script import SCRIPT, numbers_of
from interpose.mechanisms.rate import Rate
from tests.contrib.redis.server import RedisServer
from tests.mechanisms.test_gcra import Law
from tests.support.examples import examples

pytestmark = pytest.mark.needs("redis")

SECOND = 10**6  # microseconds
HOUR = 3600 * SECOND
START = 1_795_939_077_581_734  # of a day in 2026: as many digits as a real time has
CLOCK = "local clock = redis.call('TIME')\nlocal now = clock[1] * 1000000 + clock[2]\n"
EXPIRES = ", 'PX', lasts"

# The same script, but the time is its last argument, and keys do not expire by the server's clock.
assert CLOCK in SCRIPT and EXPIRES in SCRIPT
TIMED = SCRIPT.replace(CLOCK, "local now = tonumber(table.remove(ARGV))\n").replace(EXPIRES, "")

rates = st.builds(Rate, st.integers(1, 40), st.sampled_from([0.001, 1.0, 7.0, 60.0]), st.none() | st.integers(1, 8))
pauses = st.one_of(st.just(0), st.integers(0, SECOND), st.sampled_from([SECOND // n for n in (1, 3, 7, 40)]))


class Asked:
    """The script, put to the server by hand."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client
        self._script = server.client.register_script(TIMED)
        self._client.flushall()

    def take(self, limits: dict[str, Rate], now: int, patience: int = 0) -> list[int]:
        """By how many microseconds a call comes too early, for each limit."""
        arguments: list[Any] = [*map(numbers_of, limits.values()), patience, now]
        early: list[int] = self._script(keys=list(limits), args=arguments)
        return early


def exact(rate: Rate) -> Law:
    return Law(rate, per_second=SECOND)


@given(rates, st.lists(st.tuples(pauses, st.sampled_from("ab")), max_size=30))
@settings(max_examples=examples(60))
def test_it_lets_pass_what_the_law_allows_and_nothing_else(
    running: RedisServer, rate: Rate, calls: list[tuple[int, str]]
) -> None:
    """Call by call, to the microsecond, for each key on its own."""
    asked, now = Asked(running), START
    laws = {"a": exact(rate), "b": exact(rate)}

    for pause, key in calls:
        now += pause
        allowed = laws[key].allows(now)
        assert (asked.take({key: rate}, now)[0] <= 0) is allowed
        if allowed:
            laws[key].passed.append(now)


@given(rates, st.lists(st.tuples(pauses, st.sampled_from([0, 0, 0, HOUR, -HOUR])), max_size=30))
@settings(max_examples=examples(40))
def test_a_clock_that_jumps_lets_no_more_pass(running: RedisServer, rate: Rate, calls: list[tuple[int, int]]) -> None:
    """By the time that went forwards; and a jump back keeps no caller out for longer than a step."""
    asked, now, forwards, law = Asked(running), START, 0, exact(rate)
    parts, step = rate.ticks(SECOND)

    for pause, jump in calls:
        now += pause + jump
        forwards += pause + max(jump, 0)
        allowed = law.allows(forwards)
        (early,) = asked.take({"a": rate}, now)
        assert early <= -(-step // parts)
        if early <= 0:
            assert allowed
            law.passed.append(forwards)


# Of whole microseconds: where a turn is a part of one, calls go a part of one too late, and so the next one too early.
whole = rates.filter(lambda rate: rate.ticks(SECOND)[0] == 1)


@given(whole, whole, st.lists(st.tuples(pauses, st.sampled_from("ab"), st.integers(0, 3 * SECOND)), max_size=20))
@settings(max_examples=examples(40))
def test_all_limits_allow_it_or_nothing_is_taken(
    running: RedisServer, each: Rate, every: Rate, calls: list[tuple[int, str, int]]
) -> None:
    """One for each caller and one for all; and those that wait go at the earliest time that both allow."""
    asked, now = Asked(running), START
    laws = {"a": exact(each), "b": exact(each), "all": exact(every)}

    for pause, caller, patience in calls:
        now += pause
        met = [laws[caller], laws["all"]]
        early = asked.take({caller: each, "all": every}, now, patience)
        sent = now + max(0, *early)
        assert [law.allows(now) for law in met] == [by <= 0 for by in early]
        assert all(law.allows(sent) for law in met)
        if sent - now <= patience:
            for law in met:
                law.passed.append(sent)


def test_observed_traps(running: RedisServer) -> None:
    """Three a second is three a second: nothing is lost to Lua's way of writing numbers. And no rate overflows."""
    asked = Asked(running)
    rate = Rate(3)
    now = [START, START, START, START, START + 333_333, START + 333_334, START + 666_667, START + 1_000_000]

    early = [asked.take({"k": rate}, at)[0] for at in now]

    assert early == [-666_666, -333_333, 0, 333_334, 1, 0, 0, 0]
    huge = Rate(10**9 - 1, per=366 * 86_400.0)
    assert asked.take({"huge": huge}, START)[0] == -(366 * 86_400 * SECOND - 366 * 86_400 * SECOND // (10**9 - 1) - 1)
    assert len(asked.take({"huge": huge}, START)) == 1


def test_a_value_of_others_is_none(running: RedisServer) -> None:
    """A key that holds something else counts as new."""
    asked = Asked(running)
    running.client.set("k", "something else")

    assert asked.take({"k": Rate(1)}, START) == [0]
    assert asked.take({"k": Rate(1)}, START) == [SECOND]


def test_a_key_lasts_as_long_as_it_says_something(server: RedisServer) -> None:
    """Until the whole burst is there again: 10 calls at one a second are 10 seconds, of which none has passed."""
    for calls in (1, 2, 10):
        server.client.flushall()
        for _ in range(calls):
            server.client.eval(SCRIPT, 1, "k", numbers_of(Rate(10, per=10)), 0)

        assert (calls - 1) * 1000 < server.client.pttl("k") <= calls * 1000 + 1
