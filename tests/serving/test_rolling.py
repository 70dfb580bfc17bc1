"""Workers are replaced under load; the long form is `make rolling`."""

import pytest

from tests.serving.rolling import counted, roll


def test_both_books_are_compared() -> None:
    """Begun and unanswered is lost, begun twice is doubled, and what failed without having begun was refused."""
    answers = {"a": "OK", "b": "UNAVAILABLE x", "c": "CANCELLED y", "d": "CUT", "e": "OK"}

    count = counted(answers, ["a", "b", "d", "e", "e"])

    assert (count.sent, count.begun, count.answered) == (5, 4, 2)
    assert (count.lost, count.doubled, count.refused) == (2, 1, 1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_call_that_was_begun_is_lost_or_begun_twice() -> None:
    """Unary calls and streams of three clients, while both workers are replaced."""
    count = roll(1, 3, 60)

    assert count.begun
    assert (count.lost, count.doubled) == (0, 0), count
    # grpc refuses what comes until a client has read GOAWAY: one call of 24, a few on a machine that is busy.
    assert count.refused * 5 <= count.begun, count
