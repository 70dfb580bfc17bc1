"""Files that change: what `--reload` watches."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

EVERY = 0.25  # seconds between two looks, as uvicorn's
APART = {"__pycache__", "node_modules", "site-packages"}  # folders whose files are not written by hand


class Changes:
    """The Python files below some folders, and files of their own, and when each was written."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = list(folders)
        self._seen = self._look()

    def since(self) -> list[str]:
        """The files that are new, gone or written since the last look."""
        before, self._seen = self._seen, self._look()
        names = before.keys() | self._seen.keys()
        return sorted(name for name in names if before.get(name) != self._seen.get(name))

    def _look(self) -> dict[str, int]:
        return {name: written for folder in self._folders for name, written in _files(folder)}


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """The files that are watched there, or the file itself, each with the time when it was written."""
    for path in _paths(folder):
        with suppress(FileNotFoundError):  # it has gone meanwhile
            yield str(path), path.stat().st_mtime_ns


def _paths(folder: str) -> Iterator[Path]:
    if Path(folder).is_file():
        yield Path(folder)
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not (name.startswith(".") or name in APART)]
        yield from (Path(where, name) for name in names if name.endswith(".py"))


def watch(folders: Iterable[str], tell: Callable[[list[str]], object], over: threading.Event) -> None:
    """Call `tell` with the files that have changed, until it is over. Runs on a thread of its own."""
    changes = Changes(folders)
    while not over.wait(EVERY):
        if changed := changes.since():
            tell(changed)
