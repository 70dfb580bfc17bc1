"""`Tracing`: a span for each RPC."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.trace import SpanKind, TracerProvider

from interpose._call import Call
from interpose._flow import Fitted, Flow
from interpose._method import Method, Side
from interpose._outcome import Outcome
from interpose._patterns import Patterns, listed, patterns
from interpose.contrib.opentelemetry.attempts import Children, Events, Rpc, context_of, current_context
from interpose.contrib.opentelemetry.conventions import (
    ONE_SEMCONV,
    ONE_STATUS,
    SCOPE,
    STATUS,
    Attributes,
    Conventions,
    Semconv,
)
from interpose.contrib.opentelemetry.faults import Faults
from interpose.contrib.opentelemetry.propagation import SPAN, extracted, injected
from interpose.contrib.opentelemetry.spans import NOTHING, Spans
from interpose.mechanisms.lru import Registry
from interpose.mechanisms.options import FLAG, check_options, must_be, option

_log = logging.getLogger("interpose")

HEALTH = "/grpc.health.v1.Health/*"
EXCLUDED = "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES"  # names of services, as opentelemetry-instrumentation-grpc reads them
INSTRUMENTATION = "opentelemetry.instrumentation.grpc"  # which makes spans of its own
ATTEMPTS = "interpose.attempts"  # how many an RPC took, if more than one
MAX_METHODS = 1024  # fitted for flows that call this one themselves

# The exporters set it while they send, so that sending spans makes no spans.
_SUPPRESSED = getattr(otel, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")


PROVIDER = "a TracerProvider, like that of opentelemetry.sdk.trace, or None"
ATTEMPTS_AS = ("events", "spans", None)


def _is_provider(value: object) -> bool:
    return value is None or callable(getattr(value, "get_tracer", None))


@dataclass(eq=False, repr=False)
class Tracing:
    """Make a span of each RPC, which lasts as long as the RPC does: for a stream until its end, whatever that is.

    On a server the span is current in the handler, of whichever shape, and its parent is what the client sent. On a
    client its parent is the span that is current where the stub is called, and what is sent carries it. Names and
    values are those of OpenTelemetry's semantic conventions; what they do not name begins with "interpose.".

    Outside of `Retry` and `Hedge` it makes one span per RPC, which says of each attempt how it ended; inside of them, one
    per attempt. A span that is not sampled costs little more than its propagation.

    A tracer or exporter that fails does not touch an RPC: the log says so once. Where opentelemetry-instrumentation-grpc
    is at work on the same channel or server, its spans are kept: this makes none there, and the log says so once.

    provider:   of OpenTelemetry's SDK, or any other; unless given, the global one, also if it is set later. While there
        is none, nothing is recorded, and what came in is passed on.
    semconv:    "new", "old" or "both" generations of names. Unless given "both" if OTEL_SEMCONV_STABILITY_OPT_IN has
        "rpc/dup", else "new".
    status:     the new attribute of the code: "rpc.status_code", or "rpc.response.status_code" as it was until 1.44.
    attempts:   "events": an event for each attempt, if there were several. "spans": a span below that of the RPC for each
        attempt, hedged copies with links to those under way. None: only their number. On a client.
    exclude:    patterns of methods, as in docs/when.md, that have no span. The health service unless given; always the
        services in OTEL_PYTHON_GRPC_EXCLUDED_SERVICES.
    exceptions: show the text and traceback of an exception that a handler raised and nothing made a status of. Its class
        is always shown; its text may hold secrets.

    ValueError listing every fault of these.
    """

    provider: TracerProvider | None = option(None, must_be(PROVIDER, _is_provider))
    _: KW_ONLY
    semconv: Semconv | None = option(None, ONE_SEMCONV)
    status: str = option(STATUS, ONE_STATUS)
    attempts: Literal["events", "spans"] | None = option(
        "events", must_be('"events", "spans" or None', ATTEMPTS_AS.__contains__)
    )
    exclude: str | Iterable[str] = option(HEALTH, patterns)
    exceptions: bool = option(False, FLAG)

    def __post_init__(self) -> None:
        self.exclude = listed(self.exclude)
        check_options(self)
        self.conventions = Conventions.of(self.semconv, self.status)
        self.tracer = trace.get_tracer(SCOPE, tracer_provider=self.provider)
        self.faults = Faults("Tracing")
        self._excluded = Patterns(self.exclude, owner="Tracing", field="exclude")
        self._services = services_excluded()
        self._stepped_back = False
        self._known: Registry[Method, Fitted] = Registry(MAX_METHODS, self.fitted)

    def __call__(self, call: Call) -> Flow:
        """For flows that call it; channels and servers use what is `fitted`."""
        layer = self._known[call.method].layer
        return (yield call) if layer is None else (yield from layer(call))

    def fitted(self, method: Method) -> Fitted:
        """What it does to a method: nothing, if that is excluded."""
        if self._excluded(method.full_name) or method.service in self._services:
            return Fitted(None)
        if method.target is not None and any(module.startswith(INSTRUMENTATION) for module in method.target.modules):
            self.step_back()
            return Fitted(None)
        traced = _Traced(self, method)
        return Fitted(traced.flow, None if traced.attempts is None else traced.attempts.layer)

    def step_back(self) -> None:
        """Another library makes the spans of this channel or server."""
        if not self._stepped_back:
            self._stepped_back = True
            _log.warning(
                "opentelemetry-instrumentation-grpc makes spans of the same RPCs: its spans are kept, and Tracing makes none "
                "there; for those of Tracing call uninstrument() of its instrumentor before you make the channel or server"
            )


class _Traced:
    """The spans of one method."""

    __slots__ = ("_arriving", "_conventions", "_faults", "_leaving", "_tracing", "attempts")

    def __init__(self, tracing: Tracing, method: Method) -> None:
        conventions = tracing.conventions
        name = conventions.span_name(method)

        def spans(side: Side, name: str) -> Spans:
            return Spans(tracing.tracer, conventions, method, side, name, tracing.exceptions)

        self._tracing = tracing
        self._conventions = conventions
        self._faults = tracing.faults
        self._arriving = spans(Side.SERVER, name)
        self._leaving = spans(Side.CLIENT, name)
        self.attempts: Events | Children | None = None
        if tracing.attempts == "events":
            self.attempts = Events(self._leaving, self._faults)
        elif tracing.attempts == "spans":
            # As gRPC's own spans are called (gRFC A72).
            name = f"Attempt.{name.removeprefix('/').replace('/', '.')}"
            self.attempts = Children(spans(Side.CLIENT, name), self._faults)

    def flow(self, call: Call) -> Flow:
        rpc, peer = None, None
        try:
            if call._side is Side.SERVER:
                rpc, peer = self._arrive(call)
            else:
                rpc, call = self._leave(call)
        except BaseException:
            self._faults()
        outcome = yield call
        if rpc is None:
            return
        if not rpc.records:
            rpc.over = True
            return
        try:
            self._end(rpc, call._side, outcome, peer)
        except BaseException:
            self._faults()

    # A span is made current and stays so: flows run in a context of the RPC's own, on whichever thread and in whichever
    # task they are. Nothing is detached, so nothing can be detached in the wrong place; and a log outside of this one
    # knows the span too.

    def _arrive(self, call: Call) -> tuple[Rpc | None, str | None]:
        """An incoming call gets a span, which is made current; and who called, if it records."""
        before = current_context()
        if before and _is_of_instrumentation(before.get(SPAN), SpanKind.SERVER):
            self._tracing.step_back()
            return None, None
        context = extracted(call.metadata, before)
        span = self._arriving.start(context)
        if not span.get_span_context().is_valid:
            attach(context)  # nothing traces, here or where it comes from; but there may be baggage
            return None, None
        rpc = Rpc(span, before, span.is_recording())
        attach(context_of(rpc, context))
        return rpc, call.peer if rpc.records else None

    def _leave(self, call: Call) -> tuple[Rpc | None, Call]:
        """An outgoing call gets a span, which is made current for what is further in; and the call that carries it."""
        context = current_context()
        if context:
            if context.get(_SUPPRESSED):
                return None, call
            if _is_of_instrumentation(context.get(SPAN), SpanKind.CLIENT):
                self._tracing.step_back()
                return None, call
        span = self._leaving.start(context)
        ids = span.get_span_context()
        if not ids.is_valid:
            return None, injected(call, context, ids) if context else call
        records = span.is_recording()
        rpc = Rpc(span, context, records, self.attempts if records else None)
        context = context_of(rpc, context)
        attach(context)
        return rpc, call if rpc.owner is not None and rpc.owner.carry else injected(call, context, ids)

    def _end(self, rpc: Rpc, side: Side, outcome: Outcome, peer: str | None) -> None:
        if rpc.owner is not None:
            rpc.owner.close(rpc)
        rpc.over = True
        if not rpc.span.is_recording():
            return
        more: Attributes = NOTHING if peer is None else self._conventions.of_peer(peer)
        if outcome.attempts > 1:
            more = {**more, ATTEMPTS: outcome.attempts}
        (self._arriving if side is Side.SERVER else self._leaving).end(rpc.span, outcome, more)


def _is_of_instrumentation(span: object, kind: SpanKind) -> bool:
    """Is it the span that opentelemetry-instrumentation-grpc has made of this very call?"""
    if getattr(span, "kind", None) is not kind:
        return False
    scope = getattr(span, "instrumentation_scope", None)
    return str(getattr(scope, "name", "")).startswith(INSTRUMENTATION)


def services_excluded() -> frozenset[str]:
    """The services that the environment excludes."""
    return frozenset(filter(None, map(str.strip, os.environ.get(EXCLUDED, "").split(","))))
