"""Servers with guards, and clients that they have to keep out: without a token, without the right, or with too many calls.

Each client calls a sync and an asyncio server. What may pass is counted in Redis where there is one, so that both servers
share the counts, and else in each server's own memory.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

from interpose import Call, Flow, context
from interpose.demo.load import TIMEOUT, Tell
from interpose.demo.messages import Name, OrderManagementStub, RouteGuideStub, StringValue
from interpose.demo.stack import Stack
from interpose.interceptors import (
    Authenticate,
    Authorize,
    ConcurrencyLimit,
    Identity,
    LocalStore,
    RateLimit,
    StaticTokens,
    require,
)
from interpose.mechanisms import pushback

STRANGER, GUEST, HASTY, CROWD, GOOD = CLIENTS = ("stranger", "guest", "hasty", "crowd", "good")
CALLS = {STRANGER: 10, GUEST: 10, HASTY: 30, CROWD: 8, GOOD: 5}  # of each client to each server

AN_HOUR = 20  # calls of one client, and as many at once: in the moments of a demo none is added
AT_ONCE = 2  # calls that a server can take

PEOPLE, ORDERS = "people.read", "orders.read"
TOKENS = {f"token-of-{client}": Identity(client, frozenset({PEOPLE})) for client in (GUEST, HASTY, CROWD, GOOD)}
POLICY = {"/routeguide.RouteGuide/*": require(PEOPLE), "/ecommerce.OrderManagement/*": require(ORDERS)}

LOOK = 0.02  # seconds between two looks at a crowd


@dataclass
class Encounter:
    """How one client fared at one server.

    codes: how each of its calls ended. runs: how many of them reached a handler.
    back:  seconds after which those that were refused are welcome; empty if the server did not say.
    """

    client: str
    server: str
    codes: list[grpc.StatusCode] = field(default_factory=list)
    runs: int = 0
    back: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many were answered."""
        return self.codes.count(grpc.StatusCode.OK)

    @property
    def refused(self) -> Counter[grpc.StatusCode]:
        """How many were refused, and with what."""
        return Counter(code for code in self.codes if code is not grpc.StatusCode.OK)


@dataclass
class Guarded:
    """All encounters. counts: where calls were counted, in words. shared: by both servers together?"""

    counts: str
    shared: bool
    encounters: list[Encounter]

    def of(self, client: str) -> list[Encounter]:
        """Those of one client."""
        return [one for one in self.encounters if one.client == client]


class Runs:
    """Right before the handlers: keeps who reached one."""

    def __init__(self) -> None:
        self._subjects: list[str] = []

    def __call__(self, call: Call) -> Flow:
        identity = context.identity()
        self._subjects.append(STRANGER if identity is None else identity.subject)
        yield call

    def of(self, client: str) -> int:
        """How many calls of this client."""
        return self._subjects.count(client)


def guards(store: Any, runs: Runs) -> Stack:
    """What a server gets. store: where it counts the calls of each client."""
    return (
        Authenticate(StaticTokens(TOKENS)),
        Authorize(POLICY),
        RateLimit(f"{AN_HOUR}/hour", store=store),
        ConcurrencyLimit(AT_ONCE, queue=0),
        runs,
    )


# --- where calls are counted ------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """Where calls are counted, in words; whether servers share that; and the store of a server by its stack."""

    where: str
    shared: bool
    store: Callable[[str], Any]


