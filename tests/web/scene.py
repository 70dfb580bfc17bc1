"""A shop on a busy day, for the page to show: a minute of RPCs on a clock of its own, so that it takes no time to make."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import grpc

from interpose import Call, Flow, Kind, Method, Outcome, Side, chain, context
from interpose.interceptors import CircuitBreaker, ConcurrencyLimit, RateLimit, Retry, Rpcz
from interpose.mechanisms.budget import RetryBudget
from interpose.testing import FakeClock, failed, incoming, ok, play

Code = grpc.StatusCode
NOON = 1_789_989_000.0  # when the clock shows 0
ILL = range(38, 44)  # seconds in which more is asked, and the cards fail


@dataclass(frozen=True)
class Busy:
    """A method. rate: RPCs per second. median, spread: of the seconds that they take. codes: how many fail with which."""

    side: Side
    method: str
    kind: Kind
    rate: float
    median: float
    spread: float
    codes: dict[Code, float]


UNARY, STREAM, UPLOAD = Kind.UNARY_UNARY, Kind.UNARY_STREAM, Kind.STREAM_UNARY
SERVER, CLIENT = Side.SERVER, Side.CLIENT
METHODS = (
    Busy(SERVER, "/shop.v1.Orders/Place", UNARY, 14, 0.021, 0.5, {Code.FAILED_PRECONDITION: 0.02, Code.ABORTED: 0.004}),
    Busy(SERVER, "/shop.v1.Orders/Get", UNARY, 38, 0.0026, 0.4, {Code.NOT_FOUND: 0.012}),
    Busy(SERVER, "/shop.v1.Orders/Watch", STREAM, 0.7, 4.0, 0.6, {Code.CANCELLED: 0.3}),
    Busy(SERVER, "/shop.v1.Catalog/Search", STREAM, 9, 0.055, 0.8, {Code.DEADLINE_EXCEEDED: 0.01}),
    Busy(SERVER, "/shop.v1.Catalog/GetItem", UNARY, 55, 0.0011, 0.35, {}),
    Busy(SERVER, "/shop.v1.Stock/Upload", UPLOAD, 1.2, 0.4, 0.5, {}),
    Busy(SERVER, "/grpc.health.v1.Health/Check", UNARY, 1, 0.0003, 0.2, {}),
    Busy(CLIENT, "/pay.v1.Cards/Charge", UNARY, 13, 0.014, 0.6, {Code.UNAVAILABLE: 0.05, Code.DEADLINE_EXCEEDED: 0.01}),
    Busy(CLIENT, "/mail.v2.Outbox/Send", UNARY, 6, 0.007, 0.4, {}),
)

# What is in flight: method, seconds since it began, and its timeout.
FLYING = (
    ("/shop.v1.Orders/Watch", STREAM, 41.0, None),
    ("/shop.v1.Orders/Watch", STREAM, 12.5, 60.0),
    ("/shop.v1.Stock/Upload", UPLOAD, 3.1, 3.5),
    ("/shop.v1.Catalog/Search", STREAM, 0.4, 2.0),
    ("/shop.v1.Catalog/Search", STREAM, 0.02, 2.0),
)


@contextmanager
def shop() -> Generator[Rpcz]:
    """A minute of it, with some RPCs in flight, and guards in several states."""
    clock, chance = FakeClock(), random.Random(4)
    rpcz = Rpcz(_guards(clock), title="shop", details=True, clock=clock, wall=lambda: NOON + clock.now())
    for second in range(60):
        for method in METHODS:
            _second(rpcz, clock, method, second, chance)
        clock._time += 1.0
    flows = [flow for flying in FLYING for flow in _flying(rpcz, clock, *flying, chance)]
    yield rpcz
    for flow in flows:
        flow.close()


def _second(rpcz: Rpcz, clock: FakeClock, method: Busy, second: int, chance: random.Random) -> None:
    """What ends of one method in one second."""
    began = clock.now()
    call = incoming(method.kind, method=method.method, peer=_peer(chance), clock=clock)
    if method.side is CLIENT:
        call = Call(Method(method.method, method.kind))
    wave = 1 + 0.35 * math.sin(second / 7) + (1.2 if second in ILL else 0)
    for _ in range(math.floor(method.rate * wave * chance.uniform(0.7, 1.3) + chance.random())):
        ended = began + chance.random()
        context._request_id.set(f"{chance.getrandbits(128):032x}")
        clock._time = ended - method.median * math.exp(chance.gauss(0, method.spread))
        flow = rpcz(call)
        flow.send(None)
        clock._time = ended
        with suppress(StopIteration):
            flow.send(copy(_ending(method, second in ILL, chance)))
    clock._time = began


def _ending(method: Busy, ill: bool, chance: random.Random) -> Outcome:
    for code, share in method.codes.items():
        if chance.random() < share * (5 if ill and method.side is CLIENT else 1):
            return ENDINGS[code]
    return ENDINGS[Code.OK]


ENDINGS = {
    Code.OK: play(chain(), [ok("answer")]).outcome,
    **{
        code: play(chain(), [failed(code, details)]).outcome
        for code, details in {
            Code.NOT_FOUND: "there is no such order",
            Code.FAILED_PRECONDITION: "the basket is empty",
            Code.ABORTED: "the order was changed meanwhile",
            Code.CANCELLED: "the client cancelled",
            Code.DEADLINE_EXCEEDED: "the deadline passed",
            Code.UNAVAILABLE: "the card service does not answer",
        }.items()
    },
}


def _flying(
    rpcz: Rpcz, clock: FakeClock, method: str, kind: Kind, age: float, timeout: float | None, chance: random.Random
) -> Iterator[Flow]:
    """An RPC that began some time ago, and goes on."""
    now = clock.now()
    clock._time = now - age
    context._request_id.set(f"{chance.getrandbits(128):032x}")
    flow = rpcz(incoming(kind, method=method, timeout=timeout, peer=_peer(chance), clock=clock))
    flow.send(None)
    clock._time = now
    context._request_id.set(None)
    yield flow


def _peer(chance: random.Random) -> str:
    return f"ipv4:10.20.{chance.randint(0, 3)}.{chance.randint(2, 99)}:{chance.randint(40_000, 60_000)}"


def _guards(clock: FakeClock) -> list[Any]:
    """A breaker that is open and one that is closed, a limit that has refused, one that is far from full, and a budget."""
    breaker = CircuitBreaker(minimum=4, clock=clock, open_for=100, key=lambda call: str(call.metadata.get("target")))
    for target, act in (("dns:///pay:443", failed(Code.UNAVAILABLE)), ("dns:///mail:443", ok())):
        for _ in range(4):
            play(breaker, [act], metadata=[("target", target)], clock=clock)
    limit = RateLimit("20/second")
    for _ in range(23):
        play(limit, [ok(), ...], side=SERVER, clock=clock)
    budget = RetryBudget(100)
    for _ in range(17):
        budget.failed(0.0)
    return [breaker, limit, ConcurrencyLimit(64), Retry(budget=budget)]
