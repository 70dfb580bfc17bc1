"""What we promised a layer would cost, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench import instructions
from bench.figures import Figures, Results
from bench.places import DIRECTIONS, MODES, SIDES

OURS = "interpose"
THEIRS = "grpc-interceptor"

FIVE_LAYERS = {"sync/client": 1.03, "aio/client": 1.01, "sync/server": 1.03, "aio/server": 1.03}
"""CPU of client and server together with five no-op layers on one side, over raw grpcio."""

TEN_TO_FIVE = 1.01
"""The same with ten layers, over five."""

SLOPE_NS = 300.0
SLOPE_SHARE = 1 / 4
"""One more no-op layer, isolated: absolute, and as a share of grpc-interceptor's."""

OBSERVE_SHARE = 2.0
"""A layer that looks at the outcome, as a multiple of one that does not."""

UNTAPPED_NS = 15.0
"""Per message where no layer looks. `yield from` costs 10 ns, a step of a wrapping async generator 40."""

FIRST_TAP_NS = 150.0
FURTHER_TAP_NS = 60.0
"""Per message: one tap over raw, and each one after it."""


COUNTED = {
    "sync/client": (OURS, 10, 22),
    "sync/server": (instructions.ATTACHED, 12, 28),
    "aio/client": (OURS, 0, 20),
    "aio/server": (instructions.ATTACHED, 12, 28),
}
"""Thousands of instructions that one and five no-op layers add to raw: at most 0.6 and 0.3 of what grpcio's own do."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target at one place: the figure, its limit, and whether it is met."""

    target: str
    place: str
    figure: float
    limit: float
    form: str

    @property
    def met(self) -> bool:
        return self.figure <= self.limit

    def __str__(self) -> str:
        return f"{self.form.format(self.figure)} {'PASS' if self.met else 'MISS'}"


def verdicts(results: Results) -> list[Verdict]:
    """All targets that this run has figures for."""
    found = [*_wire(results.wire), *_unary(results.isolated), *_streams(results.isolated)]
    return [*found, *_counted(results.instructions)]


def _places() -> Iterator[tuple[str, str, str]]:
    for mode in MODES:
        for side in SIDES:
            yield side, f"{mode} {side}", f"{mode}/{side}"


def _wire(figures: Figures) -> Iterator[Verdict]:
    for _, place, path in _places():
        if five := figures.get(f"{path}/{OURS}/noop/5/ratio"):
            limit = FIVE_LAYERS[path]
            yield Verdict(f"5 no-op layers: ratio to raw ≤ {limit}", place, five.middle, limit, "{:.3f}")
    for _, place, path in _places():
        if ten := figures.get(f"{path}/{OURS}/noop/ten-to-five"):
            yield Verdict(f"10 layers over 5: ratio ≤ {TEN_TO_FIVE}", place, ten.middle, TEN_TO_FIVE, "{:.3f}")


def _unary(figures: Figures) -> Iterator[Verdict]:
    for _, place, path in _places():
        ours = figures.get(f"{path}/{OURS}/noop/slope_ns")
        if ours is None:
            continue
        yield Verdict(f"one more layer ≤ {SLOPE_NS:.0f} ns", place, ours.middle, SLOPE_NS, "{:.0f} ns")
        if theirs := figures.get(f"{path}/{THEIRS}/noop/slope_ns"):
            share = ours.middle / theirs.middle
            yield Verdict(f"… ≤ {SLOPE_SHARE:.2f} of grpc-interceptor's", place, share, SLOPE_SHARE, "{:.2f}")
        observing = figures[f"{path}/{OURS}/observe/slope_ns"].middle / ours.middle
        yield Verdict(
            f"… that sees the outcome ≤ {OBSERVE_SHARE:.0f} no-op ones",
            place,
            observing,
            OBSERVE_SHARE,
            "{:.2f}",
        )


def _streams(figures: Figures) -> Iterator[Verdict]:
    limits = (
        ("untapped_ns", "without a tap ≤", UNTAPPED_NS),
        ("first_ns", "one tap ≤", FIRST_TAP_NS),
        ("further_ns", "each further tap ≤", FURTHER_TAP_NS),
    )
    for direction in DIRECTIONS:
        for measure, words, limit in limits:
            for _, place, path in _places():
                if found := figures.get(f"{path}/{OURS}/{direction}/{measure}"):
                    target = f"per message, {direction}: {words} {limit:.0f} ns"
                    yield Verdict(target, place, found.middle, limit, "{:.0f} ns")


def _counted(counts: Mapping[str, float]) -> Iterator[Verdict]:
    for place, (family, *limits) in COUNTED.items():
        for count, limit, found in zip(
            instructions.COUNTS, limits, instructions.added(counts, f"{place}/{family}"), strict=False
        ):
            words = f"instructions that n = {count} adds ≤ {limit} k"
            yield Verdict(words, place.replace("/", " "), found / 1000, limit, "{:.1f} k")
