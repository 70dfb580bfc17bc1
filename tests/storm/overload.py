"""More calls than a server can serve: what `ConcurrencyLimit` keeps of its capacity, and what is left without it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio

from tests.storm.hungry import PATH
from tests.storm.rows import Findings, Row, Scale

COST = 0.04  # seconds of CPU for a call
DEADLINE = 2.0  # seconds: a later answer is of no use
TIMES = 3  # how many times the capacity is asked for
IMPORTANT = 0.2  # the share of calls with a high priority
GOODPUT, SLOWER, SERVED = 0.8, 3.0, 0.95
FINDING = 10.0  # seconds in which another capacity is found
AT_ONCE = 4  # callers that find the peak
SORTS = {"plain": "sync", "async": "asyncio"}


class Answer(NamedTuple):
    """One call. important: had it a high priority? took: seconds until its end."""

    important: bool
    code: grpc.StatusCode
    took: float


class Load(NamedTuple):
    """The calls of a time."""

    seconds: float
    answers: Sequence[Answer]

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return sum(one.code is grpc.StatusCode.OK for one in self.answers) / self.seconds

    def quantile(self, share: float) -> float:
        """The seconds that this share of the good answers took at most."""
        took = sorted(one.took for one in self.answers if one.code is grpc.StatusCode.OK)
        return took[int(share * (len(took) - 1))] if took else DEADLINE

    def served(self, important: bool) -> float:
        """The share of the calls of this priority that had a good answer."""
        codes = [one.code for one in self.answers if one.important is important]
        return codes.count(grpc.StatusCode.OK) / max(len(codes), 1)


class Server:
    """A process that serves, and calls of it."""

    def __init__(self, target: str, process: subprocess.Popen[str]) -> None:
        self._target = target
        self._process = process
        self._random = random.Random(1)

    def cost(self, seconds: float) -> None:
        """What a call costs from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        self.hear()

    def hear(self) -> None:
        """Wait for its next word."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the server has ended: see its output")

    def peak(self, seconds: float) -> float:
        """How many calls a second it serves if a few callers each make one after the other."""
        return asyncio.run(self._called(seconds, None)).goodput

    def load(self, rate: float, seconds: float) -> Load:
        """So many calls a second, at random, whatever becomes of those before."""
        return asyncio.run(self._called(seconds, rate))

    async def _called(self, seconds: float, rate: float | None) -> Load:
        async with grpc.aio.insecure_channel(self._target) as channel:
            stub, answers = channel.unary_unary(PATH), list[Answer]()
            until = time.monotonic() + seconds
            if rate is None:
                await asyncio.gather(*(self._caller(stub, until, answers) for _ in range(AT_ONCE)))
            else:
                await self._arrivals(stub, until, rate, answers)
        return Load(seconds, answers)

    async def _caller(self, stub: grpc.aio.UnaryUnaryMultiCallable, until: float, answers: list[Answer]) -> None:
        while time.monotonic() < until:
            await self._call(stub, answers)

    async def _arrivals(
        self, stub: grpc.aio.UnaryUnaryMultiCallable, until: float, rate: float, answers: list[Answer]
    ) -> None:
        tasks, arrival = [], time.monotonic()
        while (arrival := arrival + self._random.expovariate(rate)) < until:
            await asyncio.sleep(max(arrival - time.monotonic(), 0))
            tasks.append(asyncio.create_task(self._call(stub, answers)))
        await asyncio.gather(*tasks)

    async def _call(self, stub: grpc.aio.UnaryUnaryMultiCallable, answers: list[Answer]) -> None:
        important, began = self._random.random() < IMPORTANT, time.monotonic()
        call = stub(b"", timeout=DEADLINE, metadata=(("x-priority", "10" if important else "0"),))
        code = await call.code()
        answers.append(Answer(important, code, time.monotonic() - began))


@contextmanager
def server(sort: str, limited: bool) -> Generator[Server]:
    """Start one, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{Path(folder) / 'hungry.sock'}"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.storm.hungry", target, sort, "yes" if limited else "no"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        with process:
            try:
                made = Server(target, process)
                made.hear()
                made.cost(COST)
                yield made
            finally:
                process.kill()


def findings(scale: Scale) -> Findings:
    """Both stacks, one after the other."""
    return Findings([row for sort in SORTS for row in rows(sort, scale.seconds / 2)])


def rows(sort: str, seconds: float) -> list[Row]:
    """What one stack makes of an overload, with and without the limit."""
    with server(sort, limited=False) as bare:
        peak = bare.peak(seconds)
        bare.load(TIMES * peak, DEADLINE)
        collapsed = bare.load(TIMES * peak, seconds)
    with server(sort, limited=True) as limited:
        limited.peak(DEADLINE)
        calm = limited.load(peak / 2, seconds)
        limited.load(TIMES * peak, FINDING)
        crowded = limited.load(TIMES * peak, seconds)
        found = [row for cost in (2 * COST, COST) for row in changed(limited, peak * COST / cost, cost, seconds)]
    size = f"{len(crowded.answers):,} calls"
    slower = crowded.quantile(0.99) / calm.quantile(0.99)
    kept, important = crowded.goodput / peak, crowded.served(important=True)
    made = [
        Row("served without a limit, of the peak", size, f"{collapsed.goodput / peak:.0%}"),
        Row("served with the limit, of the peak", size, f"{kept:.0%}", f"{GOODPUT:.0%}", kept >= GOODPUT),
        Row("99th percentile at half load", "", f"{1e3 * calm.quantile(0.99):.0f} ms"),
        Row("times that under overload", "", f"{slower:.1f}", f"{SLOWER:g}", slower <= SLOWER),
        Row("of high priority served", size, f"{important:.0%}", f"{SERVED:.0%}", important >= SERVED),
        Row("of low priority served", size, f"{crowded.served(important=False):.0%}"),
        *found,
    ]
    return [row._replace(scenario=f"{TIMES} × the capacity, {SORTS[sort]}") for row in made]


def changed(limited: Server, peak: float, cost: float, seconds: float) -> list[Row]:
    """Another capacity in the middle of the overload: what is served once there was time to find it."""
    limited.cost(cost)
    limited.load(TIMES * peak, FINDING)
    load = limited.load(TIMES * peak, seconds)
    kept, what = load.goodput / peak, "halved" if cost > COST else "doubled"
    size = f"{len(load.answers):,} calls"
    return [Row(f"{FINDING:g} s after it was {what}", size, f"{kept:.0%}", f"{GOODPUT:.0%}", kept >= GOODPUT)]
