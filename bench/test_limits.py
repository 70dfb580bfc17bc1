"""The benchmark of limits: that what it times really happens."""

from __future__ import annotations

import pytest

from bench import limits


def test_what_is_timed_runs() -> None:
    """Each loop, and the best slice of it counts."""
    took = limits.best(limits.layers(), 1)

    assert set(took) == {"no-op", "by_method", "by_identity"}
    assert min(took.values()) > 0


def test_decisions() -> None:
    """Ours and those of the package that they are compared with."""
    pytest.importorskip("limits", reason="only the environment of the benchmarks has the package `limits`")

    for loop in limits.decisions().values():
        loop(100)


@pytest.mark.needs("redis")
def test_round_trips() -> None:
    """Every contender gets an answer."""
    pytest.importorskip("limits", reason="only the environment of the benchmarks has the package `limits`")

    with limits.redis_server() as path:
        for loop in limits.round_trips(path).values():
            loop(3)


def test_a_verdict() -> None:
    """The table says what is met."""
    assert limits.verdict("x", 100, 1000, 0.125) == "| x | 0.10 of 1.00 µs | ×0.100 | at most ×0.125: PASS |"
    assert limits.verdict("x", 200, 1000, 0.125).endswith("at most ×0.125: MISS |")
