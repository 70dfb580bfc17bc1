"""What clients of other makes show for each ending of a call to a full stack under `interpose serve`: docs/peers.md.

The suite runs the makes that start quickly, each with one stack; `make interop` runs all of them with both.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.interop import page
from tests.interop.clients.endings import AS_SENT, CASES, NOT_ASKED, UNHEARD_OF, Case
from tests.interop.clients.jobs import BUF, MAKES, Foreign, Maker, pairs, running
from tests.interop.clients.test_drain import LEAVING, free_port
from tests.interop.wire import saying
from tests.protos.compiled import compile_ruled
from tests.serving.driving import STARTING

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(240)]

APP = Path(__file__).with_name("app")
TABLE = "a Python server ends it with"
DRAIN = "the server stops: [drain](serve.md#how-it-stops)"
DEADLINE = "nothing: how a deadline of 2 s travels"
ALL = [*MAKES, BUF]
SLOW = (
    "nice-grpc",
    "grpc-go",
    "grpc-java",
    "ruby",
    "buf curl",
)  # to start, or to compile; and grpc-js stands for Node.js

Command = Callable[[Maker], list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application, with its proto compiled."""
    home = tmp_path_factory.mktemp("app")
    shutil.copytree(APP, home, dirs_exist_ok=True)
    compile_ruled(home, "texts.proto")
    return home


@dataclass(frozen=True)
class Served:
    """A server that runs. The caller "crowd" has its one call there, and "greedy" has had its own."""

    target: str
    client: Foreign

    def settle(self, waiting: int = 1) -> None:
        """Wait until only so many handlers wait; one of them is that of "crowd"."""
        metadata = {"authorization": "Bearer caller"}
        while self.client.call("Unary", "waiting", metadata=metadata)["messages"] != [str(waiting)]:
            pass


@pytest.fixture(scope="module")
def server(folder: Path, command: Command) -> Iterator[Callable[[bool], Served]]:
    """A server, sync or asyncio, from the first test that wants it until the last of all."""
    with ExitStack() as until_the_end:

        @functools.cache
        def of(on_loop: bool) -> Served:
            target, kill = until_the_end.enter_context(serving(folder, "async_app" if on_loop else "app"))
            client = until_the_end.enter_context(running(command(MAKES[0]), target))
            until_the_end.callback(kill)
            client.call("Unary", metadata={"authorization": "Bearer greedy"})
            client.begin("Unary", "wait", metadata={"authorization": "Bearer crowd"})
            served = Served(target, client)
            served.settle()  # or the next call of "crowd" could be its first
            return served

        yield of


@contextmanager
def serving(folder: Path, app: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run the command; gives its target, and what kills it."""
    port = free_port()
    target = f"127.0.0.1:{port}"
    arguments = [f"endings_app:{app}", "--stack", "endings_app:stack", "--app-dir", str(folder), "--port", str(port)]
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "interpose", "serve", *arguments]
    with (folder / f"{app}.log").open("w") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        try:
            with grpc.insecure_channel(target, [("grpc.max_reconnect_backoff_ms", 200)]) as channel:
                grpc.channel_ready_future(channel).result(STARTING)
            yield target, process.kill
        finally:
            process.kill()


def endings(foreign: Foreign, make: Maker, cases: Iterable[Case]) -> dict[str, dict[str, str]]:
    """What a client shows of each case, by kind of RPC. All calls are under way at once."""
    asked = {}
    for case in cases:
        for kind in case.asked(make):
            asked[foreign.begin(kind, **case.job())] = case, kind
    shown: dict[str, dict[str, str]] = {}
    for _ in range(len(asked)):
        ending = foreign.ended()
        case, kind = asked[ending["id"]]
        shown.setdefault(case.name, {})[kind] = case.shown(ending)
    return shown


@pytest.mark.parametrize(("make", "on_loop"), list(pairs(ALL, SLOW)))
def test_what_a_client_shows(make: Maker, on_loop: bool, command: Command, server: Callable[[bool], Served]) -> None:
    """As the page says; and no handler goes on when its client has left."""
    page.of_version(TABLE, make.name, make.version)
    served = server(on_loop)
    with running(command(make), served.target) as foreign:
        shown = endings(foreign, make, [case for case in CASES if not case.breaks])
        shown |= endings(foreign, make, [case for case in CASES if case.breaks])
    served.settle()

    page.compare(TABLE, make.name, {case.name: cell(case, make, shown.get(case.name)) for case in CASES})


@pytest.mark.parametrize(("make", "on_loop"), [pair for pair in pairs(ALL, SLOW) if not pair.values[1]])
def test_what_a_client_sends_and_makes_of_a_status_unheard_of(make: Maker, on_loop: bool, command: Command) -> None:
    """A deadline is a whole number of some unit, and each make has its own; so has each its own way with new statuses."""
    page.of_version(TABLE, make.name, make.version)
    sent: list[str] = []
    with (
        saying(
            42, (b"grpc-message", b"odd"), heard=lambda header: sent.append(header.get("grpc-timeout", ""))
        ) as target,
        running(command(make), target) as foreign,
    ):
        shown = UNHEARD_OF.shown(foreign.call("Unary", timeout=2))

    timeout = re.sub(r"^1\d+", "1…", sent[0])  # some of it has passed
    page.compare(TABLE, make.name, {UNHEARD_OF.name: shown, DEADLINE: [f"`{timeout}`" if timeout else "not at all"]})


@pytest.mark.needs("java")
@pytest.mark.rare
def test_a_header_too_large_ends_the_connection_of_java(command: Command, server: Callable[[bool], Served]) -> None:
    """And with it the calls of others that are under way."""
    served = server(True)
    with running(command(next(make for make in MAKES if make.name == "grpc-java")), served.target) as foreign:
        metadata = {"authorization": "Bearer caller"}
        foreign.begin("Down", "wait", metadata=metadata)
        served.settle(waiting=2)
        foreign.begin("Unary", "long", metadata=metadata)
        endings = [foreign.ended() for _ in range(2)]

    assert {(ending["code"], ending["details"]) for ending in endings} == {("INTERNAL", "http2 exception")}


def cell(case: Case, make: Maker, shown: dict[str, str] | None) -> str | list[str]:
    if shown is None:
        return NOT_ASKED
    return sorted(set(shown.values())) if make.name in case.at_random else page.cell_of(shown)


def test_ended_by_the_drain() -> None:
    """As test_drain.py holds it."""
    for make in ALL:
        lost = LEAVING.get(make.name)
        page.compare(TABLE, make.name, {DRAIN: f"no status: {lost}" if lost else AS_SENT})
