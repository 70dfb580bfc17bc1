"""All that a file may name: the batteries, and for each type of an option what can be there."""

from __future__ import annotations

import enum
import inspect
import logging
import types
from collections import abc
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from grpc import StatusCode

import interpose.interceptors
from interpose._clock import Clock
from interpose._identity import Identity, Verifier
from interpose.interceptors import authorize, circuit_breaker, keys, rate_limit
from interpose.interceptors.access_log import Redactor, Sink
from interpose.interceptors.rate_limit import Limit
from interpose.mechanisms.backoff import Backoff
from interpose.mechanisms.budget import Budget
from interpose.mechanisms.concurrency import Algorithm
from interpose.mechanisms.quantile import Quantile
from interpose.mechanisms.rate import Rate
from interpose.mechanisms.window import CallWindow, TimeWindow
from interpose.policy.forms import (
    CODES,
    Duration,
    ErrorClass,
    Flag,
    Form,
    Imported,
    ListOf,
    Logger,
    Names,
    Null,
    OneOf,
    Real,
    TableOf,
    Text,
    Whole,
)
from interpose.policy.makers import Maker, Parts

# Batteries that need a package more; interpose.interceptors says itself what it has. tests/policy holds that none is missing.
OF_EXTRAS = {
    "OtelMetrics": "interpose.contrib.opentelemetry",
    "PrometheusMetrics": "interpose.contrib.prometheus",
    "Tracing": "interpose.contrib.opentelemetry",
    "Validate": "interpose.contrib.validate",
}

# Options that are lengths of time, wherever their annotation is a number. tests/policy compares them with the docstrings.
SECONDS = {
    "cap",
    "cooldown",
    "delay",
    "initial",
    "leeway",
    "length",
    "margin",
    "open_for",
    "per",
    "per_attempt",
    "pushback",
    "queue_timeout",
    "refresh",
    "refresh_before",
    "seconds",
    "slow_call",
    "timeout",
    "ttl",
    "wait",
    "window",
}

# For a type of an option: the module of each class or function that makes one, and those that are there by name.
MAKERS: dict[Any, dict[str, str]] = {
    Algorithm: dict.fromkeys(("Gradient", "Vegas", "Aimd", "Fixed"), "interpose.mechanisms.concurrency"),
    Backoff: dict.fromkeys(("exponential", "full_jitter", "decorrelated"), "interpose.mechanisms.backoff"),
    Budget: dict.fromkeys(("RetryBudget", "RatioBudget", "Unlimited"), "interpose.mechanisms.budget"),
    CallWindow: {"calls": "interpose.mechanisms.window"},
    Identity: {"Identity": "interpose.interceptors"},
    Limit: {"Limit": "interpose.interceptors"},
    Quantile: {"quantile": "interpose.mechanisms.quantile"},
    Rate: {"Rate": "interpose.interceptors"},
    Redactor: {"Redactor": "interpose.interceptors"},
    Sink: {"Structlog": "interpose.contrib.structlog"},
    TimeWindow: {"seconds": "interpose.mechanisms.window"},
    Verifier: {
        "Jwt": "interpose.contrib.jwt",
        "MutualTls": "interpose.interceptors",
        "StaticTokens": "interpose.interceptors",
    },
    authorize.Rule: {"require": "interpose.interceptors"},
    rate_limit.Key: {"by_metadata": "interpose.interceptors.keys"},
    rate_limit.Store: {"LocalStore": "interpose.interceptors", "RedisStore": "interpose.contrib.redis"},
}
READY: dict[Any, tuple[Any, ...]] = {
    authorize.Rule: (authorize.anyone,),
    circuit_breaker.Key: (keys.by_target, keys.by_service, keys.by_method),
    rate_limit.Key: (keys.by_identity, keys.by_peer, keys.by_method),
}


class _Jwks:
    """Stands for `interpose.contrib.jwks.Jwks`, which needs an extra."""


MAKERS[_Jwks] = {"Jwks": "interpose.contrib.jwks"}

# Options whose annotation says less than what is good in a file.
HINTS: dict[tuple[str, str], Any] = {
    ("AccessLog", "payloads"): bool | Redactor,
    ("Jwt", "keys"): str | _Jwks,
    ("RedisStore", "client"): str,
}


