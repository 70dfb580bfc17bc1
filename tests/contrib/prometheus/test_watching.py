"""What the batteries of a stack say of themselves, as series."""

from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from interpose import Call, Flow, Interceptor, Kind, Side, chain, when
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.interceptors import CircuitBreaker, ConcurrencyLimit, Hedge, RateLimit, Retry
from interpose.mechanisms.budget import RetryBudget
from interpose.testing import FakeClock, Place, failed, ok
from tests.contrib.prometheus.reading import series_of, shown

Code = grpc.StatusCode
CLIENT = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
DOWN = failed(Code.UNAVAILABLE)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> PrometheusMetrics:
    return PrometheusMetrics(registry=registry)


def run(*stack: Interceptor, script: Any = (), calls: int = 1) -> None:
    """So many RPCs through a stack."""
    with CLIENT.open(*stack, script=script, clock=FakeClock(auto=True)) as rpc:
        for _ in range(calls):
            rpc.call("a")


def test_retries_and_their_budget(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """How many were sent, how many the budget did not allow, and what is left of it."""
    retry = Retry(3, safe=True, budget=RetryBudget(max_tokens=4))
    metrics.watch("shop", retry)

    run(retry, script=[DOWN, ...], calls=2)

    # 4 tokens: two failures leave 2, which is not more than half.
    assert shown(registry, "interpose_retries_total", "stack") == {"shop": 1}
    assert shown(registry, "interpose_retries_over_budget_total", "stack") == {"shop": 2}
    assert shown(registry, "interpose_retry_tokens", "stack") == {"shop": 1}
    assert shown(registry, "interpose_retry_tokens_most", "stack") == {"shop": 4}
    assert (retry.snapshot().retries, retry.snapshot().over_budget) == (1, 2)


def test_hedges(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Copies that were sent, that won, and that the budget did not allow."""
    budget = RetryBudget(max_tokens=1)
    later, at_once = (Hedge(2, delay=delay, safe=True, budget=budget) for delay in (0.5, 0.0))
    metrics.watch("shop", later, at_once)

    with CLIENT.open(later, script=[ok(hang=True), ok()]) as rpc:
        assert rpc.call("a").ok
    budget.failed(0.0)
    with CLIENT.open(at_once, script=[ok(delay=0.01)]) as rpc:
        assert rpc.call("a").ok

    assert shown(registry, "interpose_hedges_total", "stack") == {"shop": 1}
    assert shown(registry, "interpose_hedges_won_total", "stack") == {"shop": 1}
    assert shown(registry, "interpose_hedges_over_budget_total", "stack") == {"shop": 1}


def test_circuit_breakers(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """How many there are in each mode, and how many calls they refused; no key is told."""
    breaker = CircuitBreaker(minimum=1, key=lambda call: "hunter2")
    metrics.watch("shop", breaker)
    before = shown(registry, "interpose_circuit_breakers", "mode")

    run(breaker, script=[DOWN], calls=3)

    modes = {"closed": 0, "open": 0, "half_open": 0, "forced_open": 0, "disabled": 0}
    assert before == modes
    assert shown(registry, "interpose_circuit_breakers", "mode") == {**modes, "open": 1}
    assert shown(registry, "interpose_circuit_refused_total", "stack") == {"shop": 2}
    assert breaker.refused == 2
    assert "hunter2" not in str(series_of(registry))


def test_a_concurrency_limit(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Its limit, what runs and waits, and what was refused."""
    limit = ConcurrencyLimit(1, queue=0)
    metrics.watch("shop", limit)
    seen = {}

    def look(call: Call) -> Flow:
        seen.update(shown(registry, "interpose_concurrency_in_flight", "stack"))
        yield from chain(limit)(call)  # which has no slot for another one

    run(limit, look)

    assert seen == {"shop": 1}
    assert shown(registry, "interpose_concurrency_limit", "stack") == {"shop": 1}
    assert shown(registry, "interpose_concurrency_in_flight", "stack") == {"shop": 0}
    assert shown(registry, "interpose_concurrency_queued", "stack") == {"shop": 0}
    assert shown(registry, "interpose_concurrency_shed_total", "stack") == {"shop": 1}


def test_a_rate_limit(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """What it decided: each call is in one of the four."""
    limit = RateLimit("2/hour", key=lambda call: "hunter2")
    metrics.watch("shop", limit)

    run(limit, script=[ok(), ok()], calls=5)

    assert shown(registry, "interpose_rate_limit_calls_total", "decision") == {
        "admitted": 2,
        "delayed": 0,
        "unchecked": 0,
        "refused": 3,
    }
    assert shown(registry, "interpose_rate_limit_keys", "stack") == {"shop": 1}
    assert "hunter2" not in str(series_of(registry))


def test_a_rate_limit_that_waits(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """What was delayed is not among what was admitted at once."""
    clock = FakeClock(auto=True)
    limit = RateLimit("1/second", wait=True)
    metrics.watch("shop", limit)

    with CLIENT.open(limit, clock=clock) as rpc:
        for _ in range(3):
            assert rpc.call("a").ok

    decisions = shown(registry, "interpose_rate_limit_calls_total", "decision")
    assert (decisions["admitted"], decisions["delayed"], decisions["refused"]) == (1, 2, 0)


def test_a_whole_stack(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Chains are opened, what says nothing is passed over, and what is given twice counts once."""
    budget = RetryBudget()
    retry, breaker = Retry(budget=budget), CircuitBreaker()
    stack = [metrics, chain(retry, when("/a.B/*", breaker)), Hedge(budget=budget)]

    metrics.watch("shop", *stack)
    metrics.watch("shop", retry)

    assert shown(registry, "interpose_retries_total", "stack") == {"shop": 0}
    assert shown(registry, "interpose_hedges_total", "stack") == {"shop": 0}
    assert shown(registry, "interpose_circuit_refused_total", "stack") == {"shop": 0}
    assert shown(registry, "interpose_retry_tokens", "stack") == {"shop": budget.tokens}


def test_two_of_a_kind(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Under one name they are added up, under two they are two."""
    one, other = ConcurrencyLimit(3), ConcurrencyLimit(4)

    metrics.watch("both", one, other)
    metrics.watch("other", other)

    assert shown(registry, "interpose_concurrency_limit", "stack") == {"both": 7, "other": 4}


def test_one_that_cannot_tell(
    registry: CollectorRegistry, metrics: PrometheusMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape shows the others."""
    broken, well = CircuitBreaker(), ConcurrencyLimit(3)
    monkeypatch.setattr(broken, "snapshot", lambda: 1 / 0)
    metrics.watch("shop", broken, well)

    assert shown(registry, "interpose_concurrency_limit", "stack") == {"shop": 3}
    assert not shown(registry, "interpose_circuit_breakers", "stack")


def test_what_is_not_watched(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Has no series."""
    run(metrics, Retry(safe=True))

    assert not [sample.name for sample in series_of(registry) if "stack" in sample.labels]
