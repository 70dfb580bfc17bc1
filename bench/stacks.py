"""`python -m bench.stacks`: what a stack costs, client and server instrumented, beside the packages that do the same.

Real unary RPCs on one core, as in `bench.wire`: each round takes one sample of each stack in an order of its own, and a
ratio to raw grpcio is formed within the round. What the packages of the market need is in the group `bench`.

`python -m bench.stacks sync ROUNDS` measures with one fresh pair of processes, and prints JSON;
`python -m bench.stacks serve sync DIRECTORY` is the server of such a pair.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import grpc
import grpc.aio

from bench import full as everything
from bench import serve
from bench.about import about
from bench.families.ours import noop
from bench.places import MODES, Mode
from bench.processes import ROOT, can_pin, command, pin, printed_by
from bench.stats import Spread, spread
from bench.wire import AioRunner, Clocks, Round, Sample, SyncRunner, one_round
from interpose import Interceptor, intercept_channel, intercept_server

RAW, AGAIN = "raw", "raw again"
NOTHING = "a flow that does nothing"
METRICS, THEIR_METRICS = "metrics", "metrics of the market"

UNTRACED, SAMPLED, SOME = (
    "full stack, no tracing",
    "full stack, every trace sampled",
    "full stack, 1 % of traces sampled",
)
LOGGED = f"{UNTRACED}, its lines through `logging`"
THEIR_SAMPLED, THEIR_SOME = f"{SAMPLED}, of the market", f"{SOME}, of the market"

LIMITS = {
    METRICS: {"sync": 1.06, "aio": 1.06},
    UNTRACED: {"sync": 1.22, "aio": 1.20},
    SOME: {"sync": 1.30, "aio": 1.25},
    SAMPLED: {"sync": 1.65, "aio": 1.50},
}
"""CPU of client and server together, over raw grpcio."""

PROCESSES = 4
ROUNDS = 60
RAW_TURNS = 3


# --- stacks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of one family: ours, put around channel and server, or native interceptors, given at their birth."""

    name: str
    mode: Mode
    ours: tuple[Interceptor, ...] = ()
    client: tuple[Any, ...] = ()
    server: tuple[Any, ...] = ()

    @property
    def socket(self) -> str:
        """The file name of its server's socket."""
        return f"{re.sub('[^a-z0-9]+', '-', self.name)}.sock"


def nothing(mode: Mode) -> Stack:
    """What it costs that there is a stack at all."""
    return Stack(NOTHING, mode, ours=(noop,))


def metrics(mode: Mode) -> Stack:
    """`PrometheusMetrics`, with a histogram."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from interpose.contrib.prometheus import PrometheusMetrics  # noqa: PLC0415

    return Stack(METRICS, mode, ours=(PrometheusMetrics(registry=CollectorRegistry(), histogram=True),))


def their_metrics(mode: Mode) -> Stack:
    """py-grpc-prometheus and py-async-grpc-prometheus, each with its histogram."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    registry = CollectorRegistry()
    on_server, on_client = {"enable_handling_time_histogram": True}, {"enable_client_handling_time_histogram": True}
    if mode == "sync":
        from py_grpc_prometheus import prometheus_client_interceptor as client  # noqa: PLC0415
        from py_grpc_prometheus import prometheus_server_interceptor as server  # noqa: PLC0415

        return Stack(
            THEIR_METRICS,
            mode,
            client=(client.PromClientInterceptor(registry=registry, **on_client),),
            server=(server.PromServerInterceptor(registry=registry, **on_server),),
        )
    from py_async_grpc_prometheus import prometheus_async_client_interceptor as aio_client  # noqa: PLC0415
    from py_async_grpc_prometheus import prometheus_async_server_interceptor as aio_server  # noqa: PLC0415

    return Stack(
        THEIR_METRICS,
        mode,
        client=tuple(aio_client.get_client_interceptors(registry=registry, **on_client)),
        server=(aio_server.PromAsyncServerInterceptor(registry=registry, **on_server),),
    )


def full(name: str, share: float | None) -> Callable[[Mode], Stack]:
    """The whole stack; see `bench.full`."""
    return lambda mode: Stack(name, mode, ours=everything.ours(share))


def logged(mode: Mode) -> Stack:
    """The same, with an access log that writes through `logging`."""
    return Stack(LOGGED, mode, ours=everything.ours(None, everything.logger()))


def their_full(name: str, share: float) -> Callable[[Mode], Stack]:
    """The whole stack of the market."""

    def made(mode: Mode) -> Stack:
        client, server = everything.theirs(mode, share, their_metrics(mode))
        return Stack(name, mode, client=client, server=server)

    return made


MAKERS: tuple[Callable[[Mode], Stack], ...] = (
    nothing,
    metrics,
    their_metrics,
    full(UNTRACED, None),
    logged,
    full(SOME, everything.SOME),
    full(SAMPLED, everything.SAMPLED),
    their_full(THEIR_SOME, everything.SOME),
    their_full(THEIR_SAMPLED, everything.SAMPLED),
)


def stacks(mode: Mode) -> list[Stack]:
    """All that can be made here; raw first, and raw again, which shows the noise."""
    made = [Stack(RAW, mode), Stack(AGAIN, mode)]
    for make in MAKERS:
        try:
            made.append(make(mode))
        except ImportError as missing:
            print(f"SKIPPED a stack: {missing}", file=sys.stderr, flush=True)
    return made


# --- client and server ------------------------------------------------------------------------------------------------


