"""What the batteries of a stack say of themselves, as series: `PrometheusMetrics.watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from interpose._flow import Chain
from interpose.contrib.prometheus.naming import Series
from interpose.interceptors.circuit_breaker import CircuitBreaker, Mode
from interpose.interceptors.concurrency_limit import ConcurrencyLimit
from interpose.interceptors.hedge import Hedge
from interpose.interceptors.rate_limit import RateLimit
from interpose.interceptors.retry import Retry
from interpose.mechanisms.budget import RetryBudget

STACK = "stack"


class Reading(NamedTuple):
    """A series, and what is read of a battery: by the value of its second label, or "" where it has but the stack's."""

    series: Series
    read: Callable[[Any], Mapping[str, float]]


def _one(name: str, kind: str, text: str, read: Callable[[Any], float]) -> Reading:
    return Reading(Series(f"interpose_{name}", kind, text, (STACK,)), lambda battery: {"": read(battery)})


def _many(name: str, kind: str, text: str, label: str, read: Callable[[Any], Mapping[str, float]]) -> Reading:
    return Reading(Series(f"interpose_{name}", kind, text, (STACK, label)), read)


def _modes(breaker: CircuitBreaker) -> dict[str, float]:
    """How many breakers are in each mode. Not by key: a key may come from a peer, and there may be a thousand."""
    modes = [state.mode for state in breaker.snapshot().values()]
    return {mode.value.replace(" ", "_"): modes.count(mode) for mode in Mode}


def _decisions(limit: RateLimit) -> dict[str, float]:
    state = limit.snapshot()
    at_once = max(state.admitted - state.delayed - state.unchecked, 0)
    return {
        "admitted": at_once,
        "delayed": state.delayed,
        "unchecked": state.unchecked,
        "refused": state.refused,
    }


READINGS: dict[type[Any], tuple[Reading, ...]] = {
    Retry: (
        _one("retries_total", "counter", "Retries that were sent.", lambda retry: retry.snapshot().retries),
        _one(
            "retries_over_budget_total",
            "counter",
            "Retries that were not sent because the budget was used up.",
            lambda retry: retry.snapshot().over_budget,
        ),
    ),
    Hedge: (
        _one(
            "hedges_total", "counter", "Copies that were sent beside the first.", lambda hedge: hedge.snapshot().copies
        ),
        _one("hedges_won_total", "counter", "Copies that had the answer.", lambda hedge: hedge.snapshot().won),
        _one(
            "hedges_over_budget_total",
            "counter",
            "Copies that were not sent because the budget was used up.",
            lambda hedge: hedge.snapshot().over_budget,
        ),
    ),
    RetryBudget: (
        _one(
            "retry_tokens",
            "gauge",
            "Tokens in the budget; none are sent at half or less.",
            lambda budget: budget.tokens,
        ),
        _one("retry_tokens_most", "gauge", "Tokens that the budget has at most.", lambda budget: budget.max_tokens),
    ),
    CircuitBreaker: (
        _many("circuit_breakers", "gauge", "Circuit breakers, by what they do.", "mode", _modes),
        _one(
            "circuit_refused_total", "counter", "Calls that an open breaker refused.", lambda breaker: breaker.refused
        ),
    ),
    ConcurrencyLimit: (
        _one("concurrency_limit", "gauge", "Calls that may run at once.", lambda limit: limit.snapshot().limit),
        _one("concurrency_in_flight", "gauge", "Calls that run.", lambda limit: limit.snapshot().in_flight),
        _one("concurrency_queued", "gauge", "Calls that wait for a slot.", lambda limit: limit.snapshot().queued),
        _one(
            "concurrency_shed_total",
            "counter",
            "Calls that were refused without a slot.",
            lambda limit: limit.snapshot().shed,
        ),
    ),
    RateLimit: (
        _many(
            "rate_limit_calls_total", "counter", "Calls, by what the rate limit made of them.", "decision", _decisions
        ),
        _one(
            "rate_limit_keys", "gauge", "Callers that are counted in this process.", lambda limit: limit.snapshot().keys
        ),
    ),
}


class Watched:
    """The batteries of all stacks that are watched. What two of a kind in one stack say is added up."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._extra = labels
        self._batteries: dict[str, list[Any]] = {}  # by stack

    def add(self, stack: str, given: Iterable[Any]) -> None:
        """Watch these from now on; what says nothing of itself is passed over, what is watched already too."""
        watched = self._batteries.setdefault(stack, [])
        for battery in _opened(given):
            if isinstance(battery, tuple(READINGS)) and not any(battery is other for other in watched):
                watched.append(battery)

    def families(self) -> Iterator[Metric]:
        """The series that have something to show, with what the batteries say now."""
        for kind, readings in READINGS.items():
            for reading in readings:
                if samples := list(self._samples(kind, reading)):
                    yield self._family(reading.series, samples)

    def names(self) -> Iterator[Metric]:
        """All series, empty."""
        for readings in READINGS.values():
            for reading in readings:
                yield self._family(reading.series, ())

    def _samples(self, kind: type[Any], reading: Reading) -> Iterator[tuple[tuple[str, ...], float]]:
        for stack, batteries in list(self._batteries.items()):
            sums: dict[str, float] = {}
            for battery in batteries:
                if isinstance(battery, kind):
                    with suppress(Exception):  # of one that raises: the scrape has the others
                        for value, number in reading.read(battery).items():
                            sums[value] = sums.get(value, 0) + number
            for value, number in sums.items():
                yield ((stack, value) if value else (stack,)), number

    def _family(self, series: Series, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        make = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
        family = make(series.name, series.help, labels=(*series.labels, *self._extra))
        for labels, number in samples:
            family.add_metric((*labels, *self._extra.values()), number)
        return family


def _opened(given: Iterable[Any]) -> Iterator[Any]:
    """The batteries of a stack, chains opened, and the budgets in them."""
    for battery in given:
        if isinstance(battery, Chain):
            yield from _opened(battery.interceptors)
            continue
        yield battery
        if isinstance(battery, (Retry, Hedge)):
            yield battery._budget
