"""One small run of the demo, in this process, that several files look at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

CALLS = 2  # of each kind on each leg: every method is called


@dataclass
class Run:
    """What was run, and what was told of its progress: each leg with its steps, and how often it told of one."""

    story: Any = None  # an interpose.demo.run.Story, which cannot be imported without the extra
    asked: list[tuple[str, int]] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    def progress(self, name: str, steps: int) -> Callable[[], None]:
        self.asked.append((name, steps))
        return lambda: self.told.update([name])


@pytest.fixture(scope="session")
def ended() -> Run:
    """A run that has ended; tests may look at it and not change it."""
    from interpose.demo.run import run

    ended = Run()
    ended.story = asyncio.run(run(1, CALLS, ended.progress))
    return ended
