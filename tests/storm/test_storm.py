"""The storm, the short form: laws and counts; of what is measured in seconds only what a busy machine cannot change."""

from collections import Counter

import pytest

from interpose.mechanisms.budget import RetryBudget
from tests.storm import errors, faults, flat, once, outage, overload, tails
from tests.storm.__main__ import PARTS, options
from tests.storm.book import Book
from tests.storm.pictures import Axis, Band, Chart, Line, thin, whole
from tests.storm.rows import Row, Scale, table
from tests.storm.server import ORDERS, WRITES

SHORT = 0.3  # seconds: each fault happens once


@pytest.mark.slow
def test_refused_calls_are_sent_again_and_executed_once() -> None:
    """Of 30 % refused, a call fails only when all its attempts were; none is lost, hung, answered or executed twice."""
    run = errors.run(30, 4, 300)

    assert (run.broken, run.early, run.doubles) == (0, 0, 0)
    assert run.share > 0.95
    assert run.sent > 1.2 * run.calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sort"),
    [
        ("resets in mid-stream", "async"),
        ("black holes", "plain"),
        ("kill -9 and restart", "async"),
        ("two servers, one is stopped", "plain"),
    ],
)
def test_no_call_is_lost_hung_or_answered_twice(name: str, sort: str) -> None:
    """Each ends in time and once; what is not safe is executed once at most; then all is well again."""
    run = faults.storm(name, Scale(SHORT, 0), [sort])

    assert run.faults and run.calls[ORDERS]
    assert run.broken == 0
    assert run.doubles[ORDERS] == run.doubles[WRITES] == 0
    assert run.recovery < faults.RECOVERY_LIMIT


@pytest.mark.alone
@pytest.mark.parametrize(("stack", "sort"), [("Retry()", "plain"), ("both", "async")])
def test_a_rolling_restart_executes_nothing_twice(stack: str, sort: str) -> None:
    """Calls that nobody has declared safe, and were executed without an answer, are not sent again; others are."""
    run = once.run(stack, sort, 1)

    assert (run.doubles, run.broken) == (0, 0)
    assert run.unanswered and run.again


@pytest.mark.alone
def test_a_hedge_cuts_the_tail() -> None:
    """One call in twenty takes 500 ms more: with a hedge hardly any does, at no more than 10 % more calls."""
    calls = 400
    tail = tails.run(calls, tails.hedge(), pace=0.03)

    assert tail.broken == 0
    assert tail.load <= 1 + tails.MORE_CALLS + 3 / calls
    assert tail.quantile(0.965) < tails.SLOW


@pytest.mark.alone
def test_a_breaker_spares_a_server_that_is_down() -> None:
    """Hardly any of the calls made while it refuses all reach it; calls succeed again soon after it is back."""
    run = outage.run(2.0, outage.breaker())

    assert run.broken == 0
    assert run.load() <= 0.2  # the long form asks for 0.05; this one looks at half a second
    assert run.recovery <= outage.OPEN_FOR + outage.PACE + outage.SLACK


@pytest.mark.alone
def test_a_budget_keeps_retries_from_multiplying_an_outage() -> None:
    """With the default budget hardly a call is sent again to a server that refuses all; without one all were, thrice."""
    run = outage.run(1.0, outage.retry(RetryBudget()))

    assert run.broken == 0
    assert run.load() <= 1.5


@pytest.mark.alone
@pytest.mark.parametrize("sort", overload.SORTS)
def test_under_overload_every_call_is_served_refused_or_too_late(sort: str) -> None:
    """With a limit on both stacks. How many, in which order, how fast: in simulated time, test_concurrency_limit_laws.py."""
    with overload.server(sort, limited=True) as server:
        server.cost(0.005)
        load = server.load(300, 0.5)

    assert load.goodput > 0
    assert {one.code.name for one in load.answers} <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"}


@pytest.mark.slow
def test_nothing_grows() -> None:
    """After each round of a storm there are no more threads, tasks and open flows than after the first."""
    rests, broken = flat.run(2, 120)

    assert broken == 0
    assert [rest.flows for rest in rests] == [0, 0, 0]
    assert max(rest.threads for rest in rests) <= rests[0].threads
    assert max(rest.tasks for rest in rests) <= rests[0].tasks


# --- what judges it ---------------------------------------------------------------------------------------------------


def test_the_book_finds_what_is_wrong() -> None:
    """No outcome, two of them, a message twice, an answer without an execution, and two executions: each is one."""
    book = Book(1.0, services=(ORDERS,))
    with book.call() as answered:  # number 0: unary
        answered.messages.append("0:0")
        book.told(answered)
    with book.call() as doubled:  # number 1: a response stream
        doubled.messages += [f"1:{place}" for place in (0, 1, 1, 2, 3, 4)]
        book.told(doubled)
        book.told(doubled)
    with book.call() as lost:  # what is no outcome of an RPC
        raise KeyError(lost.number)
    answered.began -= 60

    verdict = book.verdict(Counter({answered.number: 2}))

    assert (verdict.lost, verdict.hung, verdict.twice, verdict.unexecuted) == (1, 1, 1, 1)
    assert verdict.doubles == {ORDERS: 1}


def test_a_table_names_each_scenario_once() -> None:
    """And says of a bound whether it was held, of what is only shown nothing."""
    rows = [
        Row("loss", "9 calls", "0", "0", scenario="rain"),
        Row("x", "", "2", "1", held=False, scenario="rain"),
        Row("y", "", "3"),
    ]

    assert table(rows).splitlines() == [
        "scenario  what  size     measured  bound  held",
        "rain      loss  9 calls         0      0  yes",
        "          x                     2      1  NO",
        "          y                     3",
    ]


def test_a_picture_is_drawn_to_scale() -> None:
    """A curve runs from corner to corner where it has the range of its axes, on a logarithmic one as well."""
    x = Axis("seconds", 1, 100, whole(1, 100, 99), logarithmic=True)
    chart = Chart(
        "<Title>",
        "",
        x,
        Axis("calls", 0, 2, []),
        [Line("a", "red", [(1, 0), (10, 1), (100, 2)], (1, 1))],
        Band("b", 1, 10),
    )

    assert 'points="64.0,342.0 430.0,210.0 796.0,78.0"' in chart.svg()
    assert "&lt;Title&gt;" in chart.svg()
    assert thin([(n, n) for n in range(1000)], 10)[-1] == (999, 999)


def test_its_options() -> None:
    """A part may be chosen, and every part is there."""
    assert options(["--only", "tails", "--seconds", "2"]).only == ["tails"]
    assert set(PARTS) == {"errors", "faults", "flat", "once", "outage", "overload", "tails"}
