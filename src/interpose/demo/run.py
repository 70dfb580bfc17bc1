"""One run of the demo: the same load from both clients to both servers, without the stack and with it.

Behind it, on fresh servers: orders that pass three services, one that is refused, an outage, and clients that guards keep out.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import grpc
import grpc.aio

from interpose import Side, intercept_channel
from interpose.demo.chain import Trip, trips_from_asyncio, trips_from_sync
from interpose.demo.guards import CALLS as GUARDED_CALLS
from interpose.demo.guards import Guarded, Runs, counting, guards, meet
from interpose.demo.interceptors import Faults, Meter
from interpose.demo.load import Answer, Job, Tell, call_asyncio, call_sync, make_jobs, shop_orders
from interpose.demo.logbook import LogBook
from interpose.demo.orders import OrderBook
from interpose.demo.outage import CALLS, CLIENTS, Passage, outage
from interpose.demo.refusals import Refusal, refusal_from_asyncio, refusal_from_sync
from interpose.demo.servers import asyncio_server, sync_server
from interpose.demo.stack import (
    SHARE,
    Stack,
    bare_server_stack,
    client_stack,
    faultless_server_stack,
    server_stack,
)

SYNC, ASYNCIO = STACKS = ("sync", "asyncio")

Place = tuple[str, Side]
# Asked once per leg, with its name and its calls; what it gives is called for each call.
Progress = Callable[[str, int], Tell]


@dataclass(frozen=True)
class Leg:
    """What one client made of its calls to one server."""

    client: str
    server: str
    answers: list[Answer]

    def at(self, place: Place) -> bool:
        """Whether this leg passed through that client or server."""
        stack, side = place
        return stack == (self.client if side is Side.CLIENT else self.server)


@dataclass
class Story:
    """What was run and all that was observed."""

    seed: int
    jobs: list[Job]
    without: list[Leg] = field(default_factory=list)
    within: list[Leg] = field(default_factory=list)
    log: LogBook = field(default_factory=LogBook)
    meters: dict[Place, Meter] = field(
        default_factory=lambda: {(stack, side): Meter() for stack in STACKS for side in Side}
    )
    trips: list[Trip] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    guarded: Guarded | None = None
    seconds: float = 0.0


async def run(seed: int, calls: int, progress: Progress) -> Story:
    """Make `calls` calls of each kind from each client to each server, without the stack, then with it.

    Then send orders through the chain, one that is refused, calls through an outage, and some at servers with guards.
    """
    started = perf_counter()
    story = Story(seed, make_jobs(seed, calls))
    with tempfile.TemporaryDirectory(prefix="interpose-demo-") as folder:
        story.without = await _phase(Path(folder) / "without.sqlite", Without(seed), story.jobs, progress)
        story.within = await _phase(Path(folder) / "with.sqlite", Within(story), story.jobs, progress)
        story.refusals = await _refusals(Path(folder) / "refusals.sqlite", progress)
        story.guarded = await _guarded(Path(folder) / "guarded.sqlite", progress)
    story.trips = await _trips(progress)
    story.passages = await outage(progress("an outage", len(CLIENTS) * sum(CALLS.values())))
    story.seconds = perf_counter() - started
    return story


class Without:
    """The phase for comparison: bare channels, and servers that only inject faults."""

    name = "without the stack"

    def __init__(self, seed: int) -> None:
        self._faults = Faults(seed, SHARE)

    def client(self, stack: str) -> Stack:
        """Nothing."""
        return ()

    def server(self, stack: str) -> Stack:
        """Faults, and the codes of the services' own errors."""
        return bare_server_stack(self._faults)


class Within:
    """The phase with the stack everywhere, logged and metered."""

    name = "with the stack"

    def __init__(self, story: Story) -> None:
        self._story = story
        self._faults = Faults(story.seed, SHARE)

    def client(self, stack: str) -> Stack:
        """The whole stack of a client; `stack` only says where its log and its samples go."""
        logger, meter = self._story.log.logger(f"{stack} client"), self._story.meters[stack, Side.CLIENT]
        return client_stack(logger, meter)

    def server(self, stack: str) -> Stack:
        """The whole stack of a server; `stack` only says where its log and its samples go."""
        logger, meter = self._story.log.logger(f"{stack} server"), self._story.meters[stack, Side.SERVER]
        return server_stack(logger, meter, self._faults)


async def _phase(file: Path, phase: Without | Within, jobs: list[Job], progress: Progress) -> list[Leg]:
    legs: list[Leg] = []
    async with both_servers(file, phase.server) as targets:
        for client in STACKS:
            stack = phase.client(client)
            for server in STACKS:
                label = f"{client}-{server}"
                tell = progress(f"{phase.name}: {client} client, {server} server", len(jobs))
                call = _from_sync if client == SYNC else _from_asyncio
                legs.append(Leg(client, server, await call(targets[server], stack, label, jobs, tell)))
    return legs


async def _refusals(file: Path, progress: Progress) -> list[Refusal]:
    tell = progress("an order that is refused", len(STACKS) ** 2)
    refusals: list[Refusal] = []
    async with both_servers(file, lambda _: faultless_server_stack()) as targets:
        for server, target in targets.items():
            refusals.append(await asyncio.to_thread(refusal_from_sync, target, server))
            tell()
            refusals.append(await refusal_from_asyncio(target, server))
            tell()
    return refusals


async def _guarded(file: Path, progress: Progress) -> Guarded:
    tell = progress("clients that guards keep out", len(STACKS) * sum(GUARDED_CALLS.values()))
    runs = {stack: Runs() for stack in STACKS}
    async with (
        counting() as counts,
        both_servers(file, lambda stack: guards(counts.store(stack), runs[stack])) as targets,
    ):
        return Guarded(counts.where, counts.shared, await meet(targets, runs, tell))


async def _trips(progress: Progress) -> list[Trip]:
    tell = progress("orders that pass three services", 2 * len(STACKS))
    return [*await trips_from_sync(tell), *await trips_from_asyncio(tell)]


@asynccontextmanager
async def both_servers(file: Path, stack: Callable[[str], Stack]) -> AsyncGenerator[dict[str, str]]:
    book = OrderBook(file, shop_orders())
    try:
        async with (
            sync_server(book, stack(SYNC)) as sync_target,
            asyncio_server(book, stack(ASYNCIO)) as asyncio_target,
        ):
            yield {SYNC: sync_target, ASYNCIO: asyncio_target}
    finally:
        book.close()


async def _from_sync(target: str, stack: Stack, label: str, jobs: list[Job], tell: Tell) -> list[Answer]:
    def leg() -> list[Answer]:
        with grpc.insecure_channel(target) as channel:
            return call_sync(intercept_channel(channel, *stack) if stack else channel, label, jobs, tell)

    return await asyncio.to_thread(leg)


async def _from_asyncio(target: str, stack: Stack, label: str, jobs: list[Job], tell: Tell) -> list[Answer]:
    async with grpc.aio.insecure_channel(target) as channel:
        return await call_asyncio(intercept_channel(channel, *stack) if stack else channel, label, jobs, tell)
