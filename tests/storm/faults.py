"""Faults of the network and of servers: resets, black holes, `kill -9`, graceful stops, and two servers of which one dies.

Four services are called alike and are the same on the server, but differ in what the client's stack does. Reads and
searches may be executed twice: reads are retried, and their streams resumed; searches are hedged. Of writes nobody says
that they may, and of orders that they may not (`safe=False`): both are retried where it is certain that they were not
executed.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import grpc

from interpose import Call, Interceptor, Kind, when
from interpose.interceptors import CircuitBreaker, Deadline, Hedge, Retry, RetryDetails
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import RatioBudget
from interpose.mechanisms.window import seconds
from interpose.testing import FaultProxy
from tests.storm.backend import Backend
from tests.storm.book import Book
from tests.storm.fleet import Fleet
from tests.storm.rows import Findings, Row, Scale
from tests.storm.server import ID, ORDERS, READS, SEARCHES, SERVICES, WRITES

LIMIT = 1.0  # seconds that a call may take
# A server that stops answers calls that arrive meanwhile with CANCELLED, as grpc's core does with and without us.
PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
ENOUGH = 0.995  # of the reads that can be sent again, while there is a server that is well
BEHIND = 64  # calls behind the storm, which have to succeed
RECOVERY_LIMIT = 10.0  # seconds in which all is well again
BLOW = 0.15  # seconds that a fault lasts
CALM = 0.7  # seconds in which connections are there again, and the breaker has closed
PACE = 0.05  # seconds from call to call of one caller, at least: what is refused at once would be asked for without end


@dataclass
class Scene:
    """Servers, each behind a proxy."""

    backends: Sequence[Backend]
    proxies: Sequence[FaultProxy]

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(proxy.target for proxy in self.proxies)

    def executions(self) -> Counter[int]:
        return sum((backend.executions() for backend in self.backends), Counter())


def go_on(call: Call, last: str) -> Call:
    """The call that asks for what comes behind the last message."""
    number, _, place = last.partition(":")
    return call.with_request(f"{number}:{int(place) + 1}")


class Resent:
    """Why calls were sent again: the number of the call, and the words of the failure."""

    def __init__(self) -> None:
        self.words: list[tuple[int, str]] = []

    def note(self, retry: RetryDetails) -> None:
        words = re.split(r" *[(;]", retry.outcome.details)[0]  # without addresses and numbers
        self.words.append((int(str(retry.call.metadata[ID])), words))


def stack(on_retry: Callable[[RetryDetails], object] | None = None) -> list[Interceptor]:
    """A deadline; retries or hedges where they are safe; a breaker, which counts each attempt."""
    budget = RatioBudget(0.5, minimum=100)
    retry = partial(Retry, 4, codes=PASSING, backoff=exponential(0.05, cap=0.5), budget=budget, on_retry=on_retry)
    return [
        Deadline(LIMIT),
        when(f"{READS}/*", retry(safe=True, resume=go_on)),
        when(f"{SEARCHES}/*", Hedge(3, delay=0.05, codes=PASSING, safe=True, budget=budget)),
        when(f"{WRITES}/*", retry()),
        when(f"{ORDERS}/*", retry(safe=False)),
        CircuitBreaker(window=seconds(1), open_for=0.2),
    ]


# --- faults: each `yield` is one that has happened, and the seconds for which the calls go on ---------------------------


def resets(scene: Scene) -> Iterator[float]:
    """Connections break, in the middle of messages and streams."""
    for proxy in scene.proxies:
        proxy.reset()
        yield CALM


def black_holes(scene: Scene) -> Iterator[float]:
    """Nothing gets through, and nobody is told."""
    for proxy in scene.proxies:
        proxy.black_hole()
        yield 1.2 * LIMIT
        proxy.heal()
        yield CALM


def spikes(scene: Scene) -> Iterator[float]:
    """All is late, and some of it too late."""
    for proxy in scene.proxies:
        for delay in (LIMIT / 10, LIMIT):
            proxy.delay(delay)
            yield BLOW
            proxy.heal()
            yield CALM


def kills(scene: Scene) -> Iterator[float]:
    """A process dies at once, and another one takes its place."""
    for backend in scene.backends:
        backend.kill()
        yield BLOW
        backend.start()
        yield CALM


def stops(scene: Scene) -> Iterator[float]:
    """A process says GOAWAY, finishes what it has begun and ends; another one takes its place."""
    for backend in scene.backends:
        backend.stop()
        yield BLOW
        backend.start()
        yield CALM


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Some calls, and how many of them were answered well."""

    calls: int = 0
    ok: int = 0


