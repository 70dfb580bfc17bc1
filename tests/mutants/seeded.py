"""The seeded faults, read from the TOML files beside this one: where each is, the line as it is, and as it is broken."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
AREAS = {"core": 20, "batteries": 20, "guards": 20, "drop-in": 10, "kit": 10}  # area: how many faults it has at least


@dataclass(frozen=True)
class Mutant:
    """One line of the source, broken.

    area:   the name of the file it is read from.
    name:   what goes wrong, in a few words.
    file:   below src/.
    line:   as it is; the file has it once. broken: what stands in its place.
    tests:  what is run first, since it is likely to notice; paths below tests/.
    before: True if the tests below noticed it before the suite was sped up (commit a063c12). None: that is not known, or
            the line was not there yet.
    """

    area: str
    name: str
    file: str
    line: str
    broken: str
    tests: tuple[str, ...]
    before: bool | None = None

    def patched(self, source: str) -> str:
        """The source with the fault in it; ValueError if the line is not there, or more than once."""
        lines = source.splitlines(keepends=True)
        places = [place for place, line in enumerate(lines) if line.strip() == self.line]
        if len(places) != 1:
            raise ValueError(f"{self.area}: {self.name}: {self.file} has the line {len(places)} times: {self.line}")
        (place,) = places
        whole = lines[place]
        indent = whole[: len(whole) - len(whole.lstrip())]
        lines[place] = f"{indent}{self.broken}\n"
        return "".join(lines)


def mutants() -> list[Mutant]:
    """All of them, area by area."""
    return [
        Mutant(area=area, **{**row, "tests": tuple(row["tests"])})
        for area in AREAS
        for row in tomllib.loads((HERE / f"{area}.toml").read_text("utf-8"))["mutant"]
    ]
