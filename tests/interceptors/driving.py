"""What the tests of interceptors share: the other side played by hand, and a clock that stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import grpc

from interpose import Call, Flow, Interceptor, Kind, Method, Outcome, Side, errors
from interpose.testing import Place

METHOD = "/pay.v1.Cards/Charge"


def requests(place: Place) -> tuple[str, ...]:
    """What to send in this place."""
    return ("a", "b") if place.kind.request_streaming else ("a",)


def is_server(place: Place) -> bool:
    """Does the interceptor run on the server there?"""
    return place.side is Side.SERVER


class Peer:
    """What a server's call asks of its context."""

    def __init__(self, metadata: Any = (), deadline: float | None = None, address: str = "ipv4:10.0.0.7:4242") -> None:
        self._metadata = metadata
        self._deadline = deadline
        self._address = address

    def received_metadata(self) -> Any:
        return self._metadata

    def arrived_with(self) -> float | None:
        return self._deadline

    def deadline(self) -> float | None:
        return self._deadline

    def peer(self) -> str:
        return self._address


def outgoing(kind: Kind = Kind.UNARY_UNARY, *, name: str = METHOD, **options: Any) -> Call:
    """A call on a client."""
    return Call(Method(name, kind), Side.CLIENT, "hello", **options)


def incoming(kind: Kind = Kind.UNARY_UNARY, *, name: str = METHOD, **peer: Any) -> Call:
    """A call on a server."""
    return Call(Method(name, kind), Side.SERVER, "hello", metadata=None, context=Peer(**peer))


def failing(code: grpc.StatusCode, details: str = "as scripted", *, local: bool = False, **more: Any) -> Outcome:
    """The outcome of an attempt that failed with a status."""
    return Outcome(code, None, details, errors.of(code)(details, local=local), **({"replayable": True} | more))


def raising(error: BaseException, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN, **more: Any) -> Outcome:
    """The outcome of a handler that raised."""
    return Outcome(code, None, error=error, **more)


def play(interceptor: Interceptor, call: Call, *outcomes: Outcome) -> tuple[list[Call], Outcome]:
    """Play the other side: each call that the interceptor yields is answered with the next outcome.

    Gives the calls, and the outcome that stands at the end; AssertionError if it sends less or more often. As in an
    RPC, what the interceptor leaves in the context stays in there.
    """
    return copy_context().run(_play, interceptor, call, outcomes)


def _play(interceptor: Interceptor, call: Call, outcomes: tuple[Outcome, ...]) -> tuple[list[Call], Outcome]:
    flow: Any = interceptor(call)
    sent = [flow.send(None)]
    script = iter(outcomes)
    for attempt, outcome in enumerate(script, 1):
        outcome._attempts = attempt
        try:
            sent.append(flow.send(outcome))
        except StopIteration as end:
            left = len(list(script))
            assert not left, f"ended with {left} outcomes to come"
            return sent, end.value or outcome
    raise AssertionError(f"sent the call {len(sent)} times")


def each(outcomes: list[Outcome]) -> Interceptor:
    """An interceptor that keeps the outcomes it is told."""

    def keep(call: Call) -> Flow:
        outcomes.append((yield call))

    return keep


class Told:
    """An interceptor that keeps the outcomes it is told, and says when; `pausing` is for a backoff to release."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.ended = threading.Semaphore(0)
        self.pausing = threading.Semaphore(0)
        self._outcomes = outcomes

    def __call__(self, call: Call) -> Flow:
        self._outcomes.append((yield call))
        self.ended.release()


class StillClock:
    """Time that only a test moves. `asked` is set whenever somebody sleeps, or asks to be called later."""

    def __init__(self, now: float = 1000.0) -> None:
        self.at = now
        self.asked = threading.Event()
        self._due: list[Callable[[], object]] = []

    def now(self) -> float:
        return self.at

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        self._due.append(callback)
        self.asked.set()
        return _Alarm(self._due.clear)

    def sleep(self, seconds: float, woken: threading.Event) -> None:
        self.asked.set()
        assert woken.wait(10), "slept on although nobody waits any more"


class _Alarm:
    def __init__(self, cancel: Callable[[], object]) -> None:
        self.cancel = cancel


def numbers() -> Iterator[str]:
    """Endless ids that can be told apart."""
    return (f"id-{number}" for number in range(1, 1_000_000))
