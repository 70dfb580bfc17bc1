"""Retry, hedging and their company as users type them: checked by mypy --strict and pyright, never run."""

from concurrent.futures import Future
from typing import Any, assert_type

import grpc

from interpose import Call, Flow, Interceptor, Outcome, chain, describe, intercept_channel, wait
from interpose.interceptors import (
    BY_CONVENTION,
    CircuitBreaker,
    Hedge,
    HedgeDetails,
    RatioBudget,
    Retry,
    RetryBudget,
    RetryDetails,
    not_executed,
)
from interpose.interceptors.hedge import quantile
from interpose.mechanisms.backoff import decorrelated, exponential, full_jitter
from interpose.mechanisms.budget import Budget, Unlimited

budget: Budget = RetryBudget(max_tokens=20, token_ratio=0.2)
budgets: list[Budget] = [budget, RatioBudget(0.1, minimum=5), Unlimited()]


def told(details: RetryDetails) -> None:
    assert_type(details.call, Call)
    assert_type(details.outcome, Outcome)
    assert_type(details.number, int)
    assert_type(details.pause, float)


def hedged(details: HedgeDetails) -> None:
    assert_type(details.outcome, Outcome)
    assert_type(details.number, int)


def not_yet(outcome: Outcome) -> bool | None:
    return True if outcome.response == "pending" else None


def behind(call: Call, last: Any) -> Call | None:
    return call.with_request(last) if last else None


stack: list[Interceptor] = [
    Retry(),
    Retry(3, codes={grpc.StatusCode.UNAVAILABLE}, backoff=exponential(0.1, cap=1.0), budget=budget, on_retry=told),
    Retry(backoff=full_jitter(0.1, cap=1.0), safe=True, retry_if=not_yet, per_attempt=0.5),
    Retry(backoff=decorrelated(0.1, cap=1.0), safe=lambda call: call.method.name == "Get", resume=behind),
    Retry(errors=(OSError, KeyError), backoff=lambda number: number * 0.1),
    Retry(safe=BY_CONVENTION),
    Hedge(),
    Hedge(3, delay=quantile(0.95, initial=0.1), safe=True, budget=budget, on_hedge=hedged),
    CircuitBreaker(),
    Retry.from_service_config("{}", on_retry=told, on_hedge=hedged),
]

channel: grpc.Channel = intercept_channel(
    grpc.insecure_channel("localhost:50051", Retry.channel_options([("grpc.max_send_message_length", 1)])), *stack
)


def asks(call: Call) -> Flow:
    """What calls may ask for."""
    assert_type(call.answered_within(0.5), Call)
    assert_type(call.resumed(), Call)
    assert_type(call.encoded(), bytes)
    assert_type(str(call.method.target), str)
    assert_type(not_executed(call, pushback=0.5), tuple[tuple[str, str | bytes], ...])
    yield call.hedged(copies=2, delay=0.1, verdict=lambda outcome: None if outcome.details else 0.5, ready=lambda: True)


def joins(call: Call) -> Flow:
    """A Future gives what it holds."""
    future: Future[int] = Future()
    assert_type((yield from wait(future, deadline=call.deadline)), int)
    yield call


Retry(0.5)  # type: ignore[arg-type]
Retry(codes=grpc.StatusCode.UNAVAILABLE)  # type: ignore[arg-type]
Hedge(delay="0.1s")  # type: ignore[arg-type]
Hedge(safe=BY_CONVENTION)  # type: ignore[arg-type]
Retry(budget=10)  # type: ignore[arg-type]
assert_type(describe(*stack, method="/a.B/C"), str)
chain(*stack)
