"""What in the order of a stack is known to be wrong. `describe` shows it, and the log has it where a stack is put to use."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import NamedTuple

from interpose._flow import Chain, Interceptor, When, named

_log = logging.getLogger("interpose")


class Rule(NamedTuple):
    """An interceptor of class `outer` outside of one of class `inner` is a mistake."""

    outer: str
    inner: str
    why: str

    def __str__(self) -> str:
        return f"{self.outer} is outside of {self.inner}: {self.why}"


# By the names of the classes, so that none has to be imported. docs/stack-order.md shows what goes wrong.
RULES = (
    Rule("CircuitBreaker", "Retry", "the breaker counts all attempts as one call, and lets too many through"),
    Rule("CircuitBreaker", "Hedge", "the breaker counts all copies as one call"),
    Rule("Retry", "Deadline", "each attempt gets the whole time again"),
    Rule("Hedge", "Deadline", "each copy gets the whole time again"),
    Rule("Retry", "Fallback", "the first failure is answered, and nothing is ever retried"),
    Rule("Hedge", "Fallback", "the first copy that fails is answered, and wins"),
    Rule("Retry", "Coalesce", "those who wait for one call each send their own attempts when it fails"),
    Rule("Hedge", "Coalesce", "a copy waits for the call that it should outrun"),
    Rule("Hedge", "Retry", "each copy is retried: a slow server is sent many times the load"),
    Rule("Retry", "Hedge", "each attempt is hedged: use one of them"),
    Rule("Retry", "RequestId", "each attempt may get an id of its own"),
    Rule("Retry", "Cache", "answers that are kept count for the budget, as if the server had given them"),
    Rule("Hedge", "Cache", "each copy looks for the answer that the call itself should have found"),
    Rule("ExceptionToStatus", "AccessLog", "the log sees the exception, and not the status that the caller sees"),
    Rule("RateLimit", "RealIp", "all who come through a proxy are counted as one"),
    Rule("ConcurrencyLimit", "AccessLog", "calls that are refused are not in the log"),
    Rule("Authorize", "Authenticate", "who calls is not known yet, and every call is denied"),
    Rule("Authenticate", "AccessLog", "calls that are refused are not in the log"),
    Rule("Authorize", "AccessLog", "calls that are denied are not in the log"),
    Rule("BearerToken", "Retry", "every attempt is sent with the token of the first"),
    Rule("BearerToken", "Hedge", "every copy is sent with the token of the first"),
    Rule("ConcurrencyLimit", "PrometheusMetrics", "calls that are refused are not counted"),
    Rule("RateLimit", "PrometheusMetrics", "calls that are refused are not counted"),
    Rule("Authenticate", "PrometheusMetrics", "calls that are refused are not counted"),
    Rule("Authorize", "PrometheusMetrics", "calls that are denied are not counted"),
    Rule("ExceptionToStatus", "PrometheusMetrics", "an exception is counted, and not the status that the caller sees"),
    Rule("ExceptionToStatus", "Tracing", "the span shows the exception, and not the status that the caller sees"),
    Rule("ExceptionToStatus", "OtelMetrics", "an exception is counted, and not the status that the caller sees"),
    Rule("ConcurrencyLimit", "Tracing", "calls that are refused have no span"),
    Rule("Authenticate", "Tracing", "calls that are refused have no span"),
    Rule("Authorize", "Tracing", "calls that are denied have no span"),
    Rule("ConcurrencyLimit", "OtelMetrics", "calls that are refused are not counted"),
    Rule("ExceptionToStatus", "Rpcz", "the page shows the exception, and not the status that the caller sees"),
    Rule("ConcurrencyLimit", "Rpcz", "calls that are refused are not on the page"),
    Rule("Authenticate", "Rpcz", "calls that are refused are not on the page"),
    Rule("Authorize", "Rpcz", "calls that are denied are not on the page"),
    Rule("Validate", "AccessLog", "calls that are refused are not in the log"),
    Rule("Validate", "RateLimit", "calls that are refused are not counted"),
    Rule("Validate", "Authenticate", "messages of unknown callers are judged for nothing"),
    Rule("FaultInjection", "Retry", "faults are not retried, as those of a server would be"),
)
WHY = {(rule.outer, rule.inner): rule for rule in RULES}

# Of these it is enough that another one is further out: it counts, limits or identifies what the one inside does not see.
ENOUGH_OUTSIDE = frozenset(
    {"AccessLog", "Authenticate", "Deadline", "OtelMetrics", "PrometheusMetrics", "RateLimit", "RealIp", "RequestId"}
    | {"Rpcz", "Tracing"}
)

_said: set[Rule] = set()  # in this process; a client may make a channel for each call


class Placed(NamedTuple):
    """An interceptor of a stack, and the conditions under which it sees a call."""

    interceptor: Interceptor
    conditions: tuple[When, ...] = ()

    @property
    def kind(self) -> str:
        """The name of our class that it is of; empty for what a user wrote, which may have any name."""
        classes = inspect.getmro(type(self.interceptor))
        return next((each.__name__ for each in classes if each.__module__.startswith("interpose.")), "")

    def sees(self, other: Placed) -> bool:
        """Is it certain that it sees every call that the other one sees?"""
        return set(self.conditions) <= set(other.conditions)


def opened(interceptors: tuple[Interceptor, ...], conditions: tuple[When, ...] = ()) -> Iterator[Placed]:
    """All of them, chains opened; a chain that chooses in a way of its own stays closed."""
    for interceptor in interceptors:
        if isinstance(interceptor, When):
            yield from opened(interceptor.interceptors, (*conditions, interceptor))
        elif isinstance(interceptor, Chain) and not interceptor.closed:
            yield from opened(interceptor.interceptors, conditions)
        else:
            yield Placed(interceptor, conditions)


def mistakes(stack: list[Placed]) -> Iterator[Rule]:
    """The rules that this order breaks, of those that see the same calls."""
    for place, outer in enumerate(stack):
        for inner in stack[place + 1 :]:
            rule = WHY.get((outer.kind, inner.kind))
            if rule and (outer.sees(inner) or inner.sees(outer)) and not _is_made_good(inner, stack[:place]):
                yield rule


def _is_made_good(inner: Placed, outside: list[Placed]) -> bool:
    return inner.kind in ENOUGH_OUTSIDE and any(other.kind == inner.kind and other.sees(inner) for other in outside)


def warn_of_order(interceptors: tuple[Interceptor, ...]) -> None:
    """A line in the log for each mistake that this process has not said yet."""
    for rule in mistakes(list(opened(interceptors))):
        if rule not in _said:
            _said.add(rule)
            _log.warning("interceptors: %s, in the stack %s", rule, named(interceptors))
