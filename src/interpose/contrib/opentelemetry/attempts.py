"""The attempts of an RPC: as events of its span, or as spans below it."""

from __future__ import annotations

import time
from collections import deque
from itertools import count

from opentelemetry.context import Context, create_key, get_current
from opentelemetry.trace import Link, Span, SpanContext, set_span_in_context

from interpose._call import Call
from interpose._flow import Flow
from interpose._outcome import Outcome
from interpose.contrib.opentelemetry.faults import Faults
from interpose.contrib.opentelemetry.propagation import SPAN, injected
from interpose.contrib.opentelemetry.spans import Spans

EVENT = "interpose.attempt"
NUMBER = "interpose.attempt"  # from 1
ELAPSED = "interpose.elapsed"  # seconds
HEDGED = "interpose.hedged"  # on a link to a copy that was under way when this one was sent


class Rpc:
    """An RPC that has a span. Copies of a hedged call begin and end on any thread: nothing is locked.

    owner:  the layer whose business its attempts are; None: of no layer.
    records: is its span one that is kept? Then its end is recorded.
    before: the context in which it began. That in which it runs has the span, and this.
    over:   the span has ended, and is current no longer, although nothing was detached.
    """

    __slots__ = ("before", "held", "last", "numbers", "over", "owner", "records", "running", "span")

    def __init__(self, span: Span, before: Context, records: bool, owner: Events | Children | None = None) -> None:
        self.owner = owner
        self.records = records
        self.span = span
        self.before = before
        self.over = False
        self.last = 0  # attempts that have begun
        if owner is not None:
            self.numbers = count(1)
            self.running: dict[int, SpanContext] = {}
            self.held: deque[tuple[int, int, Outcome]] = deque()  # ended, and not reported: number, when, how


_KEY = create_key("interpose.rpc")


def context_of(rpc: Rpc, context: Context) -> Context:
    """The context in which an RPC runs, made of one that has all else."""
    return Context({**context, SPAN: rpc.span, _KEY: rpc})


def _attempted(owner: Events | Children) -> Rpc | None:
    """The RPC that an attempt is of; there may be another interceptor's between the two."""
    rpc = get_current().get(_KEY)
    while isinstance(rpc, Rpc) and rpc.owner is not owner:
        rpc = rpc.before.get(_KEY)
    return rpc if isinstance(rpc, Rpc) else None


def current_context() -> Context:
    """The context that is current here, without a span that was left in it: another attempt may follow the one that made it."""
    context = get_current()
    rpc = context.get(_KEY) if context else None
    return rpc.before if isinstance(rpc, Rpc) and rpc.over else context


class _Attempts:
    """What has a layer inside of all other interceptors."""

    def __init__(self, spans: Spans, faults: Faults) -> None:
        self._spans = spans
        self._faults = faults


class Events(_Attempts):
    """An event of the RPC's span for each attempt that ends. An only attempt has none: the span itself says it all."""

    carry = False  # do attempts carry a span of their own?

    def layer(self, call: Call) -> Flow:
        """Inside of all other interceptors."""
        rpc = _attempted(self)
        if rpc is None:
            yield call
            return
        number = rpc.last = next(rpc.numbers)
        outcome = yield call
        rpc.held.append((number, time.time_ns(), outcome))
        self.told(rpc)

    def told(self, rpc: Rpc) -> None:
        """Report what has ended, if it was not the only one."""
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


class Children(_Attempts):
    """A span below that of the RPC for each attempt; what is sent carries that one."""

    carry = True

    def layer(self, call: Call) -> Flow:
        """Inside of all other interceptors."""
        rpc = _attempted(self)
        if rpc is None:
            yield call
            return
        span, number = None, next(rpc.numbers)
        try:
            context = get_current()
            span = self._spans.start(context, [Link(other, {HEDGED: True}) for other in list(rpc.running.values())])
            rpc.running[number] = span.get_span_context()
            call = injected(call, set_span_in_context(span, context), span.get_span_context())
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
