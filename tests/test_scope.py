"""A scope: what belongs to an incoming RPC is cancelled once, and what comes too late is refused."""

import threading
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from interpose._scope import Scope


def test_its_end_cancels_what_belongs_to_it() -> None:
    """All that was added and not taken out again."""
    called: list[str] = []
    scope = Scope()
    first, second = (lambda: called.append("first")), (lambda: called.append("second"))

    assert scope.add(first) and scope.add(second)
    scope.discard(first)
    scope.close()

    assert called == ["second"]


def test_after_its_end_nothing_is_added() -> None:
    """Who comes too late is told so, and not called."""
    called: list[str] = []
    scope = Scope()
    scope.close()

    assert not scope.add(lambda: called.append("late"))
    scope.close()

    assert called == []


@given(st.lists(st.sampled_from(["add", "close"]), max_size=8))
def test_added_means_called_at_the_end(steps: list[str]) -> None:
    """Whatever the order: `add` gives True just if the cancel is called, once."""
    scope, accepted, called = Scope(), 0, [0]

    def cancel() -> None:
        called[0] += 1

    for step in steps:
        if step == "close":
            scope.close()
        else:
            accepted += scope.add(lambda: cancel())
    scope.close()

    assert called[0] == accepted


def test_taken_back_while_it_ends() -> None:
    """Who added it may take it back just when the scope is about to call it: then nothing is called."""

    class Emptied(dict[Any, None]):
        """Has something when it is looked at, and nothing when that is taken."""

        def __bool__(self) -> bool:
            return True

    scope = Scope()
    scope._cancels = Emptied()
    scope.close()

    assert scope.over


def test_added_while_it_ends() -> None:
    """The same when another thread closes it meanwhile."""
    for _ in range(200):
        accepted, called = raced()

        assert len(called) == accepted


def raced() -> tuple[int, list[int]]:
    """Twenty are added while another thread closes the scope: how many were accepted, and which were called."""
    scope, ready, called = Scope(), threading.Barrier(2), []

    def close() -> None:
        ready.wait()
        scope.close()

    closing = threading.Thread(target=close)
    closing.start()
    ready.wait()
    accepted = sum(scope.add(partial(called.append, number)) for number in range(20))
    closing.join()
    return accepted, called
