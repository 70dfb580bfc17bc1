"""The comparison of the drop-in with its original: that both do the same work."""

from __future__ import annotations

import asyncio

import pytest

from bench import compat
from bench.fakes import STREAM
from bench.families import counting
from bench.places import DIRECTIONS


@pytest.mark.slow
def test_both_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every arm both contenders run, and their layers see as many messages."""
    seen: list[object] = []
    monkeypatch.setattr(counting, "see", seen.append)
    events = asyncio.new_event_loop()

    counts = {}
    for arm in compat.arms():
        for package in (compat.ORIGINAL, compat.DROP_IN):
            seen.clear()
            compat.loop_of(arm, package, events)(1)
            counts[arm, package] = len(seen)
    events.close()

    assert counts == {(arm, package): arm.count * STREAM * (arm.what in DIRECTIONS) for arm, package in counts}


def test_user_code_is_moved_to_another_base() -> None:
    """The same `intercept`, on the class of the same name."""
    for arm in compat.arms():
        theirs, ours = (compat.interceptors(arm, package)[0] for package in (compat.ORIGINAL, compat.DROP_IN))

        assert type(theirs).__name__ == type(ours).__name__
        assert not isinstance(ours, type(theirs).__mro__[1] if arm.what != "status" else type(theirs))


def test_slower_is_a_miss() -> None:
    """The table says so, arm by arm."""
    names = [arm.name for arm in compat.arms()]
    ratios = {name: [0.5, 0.6, 0.7] for name in names} | {names[0]: [1.1, 1.2, 1.3]}

    lines = list(compat.table(ratios))[2:]

    assert lines[0].endswith("| ×1.200 ±0.100 | MISS |")
    assert all(line.endswith("PASS |") for line in lines[1:])
