"""A stack in words: what it does to a method, in order, and what in that order is known to be wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from interpose._flow import Chain, Interceptor, check, name_of
from interpose._method import Kind, Method
from interpose._order import Placed, mistakes, opened


def describe(*interceptors: Interceptor, method: str | None = None) -> str:
    """What a stack does to a method, one line per interceptor, the first outermost; and what in its order is wrong.

    `print(describe(*stack, method="/shop.v1.Orders/Place"))`. Those whose `when` leaves the method out are not shown.
    Without a method all are shown, those of a `when` with its condition.

    TypeError for anything that is no interceptor.
    """
    for interceptor in interceptors:
        check(interceptor)
    applying = opened(interceptors) if method is None else _applying(interceptors, Method(method, Kind.UNARY_UNARY))
    shown = list(applying)
    width = max((len(_name(one)) for one in shown), default=0)
    lines = [
        f"  {number}. {_name(one).ljust(width)}  {_purpose(one.interceptor, method)}".rstrip()
        for number, one in enumerate(shown, 1)
    ]
    wrong = dict.fromkeys(f"! {rule}" for rule in mistakes(shown))
    return "\n".join([method or "every method", *(lines or ["  nothing applies"]), *wrong])


def _applying(interceptors: tuple[Interceptor, ...], method: Method) -> Iterator[Placed]:
    """Those that see this method, chains opened."""
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            yield from _applying(interceptor.select(method), method)
        else:
            yield Placed(interceptor)


def _name(placed: Placed) -> str:
    """Its name, behind its conditions."""
    conditions = "".join(f"when {when.said}: " for when in placed.conditions)
    return conditions + name_of(placed.interceptor)


def _purpose(interceptor: Any, method: str | None) -> str:
    """What it says of itself: by its method `described`, if it has one, or in the first sentence of its docstring."""
    if (described := getattr(interceptor, "described", None)) is not None:
        return str(described(None if method is None else Method(method, Kind.UNARY_UNARY)))
    own = interceptor if inspect.isroutine(interceptor) else type(interceptor)
    return (inspect.getdoc(own) or "").partition("\n")[0]
