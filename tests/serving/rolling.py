"""Workers that are replaced again and again under load: which calls were begun and not answered, or begun twice.

    python -m tests.serving.rolling --restarts 20 --clients 6 --rate 500

Every call has a number. A handler writes it down before it does anything else; a client writes down what became of it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from interpose.testing.codec import decode, encode

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
        "unary": grpc.unary_unary_rpc_method_handler(unary, decode, encode),
        "stream": grpc.unary_stream_rpc_method_handler(stream, decode, encode),
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
    codes: Counter[str] = field(default_factory=Counter)  # of the failures


class Caller(threading.Thread):
    """A client with a connection of its own, which calls at a steady rate: unary and streams in turn."""

    def __init__(self, target: str, name: str, rate: float, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.answers: dict[str, str] = {}
        self._channel = grpc.insecure_channel(
            target, [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        )
        self._pause = 1 / rate
        self._over = over

    def run(self) -> None:
        unary = self._channel.unary_unary(f"/{SERVICE}/unary", encode, decode)
        stream = self._channel.unary_stream(f"/{SERVICE}/stream", encode, decode)
        number = 0
        pending: list[threading.Thread] = []
        while not self._over.wait(self._pause):
            number += 1
            key = f"{self.name}-{number}"
            work = self._call if number % 2 else self._read
            pending.append(threading.Thread(target=work, args=(unary if number % 2 else stream, key)))
            pending[-1].start()
        for one in pending:
            one.join()
        self._channel.close()

    def _call(self, method: Any, key: str) -> None:
        self._note(key, lambda: method(key, timeout=60) == key)

    def _read(self, method: Any, key: str) -> None:
        self._note(key, lambda: list(method(key, timeout=60)) == [key] * MESSAGES)

    def _note(self, key: str, work: Any) -> None:
        try:
            self.answers[key] = "OK" if work() else "CUT"
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
            over = threading.Event()
            callers = [Caller(target[1], f"c{number}", rate / clients, over) for number in range(clients)]
            for caller in callers:
                caller.start()
            for _ in range(restarts):
                process.send_signal(signal.SIGHUP)
                _until(process.stderr, "replaced; workers are")
            over.set()
            for caller in callers:
                caller.join()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
        answers = {key: answer for caller in callers for key, answer in caller.answers.items()}
        return counted(answers, log.read_text().split())


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
