"""`python -m tests.torture`: the long forms of all torture, in one table; exit status 1 if there is any defect."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TypeAlias

PARTS = ("grid", "ledger", "torn", "storm", "process")

Row: TypeAlias = tuple[str, str, int]  # what was tried, how much of it, defects


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the user asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be given several times")
    return parser.parse_args(arguments)


def timed(rows: Callable[[], list[Row]]) -> tuple[list[Row], float]:
    """The rows of a part, and how many seconds it took."""
    started = time.monotonic()
    return rows(), time.monotonic() - started


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the last two are numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place >= len(line) - 2 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, one after the other; gives the exit status."""
    lines = [("what", "size", "seconds", "defects")]
    defects = 0
    for part in options(arguments).only or PARTS:
        sys.stderr.write(f"==> {part}\n")
        rows, seconds = timed(import_module(f"tests.torture.{part}").table_rows)
        for position, (what, size, found) in enumerate(rows):
            # A part is timed as a whole: its first row has the seconds.
            lines.append((what, size, f"{seconds:.1f}" if position == 0 else "", str(found)))
            defects += found
    sys.stdout.write(table(lines) + "\n")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
