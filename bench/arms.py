"""The arms of the race: which middleware, how many layers of it, where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.families import Family
from bench.places import COUNTS, SIDES, Mode, Side, What

OBSERVERS = 5
"""On the wire, the layers that look at the outcome are measured in this number only."""

RAW = "raw"
AGAIN = "again"
"""Raw a second time, under another name: what it differs by from raw is noise."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One contender: `count` layers of `family` on one `side`, the other side raw."""

    mode: Mode
    side: Side
    family: str
    what: What
    count: int

    @property
    def name(self) -> str:
        """Its place in the results: sync/client/native/noop/5."""
        return f"{self.mode}/{self.side}/{self.family}/{self.what}/{self.count}"

    @property
    def socket(self) -> str:
        """The file name of its server's socket. All client arms talk to the same raw server."""
        if self.side == "client":
            return "raw.sock"
        return f"{self.family}-{self.what}-{self.count}.sock"


def raw(mode: Mode) -> Arm:
    """Plain grpcio, to which all others are compared."""
    return Arm(mode, "client", RAW, "noop", 0)


def wire_arms(mode: Mode, families: Mapping[str, Family]) -> list[Arm]:
    """All arms of the wire measurement: raw first, then raw again on each side, then the layers."""
    again = [Arm(mode, side, AGAIN, "noop", 0) for side in SIDES]
    return [raw(mode), *again, *_layered(mode, families)]


def _layered(mode: Mode, families: Mapping[str, Family]) -> Iterator[Arm]:
    for side in SIDES:
        for name, family in families.items():
            if not family.covers(mode, side):
                continue
            for count in COUNTS:
                yield Arm(mode, side, name, "noop", count)
            yield Arm(mode, side, name, "observe", OBSERVERS)