def sync_channel(stack: Stack, target: str) -> grpc.Channel:
    """A channel with a stack."""
    channel = grpc.insecure_channel(target)
    for native in reversed(stack.client):  # as grpc.intercept_channel does with several
        channel = native.wrap(channel) if hasattr(native, "wrap") else grpc.intercept_channel(channel, native)
    return intercept_channel(channel, *stack.ours) if stack.ours else channel


def aio_channel(stack: Stack, target: str) -> grpc.aio.Channel:
    """The same on an event loop."""
    channel = grpc.aio.insecure_channel(target, interceptors=stack.client)
    return intercept_channel(channel, *stack.ours) if stack.ours else channel


def sync_server(stack: Stack, target: str) -> Any:
    """A server with a stack, which serves."""
    server: Any = grpc.server(serve.full_pool(), interceptors=stack.server)
    server = intercept_server(server, *stack.ours) if stack.ours else server
    serve.register(server, serve.echo)
    server.add_insecure_port(target)
    server.start()
    return server


async def aio_server(stack: Stack, target: str) -> Any:
    """The same on an event loop."""
    server: Any = grpc.aio.server(interceptors=stack.server)
    server = intercept_server(server, *stack.ours) if stack.ours else server
    serve.register(server, serve.aecho)
    server.add_insecure_port(target)
    await server.start()
    return server


class SyncStacks(SyncRunner):
    """One channel per stack."""

    def _channel(self, arm: Any, target: str) -> grpc.Channel:
        return sync_channel(arm, target)


class AioStacks(AioRunner):
    """The same on an event loop."""

    def _channel(self, arm: Any, target: str) -> grpc.aio.Channel:
        return aio_channel(arm, target)


def serve_sync(directory: str) -> None:
    """Run the server of each sync stack until standard input ends."""
    servers = [sync_server(stack, f"unix:{directory}/{stack.socket}") for stack in stacks("sync")]
    serve.announce()
    sys.stdin.read()
    for server in servers:
        server.stop(None)


async def serve_aio(directory: str) -> None:
    """Run the server of each asyncio stack until standard input ends."""
    servers = [await aio_server(stack, f"unix:{directory}/{stack.socket}") for stack in stacks("aio")]
    serve.announce()
    await serve._end_of_input()
    for server in servers:
        await server.stop(None)


@contextmanager
def served(mode: Mode) -> Iterator[tuple[str, int]]:
    """A server process for the mode: the directory of its sockets, and its process id."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        line = command("bench.stacks", "serve", mode, directory)
        pipe = subprocess.PIPE
        with subprocess.Popen(line, cwd=ROOT, stdin=pipe, stdout=pipe) as process:  # noqa: S603 - our own
            assert process.stdout
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the {mode} server of the benchmark did not start; its error is above")
            yield directory, process.pid  # leaving the block ends its input, and so the server


def measure(mode: Mode, rounds: int) -> list[Round]:
    """Run every stack `rounds` times, each round in a new order, with one fresh server process."""
    if can_pin():
        pin()
    with served(mode) as (directory, server):
        made = stacks(mode)
        make: Any = SyncStacks if mode == "sync" else AioStacks
        runner = make(made, directory, Clocks(server))
        turns: Any = [stack for stack in made for _ in range(RAW_TURNS if stack.name == RAW else 1)]
        one_round(runner, turns)  # connects, compiles chains, fills caches
        gc.collect()
        gc.freeze()
        measured = [one_round(runner, turns) for _ in range(rounds)]
        runner.close()
    return measured


# --- figures ----------------------------------------------------------------------------------------------------------


def ratios(rounds: list[Round]) -> dict[str, Spread]:
    """CPU of client and server together over raw, by stack."""
    return {
        name: spread([each[name][0].cpu / median(raw.cpu for raw in each[RAW]) for each in rounds])
        for name in sorted(rounds[0])  # the rounds are shuffled
        if name != RAW
    }


def table(found: Mapping[str, Mapping[str, Spread]]) -> Iterator[str]:
    """Markdown, a line per stack."""
    yield "| CPU of client and server, both instrumented, over raw grpcio | sync | aio |"
    yield "| --- | ---: | ---: |"
    for name in dict.fromkeys(name for figures in found.values() for name in figures):
        cells = (_cell(found[mode].get(name), LIMITS.get(name, {}).get(mode)) for mode in MODES)
        yield f"| {name} | {' | '.join(cells)} |"


def _cell(figure: Spread | None, limit: float | None) -> str:
    if figure is None:
        return "–"
    verdict = "" if limit is None else f", at most ×{limit}: {'PASS' if figure.middle <= limit else 'MISS'}"
    return f"×{figure.middle:.3f} ±{figure.error:.3f}{verdict}"


def in_fresh_processes(mode: Mode, processes: int, rounds: int) -> list[Round]:
    """`measure`, in processes of their own."""
    found: list[Round] = []
    for process in range(processes):
        print(f"{mode}: process {process + 1} of {processes}", file=sys.stderr, flush=True)
        printed = printed_by("bench.stacks", mode, rounds)
        found += [{name: [Sample(*row) for row in rows] for name, rows in each.items()} for each in printed]
    return found


def main(arguments: list[str]) -> None:
    """Measure both modes, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.stacks", description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args(arguments)
    found = {mode: ratios(in_fresh_processes(mode, asked.processes, asked.rounds)) for mode in MODES}
    print("\n".join([*(f"- {what}: {value}" for what, value in about().items()), "", *table(found)]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", "sync", where]:
            serve_sync(where)
        case ["serve", "aio", where]:
            asyncio.run(serve_aio(where))
        case [("sync" | "aio") as mode, many]:
            print(json.dumps(measure(cast("Mode", mode), int(many))))
        case given:
            main(given)
