"""What is said once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from interpose.mechanisms.once import Once


def test_a_name_is_new_once() -> None:
    """And others are new all the same."""
    once = Once(10)

    assert [once.first(name) for name in "abab"] == [True, True, False, False]


def test_no_more_than_so_many_are_kept() -> None:
    """Of all others it is never said that they are new."""
    once = Once(2)

    assert [once.first(name) for name in "abcdc"] == [True, True, False, False, False]
    assert len(once._names) == 2


def test_threads_that_ask_together() -> None:
    """One of them is the first, and the bound holds; a name that several wanted takes one place."""
    once, together = Once(3), Barrier(8)

    def ask(_: int) -> list[bool]:
        together.wait()
        return [once.first(name) for name in "abcdef"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))

    assert sum(map(sum, answers)) == len(once._names) == 3
    assert not once._places


def test_a_place_is_given_back() -> None:
    """By the thread that was slower with the same name."""

    class Slow(dict[str, int]):
        def __contains__(self, name: object) -> bool:
            return False  # looked before the other one wrote

    once = Once(2)
    once._names = Slow(a=7)

    assert not once.first("a")
    assert len(once._places) == 2