@asynccontextmanager
async def counting() -> AsyncGenerator[Counts]:
    """A Redis server of our own while the block runs; without the program or the package, each server's own memory."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        yield _locally("there is no redis-server here")
        return
    try:
        from interpose.contrib.redis import RedisStore
    except ImportError:
        yield _locally("the package redis is not installed")
        return
    async with _running(program) as url:
        if url is None:
            yield _locally(f"{program} does not start")
            return
        # Patient and closed, so that a machine that is busy changes no count.
        stores = {
            stack: RedisStore(url, asyncio=stack == "asyncio", timeout=TIMEOUT, fail="closed")
            for stack in ("sync", "asyncio")
        }
        try:
            yield Counts("in Redis, which both servers share", True, stores.__getitem__)
        finally:
            stores["sync"].close()
            await stores["asyncio"].aclose()


def _locally(why: str) -> Counts:
    return Counts(f"by each server for itself: {why}", False, lambda stack: LocalStore())


@asynccontextmanager
async def _running(program: str) -> AsyncGenerator[str | None]:
    """The URL of a Redis server on a unix socket; None if it ends before it is ready."""
    with tempfile.TemporaryDirectory(prefix="interpose-demo-") as folder:
        socket = str(Path(folder) / "redis.sock")
        options = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        process = await asyncio.create_subprocess_exec(
            program, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        try:
            ready = [line async for line in _until_ready(process.stdout)]
            yield f"unix://{socket}" if ready else None
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def _until_ready(output: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    async for line in output:
        if b"eady to accept connections" in line:
            yield line
            return


# --- the clients ------------------------------------------------------------------------------------------------------


async def meet(targets: Mapping[str, str], runs: Mapping[str, Runs], tell: Tell) -> list[Encounter]:
    """Let all clients call all servers, by turns."""
    found: list[Encounter] = []
    with _quiet():
        for client in CLIENTS:
            encounters = {server: Encounter(client, server) for server in targets}
            await (_crowd if client == CROWD else _one_by_one)(targets, encounters, runs, tell)
            for server, encounter in encounters.items():
                encounter.runs = runs[server].of(client)
            found += encounters.values()
    return found


Encounters = dict[str, Encounter]


async def _one_by_one(targets: Mapping[str, str], encounters: Encounters, runs: Any, tell: Tell) -> None:
    async with _channels(targets) as channels:
        for _ in range(CALLS[next(iter(encounters.values())).client]):
            for server, channel in channels.items():
                encounter = encounters[server]
                await _note(encounter, _asked(channel, encounter.client), tell)


def _asked(channel: grpc.aio.Channel, client: str) -> Any:
    """The call that a client makes."""
    options: dict[str, Any] = {"timeout": TIMEOUT, "metadata": _credentials(client)}
    if client == GUEST:
        return OrderManagementStub(channel).getOrder(StringValue(value="1"), **options)
    return RouteGuideStub(channel).GetPerson(Name(value="Ada"), **options)


async def _crowd(targets: Mapping[str, str], encounters: Encounters, runs: Mapping[str, Runs], tell: Tell) -> None:
    """Open streams, and send nothing until each was refused or has reached a handler."""
    async with _channels(targets) as channels:
        for server, channel in channels.items():
            encounter = encounters[server]
            options = {"timeout": TIMEOUT, "metadata": _credentials(CROWD)}
            calls = [RouteGuideStub(channel).GetPeople(**options) for _ in range(CALLS[CROWD])]
            ends = {asyncio.ensure_future(_note(encounter, call, tell)): call for call in calls}
            while len(encounter.codes) + runs[server].of(CROWD) < len(calls):
                await asyncio.wait(ends, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
            for end, call in ends.items():
                if not end.done():
                    await _served(call)
            await asyncio.gather(*ends)


async def _served(call: Any) -> None:
    """Say a name, and hear of the person."""
    await call.write(Name(value="Ada"))
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


async def _note(encounter: Encounter, call: Any, tell: Tell) -> None:
    """Wait for the end of a call, and note it."""
    code, trailing = await call.code(), await call.trailing_metadata()
    back = pushback.parse(tuple(trailing or ()))
    encounter.codes.append(code)
    encounter.back += [] if back is None else [back]
    tell()


def _credentials(client: str) -> tuple[tuple[str, str], ...]:
    return () if client == STRANGER else (("authorization", f"Bearer token-of-{client}"),)


@asynccontextmanager
async def _channels(targets: Mapping[str, str]) -> AsyncGenerator[dict[str, grpc.aio.Channel]]:
    channels = {server: grpc.aio.insecure_channel(target) for server, target in targets.items()}
    try:
        yield channels
    finally:
        await asyncio.gather(*(channel.close() for channel in channels.values()))


@contextmanager
def _quiet() -> Generator[None]:
    """Refusals are in the log of a server; where nothing takes it up, Python would print them between the tables."""
    log, nowhere = logging.getLogger("interpose"), logging.NullHandler()
    log.addHandler(nowhere)
    try:
        yield
    finally:
        log.removeHandler(nowhere)
