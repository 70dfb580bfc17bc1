"""A stack in words: what it does to a method, in order, and what in that order is known to be wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from interpose._flow import Chain, Interceptor, When, check, name_of
from interpose._method import Kind, Method


class Rule(NamedTuple):
    """An interceptor of class `outer` outside of one of class `inner` is a mistake."""

    outer: str
    inner: str
    why: str


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


class _Shown(NamedTuple):
    """An interceptor, and the conditions under which it sees a call."""

    interceptor: Interceptor
    conditions: tuple[When, ...]

    @property
    def name(self) -> str:
        conditions = "".join(f"when {when.said}: " for when in self.conditions)
        return conditions + name_of(self.interceptor)


def describe(*interceptors: Interceptor, method: str | None = None) -> str:
    """What a stack does to a method, one line per interceptor, the first outermost; and what in its order is wrong.

    `print(describe(*stack, method="/shop.v1.Orders/Place"))`. Those whose `when` leaves the method out are not shown.
    Without a method all are shown, those of a `when` with its condition.

    TypeError for anything that is no interceptor.
    """
    for interceptor in interceptors:
        check(interceptor)
    applying = _opened(interceptors) if method is None else _applying(interceptors, Method(method, Kind.UNARY_UNARY))
    shown = list(applying)
    width = max((len(one.name) for one in shown), default=0)
    lines = [
        f"  {number}. {one.name.ljust(width)}  {_purpose(one.interceptor, method)}".rstrip()
        for number, one in enumerate(shown, 1)
    ]
    mistakes = [f"! {wrong}" for wrong in _mistakes(shown)]
    return "\n".join([method or "every method", *(lines or ["  nothing applies"]), *mistakes])


def _applying(interceptors: tuple[Interceptor, ...], method: Method) -> Iterator[_Shown]:
    """Those that see this method, chains opened."""
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            yield from _applying(interceptor.select(method), method)
        else:
            yield _Shown(interceptor, ())


def _opened(interceptors: tuple[Interceptor, ...], conditions: tuple[When, ...] = ()) -> Iterator[_Shown]:
    """All of them, chains opened; a chain that chooses in a way of its own stays closed."""
    for interceptor in interceptors:
        if isinstance(interceptor, When):
            yield from _opened(interceptor.interceptors, (*conditions, interceptor))
        elif isinstance(interceptor, Chain) and not interceptor.closed:
            yield from _opened(interceptor.interceptors, conditions)
        else:
            yield _Shown(interceptor, conditions)


def _purpose(interceptor: Any, method: str | None) -> str:
    """What it says of itself: by its method `described`, if it has one, or in the first sentence of its docstring."""
    if (described := getattr(interceptor, "described", None)) is not None:
        return str(described(None if method is None else Method(method, Kind.UNARY_UNARY)))
    own = interceptor if inspect.isroutine(interceptor) else type(interceptor)
    return (inspect.getdoc(own) or "").partition("\n")[0]


def _mistakes(shown: list[_Shown]) -> Iterator[str]:
    """What is known to be wrong in this order, of those that see the same calls."""
    for place, outer in enumerate(shown):
        for inner in dict.fromkeys(name_of(one.interceptor) for one in shown[place + 1 :] if _meet(outer, one)):
            for rule in RULES:
                if (rule.outer, rule.inner) == (name_of(outer.interceptor), inner):
                    yield f"{rule.outer} is outside of {rule.inner}: {rule.why}"


def _meet(one: _Shown, other: _Shown) -> bool:
    """Is it certain that one of them sees every call that the other sees?"""
    return set(one.conditions) <= set(other.conditions) or set(other.conditions) <= set(one.conditions)
