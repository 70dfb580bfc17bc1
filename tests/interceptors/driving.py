"""What the tests of interceptors share beyond the kit: short names for scripted outcomes, and watchers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from interpose import Call, Flow, Interceptor, Kind, Outcome, Side, errors, testing
from interpose.interceptors import Hedge, Retry
from interpose.testing import Place, Reply, failed
from interpose.testing.acts import Act
from tests.support.patience import TIMEOUTS

Given: TypeAlias = dict[str, Any]  # options of `interpose.testing.play`

METHOD = "/pay.v1.Cards/Charge"


def requests(place: Place) -> tuple[str, ...]:
    """What to send in this place."""
    return ("a", "b") if place.kind.request_streaming else ("a",)


def is_server(place: Place) -> bool:
    """Does the interceptor run on the server there?"""
    return place.side is Side.SERVER


def outgoing(kind: Kind = Kind.UNARY_UNARY, *, name: str = METHOD, **options: Any) -> Given:
    """A call on a client, to be played."""
    return {"side": Side.CLIENT, "kind": kind, "method": name, **options}


def incoming(kind: Kind = Kind.UNARY_UNARY, *, name: str = METHOD, **options: Any) -> Given:
    """A call on a server, to be played."""
    return {"side": Side.SERVER, "kind": kind, "method": name, **options}


def failing(code: grpc.StatusCode, details: str = "as scripted", *, local: bool = False, **more: Any) -> Outcome:
    """The outcome of an attempt that failed with a status."""
    return Outcome(code, None, details, errors.of(code)(details, local=local), **({"replayable": True} | more))


def raising(error: BaseException, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN, **more: Any) -> Outcome:
    """The outcome of a handler that raised."""
    return Outcome(code, None, error=error, **more)


def play(interceptor: Interceptor, given: Given, *outcomes: Outcome) -> tuple[list[Call], Outcome]:
    """The calls that the interceptor sends when they end with these outcomes, and the outcome that stands at the end."""
    played = testing.play(interceptor, outcomes, **given)
    return [sent.call for sent in played.sent], played.outcome


def retrying(*arguments: Any, **options: Any) -> Retry:
    """One for calls that are declared safe."""
    return Retry(*arguments, **{"safe": True, **options})


def hedge(copies: int = 2, delay: Any = 1.0, **options: Any) -> Hedge:
    """One for calls that are declared safe."""
    return Hedge(copies, delay=delay, **{"safe": True, **options})


def times(played: testing.Played) -> list[float]:
    """When each attempt was sent, in seconds since the RPC began."""
    return [sent.at for sent in played.sent]


def codes(played: testing.Played) -> list[str]:
    """How each attempt ended."""
    return [sent.outcome.code.name for sent in played.sent]


def at_once(_: int) -> float:
    """A backoff without a pause."""
    return 0.0


def retry_info(seconds: float) -> Any:
    """The detail of an error by which a server asks for a pause."""
    whole = int(seconds)
    delay = duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def notes(outcome: Outcome) -> list[str]:
    """What its error tells beside its text."""
    return getattr(outcome.error, "__notes__", [])


def refused(place: Place, times: int) -> list[Act]:
    """The service refuses so many times; on a server before it reads, so that its handler can be called again."""
    refusal = failed(grpc.StatusCode.UNAVAILABLE, unread=is_server(place))
    return [replace(refusal, details=f"refusal {time}") for time in range(1, times + 1)]


def each(outcomes: list[Outcome]) -> Interceptor:
    """An interceptor that keeps the outcomes it is told."""

    def keep(call: Call) -> Flow:
        outcomes.append((yield call))

    return keep


class Told:
    """An interceptor that keeps the outcomes it is told, and says when; `pausing` is for a backoff to release."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.ended = threading.Semaphore(0)
        self.pausing = threading.Semaphore(0)

    def __call__(self, call: Call) -> Flow:
        self.outcomes.append((yield call))
        self.ended.release()


def overdue(call: Callable[..., Reply], ended: threading.Semaphore, *requests: str) -> Reply:
    """A call with little time; if that ran out before the server had heard of it, with much."""
    for timeout in TIMEOUTS:
        reply = call(*requests, timeout=timeout)
        if ended.acquire(timeout=5):
            return reply
    raise AssertionError("the call has not ended where this was to be seen")


def numbers() -> Iterator[str]:
    """Endless ids that can be told apart."""
    return (f"id-{number}" for number in range(1, 1_000_000))
