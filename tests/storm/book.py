"""The client's side of the ledger: every call that was made, and every outcome that its caller was given."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from interpose import Kind
from tests.storm.server import SERVICES, answered
from tests.support.patience import PATIENCE

SLACK = 1.0  # seconds past its deadline after which a call counts as hung; the machine may be busy
HANG = 20.0  # the same, after which nobody waits for it any more
OK = grpc.StatusCode.OK
KINDS = tuple(Kind)


@dataclass
class Entry:
    """One call as its caller sees it. limit: seconds it may take. outcomes: how many its caller was told."""

    number: int
    kind: Kind
    service: str
    limit: float
    began: float
    ended: float | None = None
    code: grpc.StatusCode | None = None
    details: str = ""
    outcomes: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.code is OK

    @property
    def took(self) -> float:
        """Seconds to its end."""
        return (time.monotonic() if self.ended is None else self.ended) - self.began


class Verdict(NamedTuple):
    """How many calls broke which law."""

    lost: int  # no outcome
    hung: int  # an outcome, but long after the deadline
    twice: int  # two outcomes, or a message twice, out of order or not its own
    unexecuted: int  # answered well, and no server knows of it
    doubles: Counter[str]  # executed twice, by service

    @property
    def broken(self) -> int:
        """Calls that were lost, hung, answered twice, or answered by nobody."""
        return self.lost + self.hung + self.twice + self.unexecuted


class Book:
    """The calls of one run."""

    def __init__(
        self, limit: float, kinds: tuple[Kind, ...] = KINDS, services: tuple[str, ...] = SERVICES, first: int = 0
    ) -> None:
        self._limit = limit
        self._numbers = itertools.count(first)
        self._kinds = kinds
        self._services = services
        self._changed = threading.Condition()
        self.entries: list[Entry] = []

    @contextmanager
    def call(self) -> Iterator[Entry]:
        """The next call; the block performs it. Its end is noted when the block is left, and an error as its status."""
        number = next(self._numbers)
        kind = self._kinds[number % len(self._kinds)]
        service = self._services[number // len(self._kinds) % len(self._services)]
        entry = Entry(number, kind, service, self._limit, time.monotonic())
        self.entries.append(entry)
        try:
            yield entry
        except grpc.RpcError as error:
            entry.code, entry.details = error.code(), str(error.details())
        except (asyncio.CancelledError, futures.CancelledError) as error:
            # Nobody cancels here: a server did, or a connection that ended.
            entry.code, entry.details = grpc.StatusCode.CANCELLED, repr(error)
        except Exception as error:
            entry.details = repr(error)  # which is no outcome of an RPC: it is lost
            return
        else:
            entry.code = OK
        entry.ended = time.monotonic()

    def told(self, entry: Entry) -> None:
        """Its caller was told an outcome."""
        with self._changed:
            entry.outcomes += 1
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until every caller that was given an answer was told its outcome too: callbacks come a moment later."""
        with self._changed:
            self._changed.wait_for(lambda: all(entry.outcomes for entry in self.entries if entry.ended), PATIENCE)

    def is_stuck(self) -> bool:
        """Is there a call that hangs for good?"""
        return any(
            entry.ended is None and not entry.details and entry.took > entry.limit + HANG for entry in self.entries
        )

    # - what it says -

    def verdict(self, executions: Counter[int]) -> Verdict:
        """Which laws were broken, beside what the servers have written."""
        entries = self.entries
        return Verdict(
            sum(entry.ended is None or not entry.outcomes for entry in entries),
            sum(entry.took > entry.limit + SLACK for entry in entries),
            sum(entry.outcomes > 1 or _mixed(entry) for entry in entries),
            sum(entry.ok and not executions[entry.number] for entry in entries),
            Counter(entry.service for entry in entries if executions[entry.number] > 1),
        )

    def share_ok(self) -> float:
        """The share of calls that were answered well."""
        return sum(entry.ok for entry in self.entries) / len(self.entries)


def _mixed(entry: Entry) -> bool:
    """Was its caller given anything but its own answer, once and in order? Of a failure: anything but a beginning of it."""
    whole = answered(str(entry.number), entry.kind)
    return entry.messages != (whole if entry.ok else whole[: len(entry.messages)])
