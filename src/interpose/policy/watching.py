"""Following a policy file: read it anew when it changes, and say in the log what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

Stamp: TypeAlias = tuple[int, int, int] | None

_log = logging.getLogger("interpose")


class Followed(Protocol):
    """A `Policy`."""

    path: Path

    def reload(self) -> bool:
        """Read the file anew; was anything in it different?"""
        ...  # pragma: no cover  a protocol


def follow(policy: Followed) -> None:
    """Read the file anew; one with faults is not used, and the log says why."""
    try:
        changed = policy.reload()
    except (OSError, ValueError) as error:
        _log.error("the policy stays as it was: %s", error)
        return
    _log.info("%s %s", policy.path, "is in force" if changed else "says what it said before")


@contextmanager
def watched(path: Path, every: float, tell: Callable[[], object]) -> Generator[None]:
    """Call `tell` when the file has been written or replaced, looking every `every` seconds, on a thread of its own."""
    over = threading.Event()
    stamp = _stamp(path)  # before the thread runs, so that no change is overlooked

    def watch() -> None:
        seen = stamp
        while not over.wait(every):
            before, seen = seen, _stamp(path)
            if seen not in (before, None):
                tell()

    thread = threading.Thread(target=watch, name="interpose-policy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _stamp(path: Path) -> Stamp:
    """What differs when a file has been written, or when a link points to another one; None if it is not there."""
    try:
        found = path.stat()
    except OSError:  # it is being replaced
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
