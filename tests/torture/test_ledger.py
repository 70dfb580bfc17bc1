"""The ledger, the short form: all that begins ends, once, in all places."""

import dataclasses
from collections import Counter

import pytest

from interpose import Kind
from tests.torture.book import CANCELLED, OK, OUTERMOST, Book, Layer
from tests.torture.ledger import PLACES, differences, plans

SHORT = 600  # RPCs, 100 of each pair of client and server; the long form has thirty-two times as many


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_ledger_has_no_difference() -> None:
    """Delays, aborts, exceptions, cancels, deadlines and dropped streams: started is finished, one outcome per caller."""
    assert differences(seed=8, count=SHORT) == []


def test_the_same_seed_makes_the_same_plan() -> None:
    """A run can be repeated from its seed; another seed is another run."""
    assert plans(1, 100) == plans(1, 100) != plans(2, 100)


def test_the_plan_visits_all_places() -> None:
    """Each place is visited as often as any other, and each act of the handler meets each ending of the caller."""
    planned = plans(8, SHORT)
    visits = Counter((plan.client, plan.server, plan.kind) for plan in planned)

    assert set(visits) == set(PLACES)
    assert max(visits.values()) - min(visits.values()) <= 1
    assert len({(plan.act, plan.ending) for plan in planned}) == 7 * 4
    assert len({(plan.kind, plan.act) for plan in planned}) == len(Kind) * 7


def one_rpc() -> Book:
    """A book of one RPC that has been performed well."""
    plan = dataclasses.replace(plans(1, 1)[0], act="answer", ending="wait")
    book = Book([plan])
    book.call(0)
    book.note(0, "client", "started", 1)
    book.note(0, "client", "finished", -1)
    book.outcome(0, (OK, plan.answers()))
    book._told[0].append(OK)
    return book


def test_an_rpc_that_went_well_is_no_difference() -> None:
    """What began has ended, the caller got what the interceptor was told and what the handler gave."""
    assert one_rpc().settle(0) == []


def test_what_began_twice_or_never_ended_is_a_difference() -> None:
    """An interceptor that started and did not finish is named, with the plan of its RPC."""
    book = one_rpc()
    book.note(0, "client", "started", 1)

    (difference,) = book.settle(0)

    assert difference.startswith("client: 2 started, 1 finished; Plan(number=0")


def test_two_outcomes_are_a_difference() -> None:
    """A caller gets one outcome, not two."""
    book = one_rpc()
    book.outcome(0, (OK, []))

    (difference,) = book.settle(0)

    assert difference.startswith("the caller got 2 outcomes")


def test_another_outcome_than_planned_is_a_difference() -> None:
    """A code that nobody planned is one, and so is a code that differs from what the outermost interceptor was told."""
    book = one_rpc()
    book._outcomes[0] = [(CANCELLED, [])]

    found = book.settle(0)

    assert [line.partition(";")[0] for line in found] == [
        f"the caller got CANCELLED, {OUTERMOST} was told ['OK']",
        "the caller got CANCELLED",
    ]


def test_a_layer_that_is_never_told_is_a_difference() -> None:
    """A flow that was left suspended has sent a call and was told of no end."""
    book = Book(plans(1, 1))
    layer = Layer(book, "client tap")
    suspended = layer.send(None, 0)  # type: ignore[arg-type]
    next(suspended)

    (difference,) = book.settle(0)

    assert difference.startswith("client tap: 1 sent, 0 told")
