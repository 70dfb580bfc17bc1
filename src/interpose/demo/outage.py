"""An outage: three clients make the same calls, side by side, each to a server of its own that fails at the same calls.

Before the outage a call in twenty is refused once, and another one is slow once. During it all are refused. Behind it
all is well.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

import grpc
import grpc.aio

from interpose import Call, Flow, errors, intercept_channel, server_interceptor
from interpose.demo.aio_services import RouteGuide
from interpose.demo.interceptors import REQUEST_ID
from interpose.demo.load import TIMEOUT, Tell
from interpose.demo.messages import Name, RouteGuideStub, add_RouteGuideServicer_to_server
from interpose.demo.people import People
from interpose.demo.servers import GRACE
from interpose.demo.stack import RETRIED, Stack
from interpose.interceptors import CircuitBreaker, Hedge, Retry, RetryBudget
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.window import calls
from interpose.testing import FakeClock

BEFORE, DURING, AFTER = PHASES = ("before", "during", "after")
CALLS = {BEFORE: 160, DURING: 300, AFTER: 160}  # that each client makes
# At the same time. Behind the outage one by one: on a busy machine others would run ahead while the breaker probes.
AT_ONCE = {BEFORE: 6, DURING: 6, AFTER: 1}
EVERY = 20  # of this number of calls one is refused once, and one is slow
PACE = 0.006  # seconds between two calls of a client

SLOW = 0.4  # seconds that a slow answer takes
SLOWLY = "x-slowly"  # metadata behind a slow answer
HEDGE_AFTER = 0.03  # seconds; beyond what a quick answer takes here
OPEN_FOR = 0.25  # seconds between two probes of the circuit breaker

BARE, RETRY, HEDGE = CLIENTS = ("without the stack", "Retry", "Hedge + CircuitBreaker")


@dataclass(frozen=True)
class Ask:
    """One call as its client saw it.

    slowly: whether it was given a slow answer. seconds: that it took. ended: when, on the monotonic clock.
    """

    number: int
    phase: str
    answered: bool
    slowly: bool
    seconds: float
    ended: float


@dataclass
class Passage:
    """How one client came through.

    attempts:  that reached its server, in each phase.
    recovered: when the server was well again, on the monotonic clock.
    """

    client: str
    asks: list[Ask] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    recovered: float = 0.0

    def during(self, *phases: str) -> list[Ask]:
        """The calls of these phases."""
        return [ask for ask in self.asks if ask.phase in phases]

    def answered(self, phase: str) -> float:
        """The share of its calls that were answered."""
        asks = self.during(phase)
        return sum(ask.answered for ask in asks) / len(asks)

    def load(self) -> float:
        """Attempts that reached the failing server, per call."""
        return self.attempts[DURING] / CALLS[DURING]

    def waits(self) -> list[float]:
        """Seconds that the calls took which were answered."""
        return [ask.seconds for ask in self.asks if ask.answered]

    def slow(self) -> int:
        """How many calls were given a slow answer."""
        return sum(ask.slowly for ask in self.asks)

    def normal_after(self) -> float:
        """Seconds from the server's recovery to the end of the last call that failed; 0 if none did."""
        return max((ask.ended - self.recovered for ask in self.during(AFTER) if not ask.answered), default=0.0)


class Patient:
    """Lets a handler fail as its phase wants: an interceptor of a server."""

    def __init__(self) -> None:
        self.phase: str = BEFORE
        self.attempts: dict[str, int] = dict.fromkeys(PHASES, 0)
        self._arrivals: Counter[str] = Counter()

    def __call__(self, call: Call) -> Flow:
        request_id = str(call.metadata.get(REQUEST_ID))
        self.attempts[self.phase] += 1
        self._arrivals[request_id] += 1
        faulty, number = self.phase == BEFORE and self._arrivals[request_id] == 1, int(request_id)
        if self.phase == DURING or (faulty and refused_once(number)):
            raise errors.Unavailable("refused on purpose")
        if not (faulty and slow_once(number)):
            return (yield call)
        outcome = yield call.after(SLOW)
        return outcome.with_trailing_metadata((SLOWLY, "yes"))


def refused_once(number: int) -> bool:
    """Does the first attempt of this call fail, before the outage?"""
    return number % EVERY == EVERY // 4


def slow_once(number: int) -> bool:
    """Is the answer to the first attempt of this call a slow one?"""
    return number % EVERY == EVERY // 2


def client_stack(client: str, clock: FakeClock) -> Stack:
    """What a client gets; `clock` gives its circuit breaker the time."""
    budget = RetryBudget()
    retry = Retry(codes=RETRIED, backoff=exponential(0.01, cap=0.1), budget=budget, safe=True)
    breaker = CircuitBreaker(minimum=5, window=calls(10), open_for=OPEN_FOR, probes=1, clock=clock)
    hedge = Hedge(delay=HEDGE_AFTER, codes=RETRIED, budget=budget, safe=True)
    stacks: dict[str, Stack] = {BARE: (), RETRY: (retry,), HEDGE: (hedge, breaker)}
    return stacks[client]


async def outage(tell: Tell) -> list[Passage]:
    """Send the three clients through it at the same time."""
    return await asyncio.gather(*(_pass(client, tell) for client in CLIENTS))


async def _pass(client: str, tell: Tell) -> Passage:
    patient, clock, passage = Patient(), FakeClock(), Passage(client)
    async with _server(patient) as target, grpc.aio.insecure_channel(target) as bare:
        stack = client_stack(client, clock)
        caller = _Caller(intercept_channel(bare, *stack) if stack else bare, clock, tell)
        for phase in PHASES:
            patient.phase = phase
            if phase == AFTER:
                passage.recovered = monotonic()
            passage.asks += await caller.make(phase)
    passage.attempts = patient.attempts
    return passage


class _Caller:
    """Makes the calls, and moves the time of the circuit breaker with each.

    So the breaker counts the seconds of the load: a machine that is slow makes fewer calls in a second, and with its own
    clock the breaker would let more of them through.
    """

    def __init__(self, channel: grpc.aio.Channel, clock: FakeClock, tell: Tell) -> None:
        self._ask = RouteGuideStub(channel).GetPerson
        self._clock = clock
        self._tell = tell
        self._number = 0

    async def make(self, phase: str) -> list[Ask]:
        """Make all calls of a phase; back when they have ended."""
        slots = asyncio.Semaphore(AT_ONCE[phase])
        asks: list[asyncio.Task[Ask]] = []
        async with asyncio.TaskGroup() as running:
            for _ in range(CALLS[phase]):
                await asyncio.sleep(PACE)
                await slots.acquire()
                self._clock.advance(PACE)
                ask = running.create_task(self._make(phase, self._number))
                ask.add_done_callback(lambda _: slots.release())
                asks.append(ask)
                self._number += 1
        return [ask.result() for ask in asks]

    async def _make(self, phase: str, number: int) -> Ask:
        began = monotonic()
        call = self._ask(Name(value="Ada"), timeout=TIMEOUT, metadata=((REQUEST_ID, str(number)),))
        answered = await call.code() is grpc.StatusCode.OK
        ended = monotonic()
        slowly = answered and any(key == SLOWLY for key, _ in await call.trailing_metadata())
        self._tell()
        return Ask(number, phase, answered, slowly, ended - began, ended)


@asynccontextmanager
async def _server(patient: Patient) -> AsyncGenerator[str]:
    server = grpc.aio.server(interceptors=[server_interceptor(patient)])
    add_RouteGuideServicer_to_server(RouteGuide(People()), server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield target
    finally:
        await server.stop(GRACE)
