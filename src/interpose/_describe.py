"""A stack in words: what it does to a method, in order, and what in that order is known to be wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from interpose._flow import Chain, Interceptor, check, name_of
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
    Rule("FaultInjection", "Retry", "faults are not retried, as those of a server would be"),
)


def describe(*interceptors: Interceptor, method: str = "/package.Service/Method") -> str:
    """What a stack does to a method, one line per interceptor, the first outermost; and what in its order is wrong.

    `print(describe(*stack, method="/shop.v1.Orders/Place"))`. Those whose `when` leaves the method out are not shown.

    TypeError for anything that is no interceptor.
    """
    for interceptor in interceptors:
        check(interceptor)
    shown = list(_applying(interceptors, Method(method, Kind.UNARY_UNARY)))
    names = [name_of(interceptor) for interceptor in shown]
    width = max(map(len, names), default=0)
    lines = [
        f"  {number}. {name.ljust(width)}  {_purpose(interceptor)}".rstrip()
        for number, (name, interceptor) in enumerate(zip(names, shown, strict=True), 1)
    ]
    return "\n".join([method, *(lines or ["  nothing applies"]), *(f"! {wrong}" for wrong in _mistakes(names))])


def _applying(interceptors: tuple[Interceptor, ...], method: Method) -> Iterator[Interceptor]:
    """Those that see this method, chains opened."""
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            yield from _applying(interceptor.select(method), method)
        else:
            yield interceptor


def _purpose(interceptor: Any) -> str:
    """The first sentence that it says of itself, if it says any."""
    own = interceptor if inspect.isroutine(interceptor) else type(interceptor)
    return (inspect.getdoc(own) or "").partition("\n")[0]


def _mistakes(names: list[str]) -> Iterator[str]:
    """What is known to be wrong in this order."""
    for place, outer in enumerate(names):
        for inner in dict.fromkeys(names[place + 1 :]):
            for rule in RULES:
                if (rule.outer, rule.inner) == (outer, inner):
                    yield f"{outer} stands outside of {inner}: {rule.why}"
