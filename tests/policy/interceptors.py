"""What policy files of tests import."""

import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

from prometheus_client import CollectorRegistry

from interpose import Call, Flow, Method, Outcome
from interpose._flow import Fitted

first_seen: list[str] = []
second_seen: list[str] = []


def first(call: Call) -> Flow:
    outcome = yield call
    first_seen.append(outcome.code.name)


def second(call: Call) -> Flow:
    outcome = yield call
    second_seen.append(outcome.code.name)


async def awaiting(call: Call) -> AsyncGenerator[Call, Outcome]:
    yield call


class Inflight:
    """Counts the calls that it has seen begin and end."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Flow:
        with self._lock:
            self.begun += 1
        try:
            yield call
        finally:
            with self._lock:
                self.ended += 1


counted = Inflight()


def count(retry: Any) -> None:
    """A hook of Retry."""


def answer(call: Call, outcome: Outcome) -> str:
    """Of a Fallback."""
    return "yesterday"


class Lost(Exception):
    """What a handler raises."""


class Attempts:
    """Notes what runs: once per call, and on a client once per attempt."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, call: Call) -> Flow:
        yield call

    def fitted(self, method: Method) -> Fitted:
        return Fitted(self._noted("call"), self._noted("attempt"))

    def _noted(self, what: str) -> Callable[[Call], Flow]:
        def flow(call: Call) -> Flow:
            self.ran.append(what)
            yield call

        return flow


attempts = Attempts()
not_an_interceptor = 7
registry = CollectorRegistry()
