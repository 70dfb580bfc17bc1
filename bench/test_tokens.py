"""The benchmark of tokens: that what it times really happens."""

from __future__ import annotations

from bench import tokens
from bench.limits import best
from interpose.interceptors import Identity


def test_what_is_timed_runs() -> None:
    """Each loop."""
    took = best(tokens.loops(), 1)

    assert set(took) == {"jwt.decode", "first", "repeated"}


def test_a_verifier_that_does_not_wait() -> None:
    """Gives the identity at once, or when it is asked for."""

    def given() -> object:
        return Identity("ann")
        yield

    assert tokens.ended(given()) == tokens.ended(Identity("ann")) == Identity("ann")
