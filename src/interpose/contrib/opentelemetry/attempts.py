"""The attempts of an RPC: as events of its span, or as spans below it."""

from __future__ import annotations

import time
from collections import deque
from contextvars import ContextVar
from itertools import count

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, set_span_in_context

from interpose._call import Call
from interpose._flow import Flow
from interpose._outcome import Outcome
from interpose.contrib.opentelemetry.faults import Faults
from interpose.contrib.opentelemetry.propagation import injected
from interpose.contrib.opentelemetry.spans import Spans

EVENT = "interpose.attempt"
NUMBER = "interpose.attempt"  # from 1
ELAPSED = "interpose.elapsed"  # seconds
HEDGED = "interpose.hedged"  # on a link to a copy that was under way when this one was sent


class Rpc:
    """An RPC whose span records, for its attempts. Copies of a hedged call begin and end on any thread: nothing is locked.

    owner: the layer whose business they are. context: that of the span.
    """

    __slots__ = ("context", "held", "last", "numbers", "over", "owner", "running", "span")

    def __init__(self, owner: Events | Children, span: Span, context: Context) -> None:
        self.owner = owner
        self.span = span
        self.context = context
        self.numbers = count(1)
        self.last = 0  # how many have begun
        self.over = False
        self.running: dict[int, SpanContext] = {}
        self.held: deque[tuple[int, int, Outcome]] = deque()  # ended, and not told: number, when, how


current: ContextVar[Rpc | None] = ContextVar("interpose.contrib.opentelemetry.rpc", default=None)


class Events:
    """An event of the RPC's span for each attempt that ends. An only attempt has none: the span itself says it all."""

    carry = False  # do attempts carry a span of their own?

    def __init__(self, spans: Spans, faults: Faults) -> None:
        self._spans = spans
        self._faults = faults

    def layer(self, call: Call) -> Flow:
        """Inside of all other interceptors."""
        rpc = current.get()
        if rpc is None or rpc.owner is not self:
            yield call
            return
        number = rpc.last = next(rpc.numbers)
        outcome = yield call
        rpc.held.append((number, time.time_ns(), outcome))
        self.told(rpc)

    def told(self, rpc: Rpc) -> None:
        """Tell what has ended, if it was not the only one."""
        try:
            while rpc.last > 1 and not rpc.over and rpc.held:
                number, when, outcome = rpc.held.popleft()
                attributes = {NUMBER: number, ELAPSED: round(outcome.elapsed, 6), **self._spans.said_of(outcome)}
                rpc.span.add_event(EVENT, attributes, when)
        except BaseException:
            self._faults()

    def close(self, rpc: Rpc) -> None:
        """The span is about to end."""
        self.told(rpc)
        rpc.over = True


class Children:
    """A span below that of the RPC for each attempt; what is sent carries that one."""

    carry = True

    def __init__(self, spans: Spans, faults: Faults) -> None:
        self._spans = spans
        self._faults = faults

    def layer(self, call: Call) -> Flow:
        """Inside of all other interceptors."""
        rpc = current.get()
        if rpc is None or rpc.owner is not self:
            yield call
            return
        span, number = None, next(rpc.numbers)
        try:
            span = self._spans.start(rpc.context, [Link(other, {HEDGED: True}) for other in list(rpc.running.values())])
            rpc.running[number] = span.get_span_context()
            call = injected(call, set_span_in_context(span, rpc.context))
        except BaseException:
            self._faults()
        outcome = yield call
        try:
            rpc.running.pop(number, None)
            if span is not None:
                self._spans.end(span, outcome, {NUMBER: number})
        except BaseException:
            self._faults()

    def close(self, rpc: Rpc) -> None:
        """The RPC's span is about to end; each of these has its own end."""
