"""Instructions of a part of a process: valgrind's callgrind counts between two marks.

It writes what it has counted whenever the process asks for the id of its parent, so many things are counted in one process
that starts once. All threads count, those of grpc's core too.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median

from bench.processes import ROOT, command

TIMES = 3
"""How often each is counted; the median is taken."""

_MARK = "getppid"
_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


# --- in the process that is counted -----------------------------------------------------------------------------------


def marked(name: str, play: Callable[[], object], loops: int) -> None:
    """Play it so many times, three times over, between marks; and say its name."""
    for _ in range(TIMES):
        os.getppid()
        for _ in range(loops):
            play()
        os.getppid()
    print(name, flush=True)


async def amarked(name: str, play: Callable[[], Awaitable[object]], loops: int) -> None:
    """The same on an event loop."""
    for _ in range(TIMES):
        os.getppid()
        for _ in range(loops):
            await play()
        os.getppid()
    print(name, flush=True)


# --- from outside -----------------------------------------------------------------------------------------------------


def counted(loops: int, module: str, *arguments: object) -> dict[str, float]:
    """Instructions of one loop of each that the module marks, by name."""
    with tempfile.TemporaryDirectory() as directory:
        out = f"--callgrind-out-file={directory}/counts"
        line = ["valgrind", "--tool=callgrind", f"--dump-before={_MARK}", out, *command(module, *arguments)]
        done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - our own
        counts = iter([*_counts(Path(directory))])
    return {name: median([next(counts) for _ in range(TIMES)]) / loops for name in done.stdout.splitlines()}


def _counts(directory: Path) -> Iterator[int]:
    """What was counted between two marks, in order: every second of the files, since the others are of between."""
    files = sorted(directory.glob("counts.*"), key=lambda file: int(file.suffix[1:]))
    for file in files[1::2]:
        total = _TOTAL.search(file.read_text())
        assert total is not None
        yield int(total[1])