class Run:
    """What came of one kind of fault, over some runs. elsewhere: is there always a server that is well?"""

    def __init__(self, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        self.borne = Tally()  # calls that bear a fault: reads that can be sent again or resumed
        self.broken = 0
        self.calls = Counter[str]()
        self.ok = Counter[str]()
        self.doubles = Counter[str]()
        self.resent = Counter[str]()  # writes: the words of the failures after which they were sent again
        self.blamed = Counter[str]()  # the same, of those that were executed twice
        self.faults = 0
        self.recovery = 0.0  # seconds, the longest

    def blow(self, fault: Callable[[Scene], Iterator[float]], sort: str, duration: float, servers: int = 1) -> None:
        """Let the fault happen again and again while clients call."""
        with ExitStack() as closing:
            folder = closing.enter_context(tempfile.TemporaryDirectory())
            backends = [closing.enter_context(Backend(folder, sort, f"server{n}")) for n in range(servers)]
            scene = Scene(backends, [closing.enter_context(FaultProxy(backend.target)) for backend in backends])
            resent = Resent()
            fleet = closing.enter_context(Fleet(scene.target, *stack(resent.note), pace=PACE))
            book = Book(LIMIT)
            with fleet.calling(book):
                end = time.monotonic() + duration
                while time.monotonic() < end:
                    for pause in fault(scene):
                        time.sleep(pause)
                    self.faults += servers
            self._note(book, scene, resent)
            self.recovery = max(self.recovery, _recovered(fleet, len(book.entries)))

    def _note(self, book: Book, scene: Scene, resent: Resent) -> None:
        executions = scene.executions()
        verdict = book.verdict(executions)
        self.broken += verdict.broken
        self.calls += Counter(entry.service for entry in book.entries)
        self.ok += Counter(entry.service for entry in book.entries if entry.ok)
        self.doubles += verdict.doubles
        borne = [entry for entry in book.entries if entry.service == READS and entry.kind is not Kind.STREAM_STREAM]
        self.borne.calls += len(borne)
        self.borne.ok += sum(entry.ok for entry in borne)
        writes = {entry.number for entry in book.entries if entry.service == WRITES}
        self.resent += Counter(words for number, words in resent.words if number in writes)
        self.blamed += Counter(words for number, words in resent.words if number in writes and executions[number] > 1)

    def rows(self) -> list[Row]:
        """For the table."""
        calls, doubles = self.calls, self.doubles
        shares = " ".join(f"{100 * self.ok[service] / calls[service]:.1f}" for service in SERVICES)
        share, least = self.borne.ok / self.borne.calls, ENOUGH if self.elsewhere else 0
        return [
            Row(
                "lost, hung, answered twice, or by nobody",
                f"{calls.total():,} calls, {self.faults} faults",
                str(self.broken),
                "0",
                self.broken == 0,
            ),
            Row(
                "orders (safe=False) executed twice",
                f"{calls[ORDERS]:,} orders",
                str(doubles[ORDERS]),
                "0",
                doubles[ORDERS] == 0,
            ),
            Row(
                "writes (safe=None) executed twice",
                f"{calls[WRITES]:,} writes, {self.resent.total()} retries",
                str(doubles[WRITES]),
                "0",
                doubles[WRITES] == 0,
            ),
            Row("answered well: reads, searches, writes, orders", "", f"{shares} %"),
            Row(
                "the same, of reads that can be sent again or resumed",
                f"{self.borne.calls:,} reads",
                f"{share:.2%}",
                f"{least:.1%}" if least else "",
                share >= least,
            ),
            Row(
                "all is well again after",
                f"{BEHIND} calls",
                f"{self.recovery:.2f} s",
                f"{RECOVERY_LIMIT:.0f} s",
                self.recovery < RECOVERY_LIMIT,
            ),
        ]


def _recovered(fleet: Fleet, first: int) -> float:
    """Seconds until so many calls succeed, one after the other; infinity if they do not."""
    began = time.monotonic()
    while time.monotonic() < began + RECOVERY_LIMIT:
        book = Book(LIMIT, first=first)
        fleet.call(book, BEHIND)
        if book.share_ok() == 1:
            return time.monotonic() - began
        first += BEHIND
    return math.inf


SORTS = ("async", "plain")
STORMS: dict[str, tuple[Callable[[Scene], Iterator[float]], int]] = {
    "resets in mid-stream": (resets, 1),
    "black holes": (black_holes, 1),
    "spikes of latency": (spikes, 1),
    "kill -9 and restart": (kills, 1),
    "graceful stop and restart": (stops, 1),
    "two servers, one is killed": (kills, 2),
    "two servers, one is stopped": (stops, 2),
}


def storm(name: str, scale: Scale, sorts: Sequence[str] = SORTS) -> Run:
    """One kind of fault, on servers of both sorts."""
    fault, servers = STORMS[name]
    run = Run(elsewhere=servers > 1)
    for sort in sorts:
        run.blow(fault, sort, scale.seconds / len(sorts), servers)
    return run


def findings(scale: Scale) -> Findings:
    """All kinds of faults."""
    found = Findings()
    for name in STORMS:
        run = storm(name, scale)
        found.rows += [row._replace(scenario=name) for row in run.rows()]
        found.notes += [
            f"{name}: of {count} writes that were sent again after “{words}” {run.blamed[words]} were executed twice"
            for words, count in run.resent.most_common()
        ]
    return found
