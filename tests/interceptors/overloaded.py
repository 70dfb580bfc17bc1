"""A server in simulated time, with a limit in front of it: what an overload does to those that are admitted."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from interpose import Call, Kind, Outcome, Side, errors
from interpose._flow import Wait
from interpose._method import Method
from interpose.interceptors import ConcurrencyLimit
from interpose.testing import FakeClock

USEFUL = 1.0  # seconds: an answer that comes later is of no use to its caller


@dataclass
class Served:
    """What became of the calls that arrived in a span of time. times: seconds that the admitted ones took."""

    times: list[float] = field(default_factory=list)
    shed: int = 0
    important: list[bool] = field(default_factory=list)  # of the calls of high priority: was it served?

    @property
    def useful(self) -> int:
        """Answers that came in time."""
        return sum(time <= USEFUL for time in self.times)

    def quantile(self, share: float) -> float:
        """The seconds that this share of the admitted took at most."""
        return sorted(self.times)[int(share * (len(self.times) - 1))]


class Server:
    """Works on `units` calls at a time, the rest waits inside of it in the order of arrival."""

    def __init__(self, limit: ConcurrencyLimit, clock: FakeClock, units: int, service: float, seed: int = 1) -> None:
        self.units = units
        self.service = service
        self._limit = limit
        self._clock = clock
        self._method = Method("/shop.v1.Orders/Place", Kind.UNARY_UNARY, clock=clock)
        self._random = random.Random(seed)
        self._ends: list[tuple[float, int, float, Any]] = []
        self._inside: list[tuple[float, Any]] = []
        self._waiting: list[tuple[Any, Any, bool]] = []
        self._numbers = itertools.count()

    def serve(self, rate: float, seconds: float, important: float = 0.0) -> Served:
        """So many calls per second arrive at random for a time; this share of them with a high priority."""
        served, arrival = Served(), self._clock.now()
        until = arrival + seconds
        while (arrival := arrival + self._random.expovariate(rate)) < until:
            self._run_until(arrival, served)
            self._clock.advance(max(arrival - self._clock.now(), 0))
            self._arrive(served, self._random.random() < important)
            self._look(served)
        return served

    def _arrive(self, served: Served, important: bool) -> None:
        flow = self._flow(important)
        self._move(flow, partial(next, flow), important, served)

    def _flow(self, important: bool) -> Any:
        priority = (("x-priority", "10"),) if important else ()
        return self._limit(Call(self._method, Side.SERVER, "hello", metadata=priority))

    def _move(self, flow: Any, move: Callable[[], Any], important: bool, served: Served) -> None:
        """A flow goes on: to wait, to be worked on, or to be refused."""
        try:
            step = move()
        except errors.StatusError:
            served.shed += 1
            served.important += [False] * important
            return
        if type(step) is Wait:
            self._waiting.append((step, flow, important))
            return
        self._admit(flow, important, served)

    def _admit(self, flow: Any, important: bool, served: Served) -> None:
        """A flow has its slot."""
        served.important += [True] * important
        self._inside.append((self._clock.now(), flow))
        self._work()

    def _look(self, served: Served) -> None:
        """Those that wait go on if they have an answer, or if their time is over."""
        waiting, self._waiting = self._waiting, []
        for step, flow, important in waiting:
            if step.awaitable.done():
                self._move(flow, partial(flow.send, step.awaitable.result()), important, served)
            elif step.deadline <= self._clock.now():
                self._move(flow, partial(flow.throw, errors.DeadlineExceeded("in vain")), important, served)
            else:
                self._waiting.append((step, flow, important))

    def _work(self) -> None:
        while self._inside and len(self._ends) < self.units:
            began, flow = self._inside.pop(0)
            end = self._clock.now() + self.service * self._random.uniform(0.8, 1.2)
            heapq.heappush(self._ends, (end, next(self._numbers), began, flow))

    def _run_until(self, time: float, served: Served) -> None:
        while self._ends and self._ends[0][0] <= time:
            end, _, began, flow = heapq.heappop(self._ends)
            self._clock.advance(max(end - self._clock.now(), 0))
            finish(flow)
            served.times.append(end - began)
            self._work()
            self._look(served)


SLICE = 0.0005  # seconds that a handler works before it lets others go on
TURN = 0.0001  # seconds of a turn of the loop beside that


@dataclass
class Job:
    """A call on its way through an asyncio server. left: seconds of work."""

    arrived: float
    important: bool
    left: float


class Loop(Server):
    """An asyncio server on one CPU: handlers go on in turns, and grpc takes up one call in so many turns of the loop.

    Until then a call is not seen, and grows older. Measured: 5 turns with grpcio 1.85, 3 with 1.66.
    """

    def __init__(self, limit: ConcurrencyLimit, clock: FakeClock, turns: int, service: float, seed: int = 1) -> None:
        super().__init__(limit, clock, 1, service, seed)
        self._turns = turns
        self._turned = 0
        self._unseen: deque[Job] = deque()
        self._jobs: dict[Any, Job] = {}  # those that were taken up, by their flows
        self._busy: list[Any] = []

    def _arrive(self, served: Served, important: bool) -> None:
        self._unseen.append(Job(self._clock.now(), important, self.service))

    def _run_until(self, time: float, served: Served) -> None:
        while self._clock.now() < time:
            self._clock.advance(TURN + SLICE * len(self._busy))
            for flow in self._busy.copy():
                self._go_on(flow, served)
            self._look(served)
            self._turned += 1
            if self._turned >= self._turns:
                self._take_up(served)

    def _go_on(self, flow: Any, served: Served) -> None:
        job = self._jobs[flow]
        job.left -= SLICE
        in_time = self._in_time(job)
        if job.left > 0 and in_time:
            return
        self._busy.remove(flow)
        del self._jobs[flow]
        served.important += [in_time] * job.important
        if in_time:
            served.times.append(self._clock.now() - job.arrived)
        finish(flow, grpc.StatusCode.OK if in_time else grpc.StatusCode.DEADLINE_EXCEEDED)

    def _take_up(self, served: Served) -> None:
        """The next call that its caller still waits for."""
        while self._unseen:
            job = self._unseen.popleft()
            if self._in_time(job):
                self._turned = 0
                flow = self._flow(job.important)
                self._jobs[flow] = job
                self._move(flow, partial(next, flow), job.important, served)
                return
            served.important += [False] * job.important

    def _in_time(self, job: Job) -> bool:
        return self._clock.now() - job.arrived <= USEFUL

    def _admit(self, flow: Any, important: bool, served: Served) -> None:
        self._busy.append(flow)


def finish(flow: Any, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
    """The call of this flow has ended."""
    try:
        flow.send(Outcome(code))
    except StopIteration:
        return
    raise AssertionError("it sent the call again")


def simulated(limit: Callable[[FakeClock], ConcurrencyLimit], units: int, service: float) -> Server:
    """A server behind a limit that reads the same simulated clock."""
    clock = FakeClock()
    return Server(limit(clock), clock, units, service)
