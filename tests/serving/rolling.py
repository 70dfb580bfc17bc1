"""Workers that are replaced again and again under load: which calls were begun and not answered, or begun twice.

    python -m tests.serving.rolling --restarts 20 --clients 6 --rate 500

Every call has a number. A handler writes it down before it does anything else; a client writes down what became of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

SERVICE = "test.Rolling"
LOG = "ROLLING_LOG"  # the environment variable that names the file of the handlers
WORK = 0.02  # seconds that a call takes, so that some are under way whenever a worker stops
MESSAGES = 5  # of a stream


def app(server: Any) -> None:
    """A unary method and a stream, which write down each call that they begin."""
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND)

    def begin(number: str) -> None:
        os.write(log, f"{number}\n".encode())

    def unary(number: str, context: Any) -> str:
        begin(number)
        time.sleep(WORK)  # the work
        return number

    def stream(number: str, context: Any) -> Iterator[str]:
        begin(number)
        for _ in range(MESSAGES):
            time.sleep(WORK / MESSAGES)  # the work
            yield number

    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(unary, bytes.decode, str.encode),
        "stream": grpc.unary_stream_rpc_method_handler(stream, bytes.decode, str.encode),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


@dataclass
class Count:
    """What became of the calls."""

    sent: int = 0
    begun: int = 0
    answered: int = 0
    lost: int = 0  # begun, and not answered in full
    doubled: int = 0  # begun more than once
    refused: int = 0  # failed, and never begun
    rate: int = 0  # calls in a second, of all clients together
    codes: Counter[str] = field(default_factory=Counter)  # of the failures


class Fleet(threading.Thread):
    """Clients with a connection each, which call at a steady rate, however long answers take: unary and streams in turn.

    They share a thread and its event loop, so that their own cost leaves the machine to the servers.
    """

    def __init__(self, target: str, clients: int, rate: float) -> None:
        super().__init__(daemon=True)
        self.answers: dict[str, str] = {}
        self.lasted = 0.0  # seconds in which calls were begun
        self._target = target
        self._clients = clients
        self._pause = 1 / rate
        self._over = threading.Event()

    def stop(self) -> None:
        """Begin no more calls, and wait for those under way."""
        self._over.set()
        self.join()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with AsyncExitStack() as life, asyncio.TaskGroup() as calls:
            channels = [
                await life.enter_async_context(grpc.aio.insecure_channel(self._target, options))
                for _ in range(self._clients)
            ]
            works = [
                work
                for channel in channels
                for work in (
                    partial(self._call, channel.unary_unary(f"/{SERVICE}/unary", str.encode, bytes.decode)),
                    partial(self._read, channel.unary_stream(f"/{SERVICE}/stream", str.encode, bytes.decode)),
                )
            ]
            begun, number = time.monotonic(), 0
            while not self._over.is_set():
                while number * self._pause <= time.monotonic() - begun:  # what is late is made up for
                    calls.create_task(works[number % len(works)](str(number)))
                    number += 1
                await asyncio.sleep(self._pause)
            self.lasted = time.monotonic() - begun

    async def _call(self, method: Any, key: str) -> None:
        async def work() -> bool:
            return bool(await method(key, timeout=60) == key)

        await self._note(key, work())

    async def _read(self, method: Any, key: str) -> None:
        async def work() -> bool:
            return [answer async for answer in method(key, timeout=60)] == [key] * MESSAGES

        await self._note(key, work())

    async def _note(self, key: str, work: Coroutine[Any, Any, bool]) -> None:
        try:
            self.answers[key] = "OK" if await work else "CUT"
        except grpc.RpcError as error:
            self.answers[key] = f"{error.code().name} {error.details()}"  # type: ignore[attr-defined]  # it is a call


def counted(answers: dict[str, str], begun: Iterable[str]) -> Count:
    """Both books, compared."""
    times = Counter(begun)
    failed = {key: answer for key, answer in answers.items() if answer != "OK"}
    return Count(
        sent=len(answers),
        begun=len(times),
        answered=len(answers) - len(failed),
        lost=sum(key in times for key in failed),
        doubled=sum(number > 1 for number in times.values()),
        refused=sum(key not in times for key in failed),
        codes=Counter(failed.values()),
    )


def roll(restarts: int, clients: int, rate: float, *, workers: int = 2, flags: Iterable[str] = ()) -> Count:
    """Replace all workers so many times while the clients call."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.touch()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "interpose", "serve", "tests.serving.rolling:app", "--port", "0"),
                *("--workers", str(workers), "--no-health", "--no-reflection", "--threads", "64", *flags),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, LOG: str(log), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            assert process.stderr is not None
            target = re.search(r"serving on (\S+)", _until(process.stderr, "serving on"))
            assert target is not None
            fleet = Fleet(target[1], clients, rate)
            fleet.start()
            for _ in range(restarts):
                process.send_signal(signal.SIGHUP)
                _until(process.stderr, "replaced; workers are")
            fleet.stop()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
        count = counted(fleet.answers, log.read_text().split())
        count.rate = round(count.sent / fleet.lasted)
        return count


def _until(lines: Iterable[str], part: str) -> str:
    for line in lines:
        if part in line:
            return line
    raise AssertionError(f"the server ended without saying {part!r}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--restarts", type=int, default=20)
    options.add_argument("--clients", type=int, default=6)
    options.add_argument("--rate", type=float, default=500, help="calls in a second, of all clients together")
    given = options.parse_args()
    found = roll(given.restarts, given.clients, given.rate)
    print(found)  # noqa: T201  a program
    sys.exit(bool(found.lost or found.doubled))
