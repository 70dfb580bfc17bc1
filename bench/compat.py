"""`python -m bench.compat`: the drop-in beside the package that it stands in for, the same user code on both.

Hot loops without a network, as in `bench.isolated`: both contenders are timed in turns, slice by slice, and a ratio is
formed within each turn. Below 1 the drop-in is the quicker one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import grpc

from bench import hot
from bench.fakes.sync import FakeChannel
from bench.families import packaged
from bench.isolated import calibrated
from bench.places import DIRECTIONS, MODES, SIDES
from bench.processes import can_pin, pin, printed_by
from bench.stats import Spread, spread

ORIGINAL, DROP_IN = "grpc_interceptor", "interpose.compat.grpc_interceptor"
PROCESSES = 4
ROUNDS = 15
COUNTS = (1, 5)

LIMIT = 1.02
"""What counts as not slower. The same code under two names is off by up to so much, from process to process."""

Ratios = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Arm:
    """What is compared: `count` interceptors that do `what`, under one kind of RPC."""

    mode: str
    side: str
    streams: str
    what: str
    count: int

    @property
    def name(self) -> str:
        layers = f"{self.count} × " if self.count > 1 else ""
        return f"{self.mode} {self.side}, {self.streams}: {layers}{self.what}"


def arms() -> Iterator[Arm]:
    """Every place that both have: not the asyncio client."""
    for mode in MODES:
        for side in SIDES:
            if (mode, side) == ("aio", "client"):
                continue
            for streams in ("unary", *DIRECTIONS):
                for what in ("noop", *({streams} - {"unary"}), *(("status",) if side == "server" else ())):
                    yield from (Arm(mode, side, streams, what, count) for count in COUNTS)


def interceptors(arm: Arm, package: str) -> list[Any]:
    """User code, on the classes of the package."""
    module = import_module(package)
    if arm.what == "status":
        kind = module.ExceptionToStatusInterceptor if arm.mode == "sync" else module.AsyncExceptionToStatusInterceptor
    else:
        told: Any = {
            ("sync", "client"): packaged.CLIENTS,
            ("sync", "server"): packaged.SERVERS,
            ("aio", "server"): packaged.AIO_SERVERS,
        }[arm.mode, arm.side]
        kind = ported(told[arm.what], module)
    return [kind() for _ in range(arm.count)]


def ported(kind: type, module: Any) -> type:
    """The class with its base taken from another package."""
    (base,) = kind.__bases__
    return type(kind.__name__, (getattr(module, base.__name__),), {"intercept": vars(kind)["intercept"]})


def loop_of(arm: Arm, package: str, events: asyncio.AbstractEventLoop) -> hot.Loop:
    """The hot loop of one contender."""
    stack = interceptors(arm, package)
    if arm.mode == "aio":
        return hot.on_event_loop(lambda: hot.AIO[arm.side, arm.streams](stack), events)
    if arm.side == "client":
        return hot.SYNC[arm.side, arm.streams](grpc.intercept_channel(FakeChannel(), *stack))
    return hot.SYNC[arm.side, arm.streams](stack)


def measure() -> Ratios:
    """The ratios of each arm, drop-in over original, a number per round."""
    if can_pin():
        pin()
    events = asyncio.new_event_loop()
    asyncio.set_event_loop(events)
    timed = {arm.name: timer(loop_of(arm, DROP_IN, events), loop_of(arm, ORIGINAL, events)) for arm in arms()}
    gc.collect()
    gc.freeze()
    names = list(timed)
    return {name: [timed[name]() for _ in range(ROUNDS)] for name in random.sample(names, len(names))}


def timer(ours: hot.Loop, theirs: hot.Loop) -> Callable[[], float]:
    """One round: both in turns, whoever comes first; the best slice of each, since noise only ever adds."""
    times = calibrated(theirs)

    def one_round() -> float:
        best = {ours: float("inf"), theirs: float("inf")}
        for loop in random.sample([ours, theirs] * 3, 6):
            best[loop] = min(best[loop], loop(times))
        return best[ours] / best[theirs]

    ours(times)
    return one_round


def table(ratios: Ratios) -> Iterator[str]:
    """Markdown, a line per arm."""
    yield "| | ratio to grpc-interceptor | |"
    yield "| --- | ---: | --- |"
    for name, figure in {arm.name: spread(ratios[arm.name]) for arm in arms()}.items():
        yield f"| {name} | ×{figure.middle:.3f} ±{figure.error:.3f} | {'PASS' if passes(figure) else 'MISS'} |"


def passes(figure: Spread) -> bool:
    return figure.middle <= LIMIT


def main() -> None:
    """Measure in fresh processes, and print."""
    merged: Ratios = {}
    for process in range(PROCESSES):
        print(f"process {process + 1} of {PROCESSES}", file=sys.stderr, flush=True)
        for name, found in printed_by("bench.compat", "once").items():
            merged.setdefault(name, []).extend(found)
    print("\n".join(table(merged)))


if __name__ == "__main__":
    if sys.argv[1:] == ["once"]:
        print(json.dumps(measure()))
    else:
        main()
