"""Instructions of a real unary RPC, client and server in one process, counted by valgrind.

What the CPU does, cold caches aside: it repeats within a percent whatever else the machine does, so it holds targets
that a clock cannot see.

`python -m bench.instructions sync client native 5 LOOPS` makes the RPCs of one arm; valgrind counts from outside.
"""

from __future__ import annotations

import asyncio
import gc
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from bench import families
from bench.arms import RAW, Arm
from bench.families import Family
from bench.families.bare import FAMILY as BARE
from bench.families.ours import noop
from bench.places import SIDES, Mode, Side
from bench.processes import ROOT, command, pin
from bench.serve import METHOD, aecho, echo, full_pool, register
from interpose import intercept_server

OURS = "interpose"
ATTACHED = "interpose, intercept_server"
"""Ours a second time, put around the handlers when they are registered."""

COUNTS = (1, 5)
"""How many layers; the slope shows in the other levels."""

FEWER = 100
"""Loops of the run that is subtracted: what starts, warms up and ends is in both."""

MORE = 1600
"""330 loops repeat within 7,000 instructions, these within 1,500."""

WARM = 50
"""RPCs before each run, so that caches of methods and handlers are filled."""

_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


# --- in the process that is counted -----------------------------------------------------------------------------------


def perform(arm: Arm, loops: int) -> None:
    """Make that many RPCs."""
    with tempfile.TemporaryDirectory() as directory:
        target = f"unix:{directory}/s"
        if arm.mode == "sync":
            _perform_sync(arm, target, loops)
        else:
            asyncio.run(_perform_aio(arm, target, loops))


def _perform_sync(arm: Arm, target: str, loops: int) -> None:
    server = grpc.server(full_pool(), interceptors=_on(arm, "server").sync_server(arm.what, arm.count))
    if arm.family == ATTACHED:
        server = intercept_server(server, *[noop] * arm.count)
    register(server, echo)
    server.add_insecure_port(target)
    server.start()
    with grpc.insecure_channel(target) as channel:
        layered: Any = _on(arm, "client").sync_client(channel, arm.what, arm.count)
        call: Any = layered.unary_unary(METHOD, *CODEC, _registered_method=True)
        message = StringValue(value="x" * 32)
        for left in range(WARM + loops):
            call(message)
            if left == WARM:
                gc.freeze()
    server.stop(None).wait()


async def _perform_aio(arm: Arm, target: str, loops: int) -> None:
    server = grpc.aio.server(interceptors=_on(arm, "server").aio_server(arm.what, arm.count))
    if arm.family == ATTACHED:
        server = intercept_server(server, *[noop] * arm.count)
    register(server, aecho)
    server.add_insecure_port(target)
    await server.start()

    def dial(layers: Sequence[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(target, interceptors=layers)

    channel: Any = _on(arm, "client").aio_client(dial, arm.what, arm.count)
    call: Any = channel.unary_unary(METHOD, *CODEC, _registered_method=True)
    message = StringValue(value="x" * 32)
    for left in range(WARM + loops):
        await call(message)
        if left == WARM:
            gc.freeze()
    await channel.close()
    await server.stop(None)


CODEC = (StringValue.SerializeToString, StringValue.FromString)


def _on(arm: Arm, side: Side) -> Family:
    """What stands on a side."""
    return families.load()[0].get(arm.family, BARE) if arm.side == side else BARE


# --- from outside -----------------------------------------------------------------------------------------------------


def can_count() -> bool:
    """Whether valgrind is here."""
    return shutil.which("valgrind") is not None


def arms(mode: Mode) -> Iterator[Arm]:
    """Raw, and one and five layers of each family on each side."""
    found, _ = families.load()
    yield Arm(mode, "client", RAW, "noop", 0)
    for side in SIDES:
        names = [name for name, family in found.items() if family.covers(mode, side)]
        names += [ATTACHED] * (OURS in names and side == "server")
        yield from (Arm(mode, side, name, "noop", count) for name in names for count in COUNTS)


def counted(*program: object) -> int:
    """Instructions of a process that runs a module of ours with these arguments."""
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    module, *arguments = program
    line = [*valgrind, *command(str(module), *arguments)]
    done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - our own
    found = _COUNTED.search(done.stderr)
    if found is None:
        raise SystemExit(f"valgrind did not say how many instructions it counted:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def added(counts: Mapping[str, float], stem: str) -> tuple[float, ...]:
    """What one and five layers of this family add to raw; empty where they were not counted."""
    base = counts.get(f"{stem.split('/', 1)[0]}/client/{RAW}/noop/0")
    layered = [counts.get(f"{stem}/noop/{count}") for count in COUNTS]
    return () if base is None or None in layered else tuple(each - base for each in layered if each is not None)


def per_call(arm: Arm, more: int = MORE) -> float:
    """Instructions of one RPC."""
    program = ("bench.instructions", arm.mode, arm.side, arm.family, arm.count)
    return (counted(*program, more) - counted(*program, FEWER)) / (more - FEWER)


if __name__ == "__main__":
    pin()
    perform(
        Arm(cast("Mode", sys.argv[1]), cast("Side", sys.argv[2]), sys.argv[3], "noop", int(sys.argv[4])),
        int(sys.argv[5]),
    )
