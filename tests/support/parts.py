"""The parts of the suite that the commands run: `--part=…`, and the markers that say what belongs to which.

Without `--part` pytest runs all that is chosen in one process, one after the other, as it always does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.support.coverings import covering

Items = list[pytest.Item]

TOGETHER = {"tests/demo"}  # folders whose files go to one worker


def _whole(items: Items) -> Items:
    return [item for item in items if not _marked(item, "alone", "rare")]


def _together(items: Items) -> Items:
    return covering(_whole(items))


def _alone(items: Items) -> Items:
    return [item for item in items if _marked(item, "alone") and not _marked(item, "rare")]


def _quick(items: Items) -> Items:
    return covering([item for item in items if not _marked(item, "alone", "slow", "needs", "rare")])


def _interop(items: Items) -> Items:
    return [item for item in items if _marked(item, "needs", "rare", "peers")]


PARTS: dict[str, Callable[[Items], Items]] = {
    "whole": _whole,
    "together": _together,
    "alone": _alone,
    "quick": _quick,
    "interop": _interop,
}


def _marked(item: pytest.Item, *markers: str) -> bool:
    return any(marker.name in markers for marker in item.iter_markers())  # get_closest_marker looks anew for each name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part",
        choices=PARTS,
        help="whole: what may share the machine. together: of that, each value of a test's parameters once. alone: what may "
        "not share it. quick: as together, without slow tests. interop: what needs more than Python packages.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: it needs the machine to itself, and runs last, after all others")
    config.addinivalue_line("markers", "peers: it fills cells of docs/peers.md, so `make interop` runs it too")
    config.addinivalue_line("markers", "rare: only `make interop` runs it, since it takes long and seldom changes")
    config.addinivalue_line("markers", "slow: it takes more than a second, and `make quick` leaves it out")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Two workers for each core: a third of its time a test waits for a wire, a process or a deadline.

    Under coverage two Pythons run side by side, with one worker on each for each core.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # xdist reads it itself
    return (os.cpu_count() or 1) * (1 if "COVERAGE_RUN" in os.environ else 2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """With `--dist=loadfile`: the files of the demo go to one worker, for they look at one run of it."""
    return Rooms(config, log) if config.getoption("dist") == "loadfile" else None


class Rooms(LoadFileScheduling):
    """A worker takes a file at a time, or all of a folder whose files share what takes long to make."""

    def _split_scope(self, nodeid: str) -> str:  # what xdist has for subclasses to change
        folder = nodeid.rpartition("/")[0]
        return folder if folder in TOGETHER else super()._split_scope(nodeid)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that have no test of the part: to import them would take longer, for each worker, than many a test."""
    part = config.getoption("part")
    if part not in ("alone", "quick") or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text("utf-8")
    none = "mark.alone" not in text if part == "alone" else _NOT_QUICK.search(text) is not None
    return True if none else None


_NOT_QUICK = re.compile(r"^pytestmark = .*\bmark\.(alone|slow|needs|rare)\b", re.MULTILINE)


@pytest.hookimpl(trylast=True)  # behind -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = config.getoption("part")
    if part is None:
        return
    chosen = PARTS[part](items)
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = _longest_first(chosen)


def _longest_first(items: Items) -> Items:
    """Files with slow tests before the others: begun last, one of them would keep one core while the others have ended."""
    long = {item.path for item in items if _marked(item, "slow")}
    return sorted(items, key=lambda item: item.path not in long)
