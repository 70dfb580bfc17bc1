"""From samples to figures: what is divided by what, and under which name it is kept.

A figure's name is the arm's, then what was measured: sync/client/native/noop/5/ratio.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median

from bench.arms import RAW, raw
from bench.isolated import Best
from bench.places import COUNTS, DIRECTIONS, SIDES, TAPS, Mode
from bench.stats import Spread, slope, spread
from bench.wire import Round, Sample

Figures = dict[str, Spread]
Row = dict[str, float]
"""The figures of one round or one process by name, before they are summed up."""


@dataclass(slots=True)
class Results:
    """A whole run: where and how it was measured, and what came out."""

    about: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    wire: Figures = field(default_factory=dict)
    isolated: Figures = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)  # of one RPC, by name of arm

    def save(self, path: Path) -> None:
        """Write JSON, for machines and for `--from`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(path: Path) -> Results:
    """Read what `save` wrote."""
    kept = json.loads(path.read_text())
    wire, isolated = ({name: Spread(**each) for name, each in kept[level].items()} for level in ("wire", "isolated"))
    return Results(kept["about"], kept["missing"], wire, isolated, kept.get("instructions", {}))


def summed(rows: Iterable[Row]) -> Figures:
    """Each figure over all rounds or processes."""
    samples = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            samples[name].append(value)
    return {name: spread(each) for name, each in samples.items()}


# Wire


def wire_figures(mode: Mode, rounds: Sequence[Round]) -> Figures:
    """Ratios and differences to raw, paired within each round."""
    return summed(wire_row(mode, each) for each in rounds)


def wire_row(mode: Mode, samples: Round) -> Row:
    """The figures of one round."""
    base = middle(samples[raw(mode).name])
    row: Row = {f"{mode}/takes": mean(sample.takes for turns in samples.values() for sample in turns)}
    for arm, (sample, *_) in samples.items():
        if arm == raw(mode).name:
            row |= absolute(arm, base)
        else:
            row |= compared(arm, sample, base)
    for stem in stems(row, "ratio"):
        row[f"{stem}/ten-to-five"] = row[f"{stem}/10/ratio"] / row[f"{stem}/5/ratio"]
        row[f"{stem}/slope_us"] = slope([(n, row[f"{stem}/{n}/added_us"]) for n in COUNTS])
    return row


def middle(samples: Sequence[Sample]) -> Sample:
    """The median of each clock."""
    return Sample._make(median(clock) for clock in zip(*samples, strict=True))


def absolute(arm: str, base: Sample) -> Row:
    """What raw costs."""
    return {
        f"{arm}/client_us": base.client / 1000,
        f"{arm}/server_us": base.server / 1000,
        f"{arm}/wall_us": base.wall / 1000,
    }


def compared(arm: str, sample: Sample, base: Sample) -> Row:
    """What an arm costs beside raw; `added` is the CPU time of its own side only."""
    own, plain = (sample.client, base.client) if "/client/" in arm else (sample.server, base.server)
    return {
        f"{arm}/ratio": sample.cpu / base.cpu,
        f"{arm}/wall_ratio": sample.wall / base.wall,
        f"{arm}/added_us": (own - plain) / 1000,
    }


# Isolated


def isolated_figures(mode: Mode, processes: Sequence[Best]) -> Figures:
    """Nanoseconds per call or message, and slopes, over all processes."""
    return summed(isolated_row(mode, each) for each in processes)


def isolated_row(mode: Mode, best: Best) -> Row:
    """The figures of one process."""
    row = {f"{arm}/ns": value for arm, value in best.items()}
    for stem in stems(row, "ns"):
        if not stem.endswith(DIRECTIONS):
            row[f"{stem}/slope_ns"] = slope([(n, row[f"{stem}/{n}/ns"]) for n in COUNTS])
    for side in SIDES:
        for direction in DIRECTIONS:
            row |= per_message(row, f"{mode}/{side}", direction)
    return row


def per_message(row: Mapping[str, float], place: str, direction: str) -> Row:
    """What no tap, the first and each further one add to a message, for each family that is there."""
    plain = row[f"{place}/{RAW}/{direction}/0/ns"]
    added: Row = {}
    for stem in stems(row, "ns", last=TAPS[-1]):
        if not (stem.startswith(f"{place}/") and stem.endswith(direction)):
            continue
        if f"{stem}/0/ns" in row:
            added[f"{stem}/untapped_ns"] = row[f"{stem}/0/ns"] - plain
        added[f"{stem}/first_ns"] = row[f"{stem}/1/ns"] - plain
        added[f"{stem}/further_ns"] = slope([(n, row[f"{stem}/{n}/ns"]) for n in TAPS])
    return added


def stems(row: Mapping[str, float], measure: str, last: int = COUNTS[-1]) -> Iterator[str]:
    """The names without their count, of the arms that were measured up to the last count."""
    end = f"/{last}/{measure}"
    return iter([name.removesuffix(end) for name in row if name.endswith(end)])
