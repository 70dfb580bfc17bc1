"""What a scenario finds: rows of the table, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Row(NamedTuple):
    """One thing that was measured, and whether its bound was held. bound: "" for what is only shown."""

    what: str
    size: str
    measured: str
    bound: str = ""
    held: bool = True
    scenario: str = ""


class Scale(NamedTuple):
    """How long a run is. seconds: of a scenario that lasts for a time. calls, restarts: of one that counts."""

    seconds: float
    calls: int
    restarts: int = 0


LONG = Scale(20.0, 20_000, 200)
SHORT = Scale(1.5, 600)


@dataclass
class Findings:
    """The rows of a scenario, its pictures as SVG, by name, and what is worth a line."""

    rows: list[Row] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def broken(self) -> list[Row]:
        """The rows whose bound was not held."""
        return [row for row in self.rows if not row.held]


def table(rows: Sequence[Row]) -> str:
    """Columns of equal width, the measured and the bound to the right; each scenario is named once."""
    lines = [("scenario", "what", "size", "measured", "bound", "held")]
    for before, row in pairwise((Row("", "", ""), *rows)):
        held = ("yes" if row.held else "NO") if row.bound else ""
        lines.append(("" if row.scenario == before.scenario else row.scenario, *row[:4], held))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in {3, 4} else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
