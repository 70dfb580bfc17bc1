"""`python -m bench.hot_instructions`: instructions of the isolated hot loops, by call and by message of a stream.

What `bench.isolated` times, counted by valgrind: it repeats within some ten instructions, whatever else the machine does.

`python -m bench.hot_instructions sync` counts one stack; `… sync client/responses` those with this in their name.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import cast

from bench import families, hot
from bench.about import about
from bench.arms import RAW, Arm
from bench.fakes import STREAM
from bench.families.bare import FAMILY as BARE
from bench.instructions import can_count
from bench.isolated import loop_of
from bench.marks import counted, marked
from bench.places import DIRECTIONS, SIDES, Mode

MODES: tuple[Mode, ...] = ("sync", "aio")
CALLS = 200
"""Unary calls, or one stream of `STREAM` messages, between two marks."""


def arms(mode: Mode) -> Iterator[Arm]:
    """Raw, and ours: calls through 0, 1 and 5 layers, streams without a tap, with one and with two."""
    for side in SIDES:
        yield Arm(mode, side, RAW, "noop", 0)
        for count in (1, 5):
            yield Arm(mode, side, "interpose", "noop", count)
        for direction in DIRECTIONS:
            yield Arm(mode, side, RAW, direction, 0)
            for count in (0, 1, 2):
                yield Arm(mode, side, "interpose", direction, count)


def play(mode: Mode, wanted: str) -> None:
    """Run the loops between marks."""
    events = asyncio.new_event_loop()
    asyncio.set_event_loop(events)
    ours = families.load()[0]["interpose"]
    for arm in arms(mode):
        if wanted in arm.name:
            loop: hot.Loop = loop_of(arm, BARE if arm.family == RAW else ours, events)
            times = 1 if arm.what in DIRECTIONS else CALLS
            loop(times)
            gc.collect()
            gc.freeze()
            marked(arm.name, lambda loop=loop, times=times: loop(times), 1)  # type: ignore[misc]


def report(wanted: str, modes: tuple[Mode, ...]) -> None:
    """Count them, and say what ours adds."""
    print(about())
    for mode in modes:
        counts, raw = counted(1, "bench.hot_instructions", "play", mode, wanted), 0.0
        for name, count in counts.items():
            streams = any(f"/{direction}/" in name for direction in DIRECTIONS)
            each = count / (STREAM if streams else CALLS)
            if f"/{RAW}/" in name:
                raw = each
            print(f"| {name} | {each:,.0f} | {each - raw:+,.0f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(cast("Mode", sys.argv[2]), sys.argv[3])
    elif can_count():
        modes = [mode for mode in MODES if mode in sys.argv[1:]]
        report(sys.argv[2] if len(sys.argv) > 2 else "", tuple(modes) or MODES)
    else:
        print("skipped: valgrind is missing")
