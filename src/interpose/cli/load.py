"""Calls in great number, in one of two loops, on asyncio.

Closed: a number of callers, each of which calls again when it has its answer. The number of calls in flight is fixed, so a
server that slows down is asked less: its bad moments are met by few calls. That is coordinated omission, and what a
closed loop measures is how much a server can take, not what users of it feel.

Open: calls go out at a rate, whether earlier ones have ended or not, as those of many users do. The time of a call is
counted from the moment it was to be sent, so one that waits since the server, or this program, is late, shows it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from interpose._method import Kind
from interpose.cli.latencies import Latencies
from interpose.mechanisms.text import one_line

MAX_MESSAGES = 20  # texts of failures that are kept
TICK = 0.0015  # seconds: selectors round up to the next millisecond
MAX_TEXT = 200  # characters of one

Call = Callable[[], Awaitable[None]]
"""Makes one RPC to its end; raises grpc.RpcError."""


@dataclass(slots=True)
class Tally:
    """What became of the calls: how long they took, by code, and the texts of failures.

    late: how far behind its plan an open loop has been at worst, in seconds. unsent: calls of it that were due, but they
    were not sent, since too many were in flight.
    """

    by_code: dict[str, Latencies] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    late: float = 0.0
    unsent: int = 0
    began: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0  # from the first call to the last end

    @property
    def calls(self) -> int:
        """How many have ended."""
        return sum(latencies.count for latencies in self.by_code.values())

    @property
    def ok(self) -> Latencies:
        """Those of the calls that ended with OK."""
        return self.by_code.get("OK", Latencies())

    def ended(self, seconds: float, error: Any = None) -> None:
        """One call has ended."""
        code = "OK" if error is None else error.code().name
        self.by_code.setdefault(code, Latencies()).add(seconds)
        self.seconds = time.perf_counter() - self.began
        if error is not None:
            text = f"{code}: {one_line(error.details() or '', MAX_TEXT)}"
            if text in self.messages or len(self.messages) < MAX_MESSAGES:
                self.messages[text] += 1


@dataclass(frozen=True, slots=True)
class End:
    """When no more calls are begun: after a number of them, or of seconds, whichever comes first."""

    calls: float = math.inf
    seconds: float = math.inf


async def closed(call: Call, concurrency: int, end: End, tally: Tally) -> None:
    """A number of callers, each of which begins its next call when the last has ended."""
    began = tally.began = time.perf_counter()
    left = end.calls

    async def caller() -> None:
        nonlocal left
        while left > 0 and time.perf_counter() - began < end.seconds:
            left -= 1
            await _timed(call, time.perf_counter(), tally)

    await asyncio.gather(*(caller() for _ in range(concurrency)))


async def opened(call: Call, rate: float, most: int, end: End, tally: Tally) -> None:
    """Begin calls at this rate. most: in flight; one that is due then is counted, and not sent."""
    began = tally.began = time.perf_counter()
    under_way: set[asyncio.Task[None]] = set()
    number = 0
    while number < end.calls and number / rate < end.seconds:
        due = began + number / rate
        await _until(due)
        tally.late = max(tally.late, time.perf_counter() - due)
        number += 1
        if len(under_way) >= most:
            tally.unsent += 1
            continue
        task = asyncio.ensure_future(_timed(call, due, tally))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.wait(under_way)


async def _until(due: float) -> None:
    """Wait until then. asyncio's own clock ticks in milliseconds, which would count as the server's; so the last is awake."""
    await asyncio.sleep(0)  # however late it is: what was begun has to go on
    while (left := due - time.perf_counter()) > 0:  # noqa: ASYNC110  for a time, not for an event
        await asyncio.sleep(max(left - TICK, 0.0))


async def _timed(call: Call, since: float, tally: Tally) -> None:
    try:
        await call()
    except grpc.RpcError as error:
        tally.ended(time.perf_counter() - since, error)
    else:
        tally.ended(time.perf_counter() - since)


def caller(channels: Iterable[Any], path: str, kind: Kind, requests: list[bytes], **options: Any) -> Call:
    """A function that makes the RPC to its end, on one channel after the other; responses are read and thrown away."""
    stubs = itertools.cycle([getattr(channel, kind.value)(path, None, None) for channel in channels])

    async def call() -> None:
        begun = next(stubs)(iter(requests) if kind.request_streaming else requests[0], **options)
        if not kind.response_streaming:
            await begun
            return
        async for _ in begun:
            pass

    return call


async def connect(channel: Any) -> bool:
    """Connect now, so that no call is measured that has to wait for it; False if that cannot be done."""
    state = channel.get_state(try_to_connect=True)
    while state not in {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE}:
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return bool(state is grpc.ChannelConnectivity.READY)
