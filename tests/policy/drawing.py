"""Stacks drawn at random: each battery with options that are drawn by their forms, as a program would give them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from interpose import Interceptor, chain, when
from interpose.mechanisms import shown
from interpose.policy import forms
from interpose.policy.makers import Maker, Option, Parts
from interpose.policy.registry import batteries
from tests.policy import interceptors

HOOK = "tests.policy.interceptors:count"

# What needs a secret, a connection or a package's own objects is not drawn.
UNDRAWN = {"StaticTokens", "Jwt", "RedisStore", "Structlog"}
WITHOUT = {"registry", "provider", "validator", "watch", "payloads", "logger", "semconv"}

PATTERNS = st.sampled_from(["/shop.v1.Orders/*", "/shop.v1.Orders/Get*", "/shop.v1.{Orders,Carts}/Get", "*"])
WORDS = st.sampled_from(["x-shop", "x-tenant", "x-a.b"])
TEXTS = {
    "limits": st.sampled_from(["100/second", "5 per 2 hours"]),
    "rate": st.sampled_from(["100/second", "5 per 2 hours"]),
    "trusted": st.sampled_from(["10.0.0.0/8", "2001:db8::/32"]),
    "subject": st.sampled_from(["dns", "uri", "ann"]),
    "status": st.just("rpc.response.status_code"),
    **dict.fromkeys(("public", "exempt", "exclude", "methods", "policy"), PATTERNS),
}


def option_of(form: forms.Form, name: str) -> st.SearchStrategy[Any] | None:
    """Values of an option, as a program gives them; None if none are drawn."""
    match form:
        case forms.OneOf():
            drawn = [values for one in form.forms if (values := option_of(one, name)) is not None]
            return st.one_of(drawn) if drawn else None
        case Parts():
            made = [made_by(maker) for maker in form.makers.values() if maker.name not in UNDRAWN]
            return st.one_of(st.sampled_from(list(form.ready.values())) if form.ready else st.nothing(), *made)
        case forms.ListOf():
            item = option_of(form.item, name)
            return None if item is None else st.lists(item, min_size=1, max_size=3).map(form._make)
        case forms.TableOf():
            names, values = option_of(form.name, name), option_of(form.value, name)
            return None if names is None or values is None else st.dictionaries(names, values, min_size=1, max_size=3)
        case forms.Names():
            return st.sampled_from(list(form._values.values()))
        case forms.Logger() | forms.Text():
            return TEXTS.get(name, WORDS)
    return SIMPLE[type(form)]


SIMPLE: dict[type[forms.Form], st.SearchStrategy[Any]] = {
    forms.Null: st.none(),
    forms.Flag: st.booleans(),
    forms.Whole: st.integers(1, 20),
    forms.Real: st.floats(0.01, 1),
    forms.Duration: st.integers(1, 50) | st.floats(0.01, 50),
    forms.ErrorClass: st.sampled_from([KeyError, ValueError, TimeoutError]),
    forms.Imported: st.just(interceptors.count),
}


def made_by(maker: Maker) -> st.SearchStrategy[Any]:
    """What it makes, with some of its options."""

    @st.composite
    def made(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
        values = {}
        for option in maker.options.values():
            drawn = None if option.name in WITHOUT else _drawn(option)
            if drawn is not None and (option.required or draw(st.booleans())):
                values[option.name] = draw(drawn)
        try:
            return maker._called(values)
        except ValueError:  # options that do not go together
            assume(False)

    return made()


def _drawn(option: Option) -> st.SearchStrategy[Any] | None:
    return option_of(option.form, option.name)


def battery(name: str) -> st.SearchStrategy[Any]:
    """Instances of a battery."""
    return made_by(batteries()[name])


# Not those that have nothing but functions, nor the one whose metrics would stay in the registry of the process.
DRAWN = sorted(batteries().keys() - {"Fallback", "BearerToken", "PrometheusMetrics"})
BATTERIES = st.sampled_from(DRAWN).flatmap(battery)


@st.composite
def stacks(draw: Callable[[st.SearchStrategy[Any]], Any], depth: int = 2) -> list[Interceptor]:
    """Batteries, chains, and conditions in each other."""
    stack: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["battery", "battery", "chain", "when"])) if depth else "battery"
        inner = [draw(BATTERIES)] if kind == "battery" else draw(stacks(depth=depth - 1))
        if kind == "when":
            stack.append(when(draw(st.lists(PATTERNS, min_size=1, max_size=2)), *inner))
        else:
            stack.append(inner[0] if kind == "battery" else chain(*inner))
    return stack


def same(one: Any, other: Any) -> bool:
    """Are two options the same, or two objects that were made with the same options?"""
    if inspect.isfunction(one) and one is not other:
        return inspect.isfunction(other) and same(
            inspect.getclosurevars(one).nonlocals, inspect.getclosurevars(other).nonlocals
        )
    if isinstance(one, (list, tuple, set, frozenset)):
        order = sorted if isinstance(one, (set, frozenset)) or isinstance(other, (set, frozenset)) else list
        ones, others = ([*order(part, key=str)] if order is sorted else [*part] for part in (one, other))
        return len(ones) == len(others) and all(map(same, ones, others))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[name]) for name, value in one.items())
    if "_given" in getattr(one, "__dict__", ()):
        return type(one) is type(other) and same(shown.given(one), shown.given(other))
    if dataclasses.is_dataclass(one):
        parts = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in parts)
    if type(one).__module__.startswith("interpose."):
        return type(one) is type(other) and repr(one) == repr(other)
    return bool(one == other or str(one) == str(other))
