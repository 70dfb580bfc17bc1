"""Tally: counts that threads add to without a lock."""

import threading

from interpose.mechanisms.tally import Tally


def test_each_name_is_counted_apart() -> None:
    """To look changes nothing."""
    tally = Tally("a", "b")
    for _ in range(3):
        tally.add("a")

    assert (tally["a"], tally["b"]) == (3, 0)
    assert (tally["a"], tally["b"]) == (3, 0)


def test_no_count_is_lost() -> None:
    """However many threads add."""
    tally = Tally("a")

    def add() -> None:
        for _ in range(10_000):
            tally.add("a")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tally["a"] == 80_000