@cache
def batteries() -> dict[str, Maker]:
    """The batteries by their names."""
    own = [name for name in interpose.interceptors.__all__ if is_battery(getattr(interpose.interceptors, name))]
    modules = dict.fromkeys(own, "interpose.interceptors") | OF_EXTRAS
    return {name: maker(name, modules[name]) for name in sorted(modules)}


def is_battery(value: object) -> bool:
    """Is it a class whose instances are interceptors?"""
    return isinstance(value, type) and inspect.isgeneratorfunction(vars(value).get("__call__"))


@cache
def maker(name: str, module: str) -> Maker:
    """The maker of this name."""
    return Maker(name, module, form_of)


# --- forms of options -----------------------------------------------------------------------------------------------


def form_of(owner: Maker, name: str, hint: Any) -> Form | None:
    """The form of an option, by its name and annotation; None if no file can hold it."""
    hint = HINTS.get((owner.name, name), hint)
    if hint is Clock:
        return None
    kinds = list(_members(hint))
    forms = [form for kind in kinds if (form := _form(owner, name, kind, kinds)) is not None]
    if parts := [form for form in forms if isinstance(form, Parts)]:
        tables = any(isinstance(form, TableOf) for form in forms)
        forms = [form for form in forms if form not in parts] + [_joined(parts, strict=tables), Imported()]
    return _one_of(forms)


def _members(hint: Any) -> Iterator[Any]:
    """The types of a union, or the one that it is."""
    if get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _form(owner: Maker, name: str, kind: Any, kinds: Collection[Any]) -> Form | None:
    """The form of one type; kinds: of all that are good there."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind in READY or kind in MAKERS:
        return _parts(kind)
    if origin is Literal:
        return Names({word: word for word in inside})
    if origin is type:
        return ErrorClass()
    if origin in (abc.Iterable, tuple, *_SETS):
        make = frozenset if origin in _SETS else tuple
        return ListOf(_item(owner, name, inside[0]), make)
    if origin is abc.Mapping:
        return TableOf(_item(owner, name, inside[0]), _item(owner, name, inside[1]))
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and kind is not StatusCode:
        return Names({member.value if str in kinds else member.name: member for member in kind})
    if kind is float:
        return Duration() if name in SECONDS else Real()
    if kind in _AS_TEXT:
        return None  # a text says it, which is another of the types
    if kind is str and any(isinstance(other, type) and issubclass(other, enum.Enum) for other in kinds):
        return None  # that names one of its members
    return _SIMPLE.get(kind, Imported)()


def _item(owner: Maker, name: str, hint: Any) -> Form:
    form = form_of(owner, name, hint)
    assert form is not None
    return form


_SETS = (abc.Collection, frozenset)
_AS_TEXT = (IPv4Network, IPv6Network, Path)
_SIMPLE: dict[Any, Callable[[], Form]] = {
    type(None): Null,
    bool: Flag,
    int: Whole,
    str: Text,
    StatusCode: lambda: CODES,
    logging.Logger: Logger,
}

# In which order the shapes of a value are tried: the more general ones last.
_ORDER = (Null, Flag, Whole, Real, Parts, Imported, ListOf, TableOf, Names, ErrorClass, Duration, Logger, Text)


def _one_of(forms: list[Form]) -> Form:
    ordered = sorted(forms, key=lambda form: _ORDER.index(type(form)))
    if len(ordered) > 1 and isinstance(ordered[0], Null):
        ordered[0] = Null(word=not isinstance(ordered[-1], (Text, Logger)))
    return ordered[0] if len(ordered) == 1 else OneOf(ordered)


def _parts(kind: Any) -> Parts:
    """What is there by its name, or is made by one."""
    makers = [maker(name, module) for name, module in MAKERS.get(kind, {}).items()]
    return Parts(makers, {value.__name__: value for value in READY.get(kind, ())})


def _joined(parts: Iterable[Parts], *, strict: bool) -> Parts:
    """Several as one."""
    makers = [maker for one in parts for maker in one.makers.values()]
    return Parts(makers, {name: value for one in parts for name, value in one.ready.items()}, strict=strict)
