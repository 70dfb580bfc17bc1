"""`python -m tests.storm`: the long form of the storm, in one table; exit status 1 if a bound was not held."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.storm.rows import LONG, Row, Scale, table

PARTS = ("errors", "tails", "outage", "overload", "faults", "once", "flat")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the user asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be given several times")
    parser.add_argument("--seconds", type=float, default=LONG.seconds, help="how long each kind of fault goes on")
    parser.add_argument("--calls", type=int, default=LONG.calls, help="how many calls, where they are counted")
    parser.add_argument("--restarts", type=int, default=LONG.restarts, help="how many, where they are counted")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw pictures into this folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, one after the other; gives the exit status."""
    asked = options(arguments)
    rows: list[Row] = []
    for part in asked.only or PARTS:
        sys.stderr.write(f"==> {part}\n")
        found = import_module(f"tests.storm.{part}").findings(Scale(asked.seconds, asked.calls, asked.restarts))
        rows += found.rows
        sys.stderr.writelines(f"{note}\n" for note in found.notes)
        if asked.pictures is not None:
            asked.pictures.mkdir(parents=True, exist_ok=True)
            for name, svg in found.pictures.items():
                (asked.pictures / f"storm-{name}.svg").write_text(svg, "utf-8")
    sys.stdout.write(table(rows) + "\n")
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # grpc itself tells of each connection that breaks
    sys.exit(main())
