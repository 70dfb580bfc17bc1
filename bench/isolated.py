"""The middleware alone, without a network: hot loops over fake channels and handlers.

Exact to a few nanoseconds, and optimistic: on the wire caches are cold and the same code costs
two to six times more. So it serves for slopes and for comparing, not for what a user pays.

`python -m bench.isolated sync ROUNDS` measures in one fresh process, and prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from bench import families, hot
from bench.arms import RAW, Arm
from bench.fakes import STREAM
from bench.fakes.aio import dial
from bench.fakes.sync import FakeChannel
from bench.families import Family
from bench.families.bare import FAMILY as BARE
from bench.places import COUNTS, DIRECTIONS, SIDES, TAPS, Mode, What
from bench.processes import can_pin, pin, printed_by

SLICE = 4_000_000
"""Nanoseconds one timed slice takes at least: long beside the cost of reading the clock."""

SLICES = 3
"""Slices of one point in one round."""

Best = dict[str, float]
"""Nanoseconds per call or message by name of arm: the fastest slice, since noise only ever adds."""


@dataclass(frozen=True, slots=True)
class Point:
    """Something to time: `loop(times)` takes so many nanoseconds for `times * units` calls or messages."""

    name: str
    loop: hot.Loop
    times: int
    units: int

    def time(self) -> float:
        """Nanoseconds per unit, the best of `SLICES`."""
        return min(self.loop(self.times) for _ in range(SLICES)) / (self.times * self.units)


def point(arm: Arm, loop: hot.Loop) -> Point:
    """The arm's loop, warmed up and calibrated."""
    return Point(arm.name, loop, calibrated(loop), STREAM if arm.what in DIRECTIONS else 1)


def arms(mode: Mode) -> Iterator[tuple[Arm, Family]]:
    """All that is timed: unary calls, then streams of either direction.

    No tap on a stream of ours means a layer that looks at no message, not no layer.
    """
    found, _ = families.load()
    for side in SIDES:
        covering = {name: family for name, family in found.items() if family.covers(mode, side)}
        yield Arm(mode, side, RAW, "noop", 0), BARE
        for name, family in covering.items():
            for what in cast("tuple[What, ...]", ("noop", "observe")):
                for count in COUNTS:
                    yield Arm(mode, side, name, what, count), family
        for direction in DIRECTIONS:
            yield Arm(mode, side, RAW, direction, 0), BARE
            for name, family in covering.items():
                for count in (0, *TAPS) if name == "interpose" else TAPS:
                    yield Arm(mode, side, name, direction, count), family


def loop_of(arm: Arm, family: Family, events: asyncio.AbstractEventLoop) -> hot.Loop:
    """The hot loop of an arm."""
    streams = arm.what if arm.what in DIRECTIONS else "unary"
    layers: tuple[What, int] = ("noop", 1) if streams != "unary" and arm.count == 0 else (arm.what, arm.count)
    if arm.mode == "sync":
        make_sync = hot.SYNC[arm.side, streams]
        if arm.side == "client":
            return make_sync(family.sync_client(FakeChannel(), *layers))
        return make_sync(family.sync_server(*layers))
    make_aio = hot.AIO[arm.side, streams]
    if arm.side == "client":
        return hot.on_event_loop(lambda: make_aio(family.aio_client(dial, *layers)), events)
    return hot.on_event_loop(lambda: make_aio(family.aio_server(*layers)), events)


def calibrated(loop: hot.Loop) -> int:
    """How often to repeat the loop so that it takes `SLICE`, found by doubling."""
    times = 1
    while loop(times) < SLICE:
        times *= 2
    return times


def measure(mode: Mode, rounds: int) -> Best:
    """Time every point of the mode `rounds` times, each round in a new order, and keep the best of each."""
    if can_pin():
        pin()
    events = asyncio.new_event_loop()
    asyncio.set_event_loop(events)
    points = [point(arm, loop_of(arm, family, events)) for arm, family in arms(mode)]
    gc.collect()
    gc.freeze()
    best = {each.name: each.time() for each in points}
    for _ in range(rounds - 1):
        for each in random.sample(points, len(points)):
            best[each.name] = min(best[each.name], each.time())
    return best


def in_fresh_process(mode: Mode, rounds: int) -> Best:
    """`measure`, in a process of its own."""
    return cast("Best", printed_by("bench.isolated", mode, rounds))


if __name__ == "__main__":
    print(json.dumps(measure(cast("Mode", sys.argv[1]), int(sys.argv[2]))))
