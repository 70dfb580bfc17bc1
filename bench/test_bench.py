"""The harness itself: its arithmetic, and that what it times really happens. `python -m pytest bench`."""

from __future__ import annotations

import asyncio

import pytest

from bench import instructions
from bench.arms import Arm
from bench.fakes import STREAM
from bench.families import counting
from bench.families import load as load_families
from bench.figures import Results, isolated_row, wire_row
from bench.isolated import arms, loop_of
from bench.places import DIRECTIONS, MODES, Mode
from bench.report import text
from bench.stats import slope, spread
from bench.targets import verdicts
from bench.wire import Sample, quiet_sample


def test_slope_of_a_line() -> None:
    """Points on a line have that line's slope, wherever it starts."""
    assert slope([(1, 107.0), (5, 135.0), (10, 170.0)]) == pytest.approx(7)


def test_spread_surrounds_the_median() -> None:
    """Quartiles hold half of the samples; the interval of the median is narrower, and shrinks with more samples."""
    few, many = spread(range(101)), spread([x / 100 for x in range(10_001)])

    assert (few.low, few.middle, few.high) == (25, 50, 75)
    assert few.low < few.floor < few.middle < few.ceiling < few.high
    assert many.error < few.error


def test_one_sample_has_no_spread() -> None:
    """A single sample is all that is known."""
    only = spread([3.0])

    assert (only.middle, only.low, only.high, only.error) == (3, 3, 3, 0)


def test_ratios_are_paired_with_the_median_of_raw() -> None:
    """Of the three turns of raw, the middle one divides the arms of its round."""
    raw = [Sample(100, 100, 200), Sample(110, 90, 200), Sample(900, 900, 1800)]
    layered = {f"sync/client/native/noop/{n}": [Sample(110 + 20 * n, 100, 300)] for n in (1, 5, 10)}

    row = wire_row("sync", {"sync/client/raw/noop/0": raw, **layered})

    assert row["sync/client/native/noop/5/ratio"] == pytest.approx((210 + 100) / (110 + 100))
    assert row["sync/client/native/noop/slope_us"] == pytest.approx(0.020)


class Disturbed:
    """A runner whose first samples a stranger disturbed."""

    def __init__(self, *disturbances: float) -> None:
        self.left = list(disturbances)

    def run(self, arm: object) -> Sample:
        return Sample(100, 100, 200 * self.left.pop(0))

    def close(self) -> None:
        """Nothing is open."""


def test_a_disturbed_sample_is_taken_again() -> None:
    """Until one is quiet; if none is, the least disturbed counts."""
    arm = Arm("sync", "client", "raw", "noop", 0)

    assert quiet_sample(Disturbed(1.5, 1.2, 1.0), arm) == Sample(100, 100, 200, takes=3)
    assert quiet_sample(Disturbed(1.5, 1.4, 1.3, 1.2, 1.3, 1.4), arm).disturbance == pytest.approx(1.2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_layers_see_every_message(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer of each family is shown each message of a stream: nobody is fast by not doing it."""
    seen: list[object] = []
    monkeypatch.setattr(counting, "see", seen.append)
    if "interpose" in load_families()[0]:
        monkeypatch.setattr("bench.families.ours.see", seen.append)
    events = asyncio.new_event_loop()
    streams = [(arm, family) for arm, family in arms(mode) if arm.what in DIRECTIONS]

    counts = {}
    for arm, family in streams:
        seen.clear()
        loop_of(arm, family, events)(1)
        counts[arm.name] = len(seen)
    events.close()

    assert counts == {arm.name: arm.count * STREAM for arm, _ in streams}


def test_what_layers_take_in_instructions() -> None:
    """Beside raw of their own stack; the targets are of the ways to attach that we recommend."""
    counts = {"sync/client/raw/noop/0": 600_000.0, "aio/client/raw/noop/0": 800_000.0}
    counts |= {f"sync/server/{instructions.ATTACHED}/noop/{n}": 600_000.0 + 10_000 * n for n in (1, 5)}
    counts |= {f"sync/server/native/noop/{n}": 600_000.0 + 20_000 * n for n in (1, 5)}

    found = verdicts(Results(instructions=counts))
    shown = text(Results(instructions=counts))

    assert [(verdict.figure, verdict.met) for verdict in found] == [(10, True), (50, False)]
    assert "+10 k" in shown
    assert "+50 k" in shown
    assert "×0.50" in shown


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_what_valgrind_counts_really_happens(mode: Mode) -> None:
    """Each arm makes its RPCs."""
    for arm in instructions.arms(mode):
        instructions.perform(arm, loops=2)


def test_what_taps_add() -> None:
    """The first tap is beside raw, further ones are a slope."""
    place = "aio/server"
    best = {f"{place}/interpose/responses/{n}": 100.0 + 30 * n for n in (0, 1, 2, 5)}
    raw = {f"{mode}/{side}/raw/{way}/0": 90.0 for mode in MODES for side in ("client", "server") for way in DIRECTIONS}

    row = isolated_row("aio", {**best, **raw})

    assert row[f"{place}/interpose/responses/untapped_ns"] == pytest.approx(10)
    assert row[f"{place}/interpose/responses/first_ns"] == pytest.approx(40)
    assert row[f"{place}/interpose/responses/further_ns"] == pytest.approx(30)
