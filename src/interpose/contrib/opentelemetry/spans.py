"""How the spans of one method begin and end: all that is known of them before there is an RPC."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, Tracer
from opentelemetry.trace import StatusCode as Verdict

from interpose._method import Method, Side
from interpose._outcome import Outcome
from interpose.contrib.opentelemetry.conventions import Attributes, Conventions
from interpose.errors import StatusError
from interpose.mechanisms.text import one_line

MAX_DESCRIPTION = 1024  # characters of the details of a failure
NOTHING: Attributes = {}


class Spans:
    """The spans of one method on one side.

    name:       what they are called.
    exceptions: show the text and traceback of an exception that is no status, beside its class?
    """

    __slots__ = ("_attributes", "_endings", "_exceptions", "_kind", "_name", "_tracer")

    def __init__(
        self, tracer: Tracer, conventions: Conventions, method: Method, side: Side, name: str, exceptions: bool
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._kind = SpanKind.SERVER if side is Side.SERVER else SpanKind.CLIENT
        self._attributes = conventions.of_method(method) | conventions.of_path(method)
        self._endings = conventions.endings(side)
        self._exceptions = exceptions

    def start(self, context: Context, links: Sequence[Link] | None = None) -> Span:
        """A span begins, below that of the context."""
        return self._tracer.start_span(self._name, context, self._kind, self._attributes, links)

    def end(self, span: Span, outcome: Outcome, more: Attributes = NOTHING) -> None:
        """It ends, as the outcome says. more: what else is known by now."""
        failed, attributes = self._endings[outcome.code]
        for name, value in (*attributes.items(), *more.items()):  # the SDK takes as long for three as for all at once
            span.set_attribute(name, value)
        if failed:
            span.set_status(Status(Verdict.ERROR, one_line(outcome.details, MAX_DESCRIPTION) or None))
        error = outcome.error
        if error is not None and not isinstance(error, StatusError):
            self._raised(span, error)
        span.end()

    def said_of(self, outcome: Outcome) -> Attributes:
        """What an event says of an outcome."""
        return self._endings[outcome.code][1]

    def _raised(self, span: Span, error: BaseException) -> None:
        """An exception that is no status. Its text may hold what is not meant for those who read spans."""
        if self._exceptions:
            span.record_exception(error)
        else:
            span.add_event("exception", {"exception.type": type(error).__qualname__})
