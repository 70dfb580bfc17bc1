"""When to ask what may be out of order, and when a line in the log is due."""

from interpose.mechanisms.outage import Outage
from interpose.mechanisms.seldom import Seldom


def test_failures_in_a_row() -> None:
    """Three of them, and it is left alone; one that is answered in between begins anew."""
    outage = Outage(3, 1.0)

    for now in (0.0, 0.1):
        outage.failed(now)
    assert outage.may_ask(0.2) and not outage.on
    assert outage.answered() is False
    for now in (0.3, 0.4, 0.5):
        assert outage.may_ask(now)
        outage.failed(now)

    assert outage.on and not outage.may_ask(0.6)


def test_one_tries_it() -> None:
    """After the pause, and again after another if that fails; the first answer ends it."""
    outage = Outage(1, 1.0)
    outage.failed(0.0)

    assert [outage.may_ask(now) for now in (0.9, 1.0, 1.1, 1.9)] == [False, True, False, False]
    outage.failed(1.9)
    assert [outage.may_ask(now) for now in (2.8, 2.9, 3.0)] == [False, True, False]
    assert outage.answered() is True
    assert outage.answered() is False
    assert outage.may_ask(3.0)


def test_one_that_never_answers_its_try() -> None:
    """As when it was cancelled: another tries it after the pause."""
    outage = Outage(1, 1.0)
    outage.failed(0.0)

    assert [outage.may_ask(now) for now in (1.0, 1.5, 2.0)] == [True, False, True]


def test_seldom() -> None:
    """Said at the first time, and then once in a period, with how often it happened since."""
    seldom = Seldom(60)

    assert [seldom.happened(now) for now in (5, 6, 64, 65, 66, 200)] == [1, 0, 0, 3, 0, 2]
