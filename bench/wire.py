"""Real RPCs over a unix socket, client and server process pinned to one core.

Then the wall clock shows the CPU time of both, and neither scheduling nor a second core's caches
blur what is compared. Each round runs each arm once, in an order of its own; what counts is the
ratio to raw within the round.

`python -m bench.wire sync ROUNDS` measures with one fresh pair of processes, and prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from bench import families
from bench.arms import RAW, Arm, wire_arms
from bench.families.bare import FAMILY as BARE
from bench.places import Mode
from bench.processes import ROOT, command, pin, printed_by
from bench.serve import METHOD

CALLS = 20
"""Measured calls of one sample: some 5 ms, which often fit between two turns of other programs."""

WARM_UP = 8
"""Calls before them: each of the server's threads twice, so that cold caches are not the arm's bill."""

RAW_TURNS = 3
"""How often raw runs in a round; their median divides all others, so its noise must be small."""

MESSAGE = StringValue(value="x" * 32)

TAKES = 6
QUIET = 1.02
"""With everything on one core, wall time beyond this multiple of the CPU time went to a stranger, who
left cold caches behind (8 % on a busy machine). Such a sample is taken again, whatever the arm, up to
`TAKES` times in all; then the least disturbed one counts."""


class Sample(NamedTuple):
    """Nanoseconds of one call, mean over `CALLS`; and how often it was taken until it was a quiet one."""

    client: float
    server: float
    wall: float
    takes: float = 1

    @property
    def cpu(self) -> float:
        """What both processes worked."""
        return self.client + self.server

    @property
    def disturbance(self) -> float:
        """1 if nobody else ran meanwhile."""
        return self.wall / self.cpu


Round = dict[str, list[Sample]]
"""The samples of one round by arm: `RAW_TURNS` of raw, one of each other."""


class Clocks:
    """Reads the three clocks. The kernel lets us read another process's CPU clock: no RPC, no pipe."""

    def __init__(self, server: int) -> None:
        # As clock_getcpuclockid(3) computes it: CPUCLOCK_SCHED is 2.
        self._server = (~server << 3) | 2

    def read(self) -> tuple[int, int, int]:
        """Client, server and wall, in nanoseconds from some origin."""
        return time.process_time_ns(), time.clock_gettime_ns(self._server), time.perf_counter_ns()


def since(start: tuple[int, int, int], now: tuple[int, int, int]) -> Sample:
    """What one of `CALLS` calls took between the two readings."""
    client, server, wall = ((after - before) / CALLS for before, after in zip(start, now, strict=True))
    return Sample(client, server, wall)


class Runner(Protocol):
    """Makes calls on one arm after another."""

    def run(self, arm: Arm) -> Sample:
        """Warm up, then measure."""

    def close(self) -> None:
        """Close all channels."""


class SyncRunner:
    """One channel per arm, one call after the other."""

    def __init__(self, arms: Sequence[Arm], directory: str, clocks: Clocks) -> None:
        self._clocks = clocks
        self._found, _ = families.load()
        self._channels = {arm: self._channel(arm, f"unix:{directory}/{arm.socket}") for arm in arms}
        self._stubs = {arm: stub(channel) for arm, channel in self._channels.items()}

    def _channel(self, arm: Arm, target: str) -> grpc.Channel:
        channel = grpc.insecure_channel(target)
        if arm.side == "server":
            return channel
        return self._found.get(arm.family, BARE).sync_client(channel, arm.what, arm.count)

    def run(self, arm: Arm) -> Sample:
        say = self._stubs[arm]
        for _ in range(WARM_UP):
            say(MESSAGE)
        start = self._clocks.read()
        for _ in range(CALLS):
            say(MESSAGE)
        return since(start, self._clocks.read())

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


class AioRunner:
    """The same on an event loop, which turns only while an arm runs."""

    def __init__(self, arms: Sequence[Arm], directory: str, clocks: Clocks) -> None:
        self._clocks = clocks
        self._found, _ = families.load()
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open(arms, directory))

    async def _open(self, arms: Sequence[Arm], directory: str) -> None:
        self._channels = {arm: self._channel(arm, f"unix:{directory}/{arm.socket}") for arm in arms}
        self._stubs = {arm: stub(channel) for arm, channel in self._channels.items()}

    def _channel(self, arm: Arm, target: str) -> grpc.aio.Channel:
        family = BARE if arm.side == "server" else self._found.get(arm.family, BARE)

        def dial(interceptors: Sequence[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
            return grpc.aio.insecure_channel(target, interceptors=interceptors)

        return family.aio_client(dial, arm.what, arm.count)

    def run(self, arm: Arm) -> Sample:
        return self._loop.run_until_complete(self._run(self._stubs[arm]))

    async def _run(self, say: Callable[[StringValue], Any]) -> Sample:
        for _ in range(WARM_UP):
            await say(MESSAGE)
        start = self._clocks.read()
        for _ in range(CALLS):
            await say(MESSAGE)
        return since(start, self._clocks.read())

    def close(self) -> None:
        for channel in self._channels.values():
            self._loop.run_until_complete(channel.close())
        self._loop.close()


def stub(channel: Any) -> Callable[[StringValue], Any]:
    """The multi-callable as generated code makes it."""
    return cast(
        "Callable[[StringValue], Any]",
        channel.unary_unary(
            METHOD,
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
            _registered_method=True,
        ),
    )


@contextmanager
def served(mode: Mode) -> Iterator[tuple[str, int]]:
    """A server process for the mode: the directory of its sockets, and its process id."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        line = command("bench.serve", mode, directory)
        pipe = subprocess.PIPE
        with subprocess.Popen(line, cwd=ROOT, stdin=pipe, stdout=pipe) as process:  # noqa: S603 - our own
            assert process.stdout
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the {mode} server of the benchmark did not start; its error is above")
            yield directory, process.pid  # leaving the block ends its input, and so the server


def measure(mode: Mode, rounds: int) -> list[Round]:
    """Run every arm of the mode `rounds` times, each round in a new order, with one fresh server process."""
    pin()
    found, _ = families.load()
    arms = wire_arms(mode, found)
    with served(mode) as (directory, server):
        make = SyncRunner if mode == "sync" else AioRunner
        runner: Runner = make(arms, directory, Clocks(server))
        turns = [arm for arm in arms for _ in range(RAW_TURNS if arm.family == RAW else 1)]
        one_round(runner, turns)  # connects, compiles chains, fills caches
        gc.collect()
        gc.freeze()
        measured = [one_round(runner, turns) for _ in range(rounds)]
        runner.close()
    return measured


def one_round(runner: Runner, turns: Sequence[Arm]) -> Round:
    """Each turn once, shuffled, so that drift of the machine hits all arms alike."""
    samples: Round = {}
    for arm in random.sample(turns, len(turns)):
        samples.setdefault(arm.name, []).append(quiet_sample(runner, arm))
    return samples


def quiet_sample(runner: Runner, arm: Arm) -> Sample:
    """A sample that no other program disturbed, or the best there is."""
    taken = [runner.run(arm)]
    while taken[-1].disturbance > QUIET and len(taken) < TAKES:
        taken.append(runner.run(arm))
    return min(taken, key=lambda sample: sample.disturbance)._replace(takes=len(taken))


def in_fresh_process(mode: Mode, rounds: int) -> list[Round]:
    """`measure`, in a process of its own."""
    printed = printed_by("bench.wire", mode, rounds)
    return [{arm: [Sample(*row) for row in rows] for arm, rows in each.items()} for each in printed]


if __name__ == "__main__":
    print(json.dumps(measure(cast("Mode", sys.argv[1]), int(sys.argv[2]))))
