"""`interpose serve` beside servers written by hand: from the start to the first answer, and calls in a second.

    python -m bench.runner --starts 20 --rounds 200

Both are started, and both are called, in turns: what the machine does meanwhile falls on both. The figures are ratios
of neighbours, by hand = 1. CPU is what to trust on a machine that has other things to do. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from bench.by_hand import METHOD
from bench.processes import ROOT, command
from bench.stats import Spread, spread

APPS = {"sync": "app", "asyncio": "async_app"}
SOON = [
    ("grpc.initial_reconnect_backoff_ms", 10),
    ("grpc.min_reconnect_backoff_ms", 10),
    ("grpc.max_reconnect_backoff_ms", 10),
]
CALLS = 200  # of a round
AT_ONCE = 8  # calls under way at once
WARM = 2  # rounds that do not count
PATIENCE = 60.0  # seconds


def by_hand(mode: str, socket: str) -> list[str]:
    """How to start the server written by hand."""
    return command("bench.by_hand", mode, socket)


def served(mode: str, socket: str) -> list[str]:
    """How to start the same with `interpose serve`."""
    return command("interpose", "serve", f"bench.by_hand:{APPS[mode]}", "--uds", socket, "--log-level", "error")


Start = Callable[[str, str], list[str]]


@dataclass(frozen=True)
class Running:
    """A server that runs, and what it took to its first answer: seconds, and seconds of CPU."""

    say: Any
    pid: int
    first: tuple[float, float]


@contextmanager
def running(start: Start, mode: str, folder: str) -> Generator[Running]:
    """A server from its start to its end."""
    socket = str(Path(folder) / start.__name__)
    begun = perf_counter()
    process = subprocess.Popen(start(mode, socket), cwd=ROOT)  # noqa: S603 - our own
    try:
        with grpc.insecure_channel(f"unix:{socket}", [*SOON, ("grpc.use_local_subchannel_pool", 1)]) as channel:
            say = channel.unary_unary(METHOD, StringValue.SerializeToString, StringValue.FromString)
            say(StringValue(value="hello"), timeout=PATIENCE, wait_for_ready=True)
            yield Running(say, process.pid, (perf_counter() - begun, cpu(process.pid)))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def cpu(pid: int) -> float:
    """Seconds that the threads of a process have run. Linux counts them in nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def starts(mode: str, times: int) -> Iterator[tuple[str, Spread]]:
    """From the start to the first answer, over that of the server written by hand."""

    def once(start: Start) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder, running(start, mode, folder) as server:
            return server.first

    pairs = [(once(served), once(by_hand)) for _ in range(times + 1)][1:]  # the first one compiles
    for number, what in enumerate(("start to first answer, seconds", "start to first answer, CPU")):
        yield what, spread([ours[number] / theirs[number] for ours, theirs in pairs])


def rates(mode: str, rounds: int) -> Iterator[tuple[str, Spread]]:
    """Calls in a second, and CPU of the server for each, over those of the server written by hand."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(served, mode, folder) as ours,
        running(by_hand, mode, folder) as theirs,
    ):
        pairs = [_pair(number, ours, theirs) for number in range(rounds + WARM)][WARM:]
    yield "calls in a second", spread([hand[0] / own[0] for own, hand in pairs])
    yield "CPU of a call", spread([own[1] / hand[1] for own, hand in pairs])


def _pair(number: int, ours: Running, theirs: Running) -> tuple[tuple[float, float], tuple[float, float]]:
    """A round of ours and one of theirs, which goes first every other time."""
    if number % 2:
        return cost(ours), cost(theirs)
    last = cost(theirs)
    return cost(ours), last


def cost(server: Running) -> tuple[float, float]:
    """Of a round: seconds, and seconds of the server's CPU. Several calls are under way at any time."""
    message, before, begun = StringValue(value="hello"), cpu(server.pid), perf_counter()
    pending = [server.say.future(message) for _ in range(AT_ONCE)]
    for _ in range(CALLS // AT_ONCE - 1):
        pending = [_next(server.say, call, message) for call in pending]
    for call in pending:
        call.result()
    return perf_counter() - begun, cpu(server.pid) - before


def _next(method: Any, call: Any, message: Any) -> Any:
    call.result()
    return method.future(message)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    print("| by hand = 1 | sync | asyncio |\n| --- | --- | --- |")
    for measure, count in ((starts, given.starts), (rates, given.rounds)):
        for (what, one), (_, other) in zip(*(measure(mode, count) for mode in APPS), strict=True):
            print(f"| {what} | {_shown(one)} | {_shown(other)} |", flush=True)


def _shown(found: Spread) -> str:
    return f"×{found.middle:.3f} ±{found.error:.3f}"


if __name__ == "__main__":
    main()
