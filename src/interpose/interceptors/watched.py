"""What `Rpcz` says of breakers, limits and budgets: each as a card with a word for its state, how well that is, and facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeAlias, TypedDict

from interpose._flow import Chain, name_of
from interpose.interceptors.authenticate import Authenticate
from interpose.interceptors.circuit_breaker import CircuitState
from interpose.interceptors.concurrency_limit import ConcurrencyState
from interpose.interceptors.hedge import HedgeState
from interpose.interceptors.rate_limit import RateLimitState
from interpose.interceptors.retry import RetryState
from interpose.mechanisms.breaker import Mode
from interpose.mechanisms.budget import RatioBudget, RetryBudget, is_budget
from interpose.mechanisms.redaction import without_secrets
from interpose.mechanisms.text import one_line

MOST_CARDS = 100  # of one object: a breaker has up to 1,024 keys
MAX_TEXT = 120  # characters

Level: TypeAlias = Literal["ok", "warn", "bad"]
Facts: TypeAlias = dict[str, str | int | float | None]


class Card(TypedDict):
    """One breaker, limit or budget. name: the key of a breaker, else empty. level: "ok", "warn" or "bad"."""

    what: str
    name: str
    state: str
    level: Level
    facts: Facts


Cards: TypeAlias = Iterator[Card]

_WORST_FIRST = ("bad", "warn", "ok")


def watchable(items: Iterable[Any]) -> tuple[list[tuple[str, Any]], list[str]]:
    """What can be watched in a stack or a list, each with its name; and a fault for each that is nothing of the kind.

    Chains are opened. Of an interceptor its own state, and those of what it relies on. One without any is left out.
    """
    found, faults = dict[int, tuple[str, Any]](), list[str]()
    for item in items:
        if isinstance(item, Chain):
            inner, inner_faults = watchable(item.interceptors)
            found.update((id(one), (name, one)) for name, one in inner)
            faults += inner_faults
        elif isinstance(item, type) or not (callable(item) or _tells(item)):
            faults.append(f"watch must have interceptors, budgets, and what has a snapshot(), not {item!r:.100}")
        else:
            told = [(name_of(item), item), *_parts(item)]
            found.update((id(one), (name, one)) for name, one in told if _tells(one) and id(one) not in found)
    return list(found.values()), faults


def _parts(item: Any) -> Iterator[tuple[str, Any]]:
    """What an interceptor relies on, each with a name: its budget, its store, its verifiers."""
    for part in ("budget", "store"):
        yield f"{part} of {name_of(item)}", getattr(item, f"_{part}", None)
    if isinstance(item, Authenticate):
        yield from item._verifiers


def _tells(item: Any) -> bool:
    return callable(getattr(item, "snapshot", None)) or is_budget(item)


def cards(watched: Iterable[tuple[str, Any]], now: float) -> list[Card]:
    """The state of all that is watched, what is worst first. One that fails to give it has that as its state."""
    made = list[Card]()
    for what, item in watched:
        try:
            made += sorted(_cards(what, item, now), key=_badness)[:MOST_CARDS]
        except Exception as error:
            made.append(_card(what, f"its state cannot be read: {type(error).__name__}", "bad", {}))
    return sorted(made, key=_badness)


def _badness(card: Card) -> int:
    return _WORST_FIRST.index(card["level"])


def _cards(what: str, item: Any, now: float) -> Cards:
    if is_budget(item):
        yield _budget(what, item, now)
        return
    state = item.snapshot()
    for name, one in state.items() if isinstance(state, dict) else [("", state)]:
        word, level = _judged(one)
        yield _card(what, word, level, _facts(one), name)


def _budget(what: str, budget: Any, now: float) -> Card:
    if isinstance(budget, RetryBudget):
        most, left = budget._most / 1000, budget.tokens
        facts: Facts = {"tokens": left, "max_tokens": most}
        return _card(what, *(("retries allowed", "ok") if 2 * left > most else ("used up", "bad")), facts)
    if isinstance(budget, RatioBudget):
        calls, retries = budget.tally(now)
        return _card(what, f"{retries} sent again", "ok", {"calls": calls, "retries": retries})
    return _card(what, repr(budget), "ok", {})


_MODES: dict[Mode, Level] = {Mode.CLOSED: "ok", Mode.OPEN: "bad", Mode.HALF_OPEN: "warn"}


def _judged(state: Any) -> tuple[str, Level]:
    """A word for a state, and how well it is."""
    if isinstance(state, CircuitState):
        return state.mode.value, _MODES.get(state.mode, "warn")
    if isinstance(state, ConcurrencyState):
        full = state.queued or state.in_flight >= state.limit
        return f"{state.in_flight} of {state.limit}", "warn" if full else "ok"
    if isinstance(state, RateLimitState):
        return f"{state.refused} refused", "warn" if state.refused else "ok"
    if isinstance(state, RetryState):
        return f"{state.retries} sent again", "warn" if state.over_budget else "ok"
    if isinstance(state, HedgeState):
        return f"{state.copies} copies, {state.won} won", "warn" if state.over_budget else "ok"
    if getattr(state, "out", False):  # a store that several processes share
        return "does not answer", "bad"
    if getattr(state, "error", None):  # keys that are fetched
        return "the last fetch failed", "warn"
    if faults := getattr(state, "faults", 0):  # of a verifier or a rule
        return f"faults: {faults}", "warn"
    return "", "ok"


def _facts(state: Any) -> Facts:
    """The fields of a state. Keys that callers have chosen are counted, not shown."""
    if not is_dataclass(state):
        return {"state": _text(state)}
    facts = Facts()
    for field in fields(state):
        value = getattr(state, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            facts.update((f"{field.name}_{name}", fact) for name, fact in _facts(value).items())
        elif field.name != "mode":
            facts[field.name] = _plain(value)
    return facts


def _plain(value: Any) -> str | int | float | None:
    if value is None or isinstance(value, (bool, int, float)):
        return value if value is None or math.isfinite(value) else "for ever"
    if isinstance(value, dict):
        return len(value)
    return _text(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value)


def _card(what: str, state: str, level: Level, facts: Facts, name: str = "") -> Card:
    return {"what": _text(what), "name": _text(name), "state": _text(state), "level": level, "facts": facts}


def _text(value: object) -> str:
    return one_line(without_secrets(str(value)[: 2 * MAX_TEXT]), MAX_TEXT)
