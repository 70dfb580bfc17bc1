"""`describe`: what a stack does to a method, in words, and what is wrong with its order."""

import pytest
from prometheus_client import CollectorRegistry

from interpose import Call, Flow, chain, describe, interceptors, when
from interpose._order import RULES, Rule
from interpose.contrib import opentelemetry
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.contrib.validate import Validate
from interpose.interceptors import (
    AccessLog,
    Authenticate,
    Authorize,
    BearerToken,
    Cache,
    CircuitBreaker,
    Coalesce,
    ConcurrencyLimit,
    Deadline,
    ExceptionToStatus,
    Fallback,
    FaultInjection,
    Hedge,
    RateLimit,
    RealIp,
    RequestId,
    Retry,
    Rpcz,
    StaticTokens,
    require,
)

CLIENT = [
    RequestId(),
    Fallback("yesterday"),
    Cache(30),
    Coalesce(),
    Deadline(5),
    Retry(),
    CircuitBreaker(),
    FaultInjection(),
]
LIMITS = [ConcurrencyLimit(), RateLimit("1/second"), RealIp(["10.0.0.0/8"])]
GUARDS = [Authenticate(StaticTokens({"token": "ann"})), Authorize(require()), BearerToken(lambda: "token"), Validate()]
METRICS = PrometheusMetrics(registry=CollectorRegistry())
SEEING = [AccessLog(), Rpcz(), METRICS, opentelemetry.Tracing(), opentelemetry.OtelMetrics()]
MADE = {type(made).__name__: made for made in (*CLIENT, Hedge(), ExceptionToStatus(), *LIMITS, *GUARDS, *SEEING)}


def token(call: Call) -> Flow:
    """Send a token.

    From a file.
    """
    yield call


def bare(call: Call) -> Flow:
    yield call


def test_each_interceptor_has_a_line() -> None:
    """Its place, its name, and the first sentence that it says of itself; functions too, and chains opened."""
    told = describe(chain(token, bare), RequestId(), method="/a.B/C")

    first, one, two, three = told.splitlines()
    assert first == "/a.B/C"
    assert one == "  1. token      Send a token."
    assert two == "  2. bare"
    assert three.startswith("  3. RequestId  ")


def test_what_does_not_apply_is_left_out() -> None:
    """As it costs nothing, it says nothing."""
    stack = (when("/a.B/*", token), when("/x.Y/*", bare))

    assert describe(*stack, method="/a.B/C").splitlines()[1:] == ["  1. token  Send a token."]
    assert describe(*stack, method="/n.N/N").splitlines() == ["/n.N/N", "  nothing applies"]


def test_without_a_method_conditions_are_shown() -> None:
    """All of the stack, and when each applies; a service config stays closed, since it chooses by method."""
    config = Retry.from_service_config('{"methodConfig": [{"name": [{"service": "a.B"}], "timeout": "5s"}]}')
    inner = when(["/a.B/C", "/a.B/D"], token)

    told = describe(bare, when("/a.B/*", chain(RequestId()), inner), config).splitlines()

    assert told[:2] == ["every method", "  1. bare"]
    assert told[2].startswith("  2. when '/a.B/*': RequestId")
    assert told[3].startswith("  3. when '/a.B/*': when ['/a.B/C', '/a.B/D']: token")
    assert told[4].startswith("  4. from_service_config(/a.B/)")


def test_what_sees_other_calls_is_no_mistake() -> None:
    """Two that never see the same call may stand in any order; of one that sees some, and one that sees all, it is told."""
    retry, deadline = when("/a.B/*", Retry()), when("/c.D/*", Deadline(5))

    assert "!" not in describe(retry, deadline)
    assert "! Retry is outside of Deadline" in describe(Retry(), deadline)
    assert "! Retry is outside of Deadline" in describe(retry, Deadline(5))


def test_a_service_config_is_opened() -> None:
    """It shows what it has for that method."""
    config = Retry.from_service_config('{"methodConfig": [{"name": [{"service": "a.B"}], "timeout": "5s"}]}')

    assert "1. Deadline" in describe(config, method="/a.B/C")
    assert "nothing applies" in describe(config, method="/x.Y/Z")


def test_the_order_of_the_page_is_well() -> None:
    """What docs/stack-order.md recommends has no mistake."""
    assert "!" not in describe(*CLIENT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.outer}-{rule.inner}")
def test_each_mistake_is_told(rule: Rule) -> None:
    """Whatever stands in between, once, and with its reason; the classes that a rule names are there."""
    told = describe(MADE[rule.outer], token, MADE[rule.inner], MADE[rule.inner])

    assert f"! {rule.outer} is outside of {rule.inner}: {rule.why}" in told.splitlines()
    assert told.count("!") == 1
    ours = {*dir(interceptors), *opentelemetry.__all__, "PrometheusMetrics", "Validate"}
    assert {rule.outer, rule.inner} <= ours


def test_what_is_no_interceptor_is_refused() -> None:
    """As by everything else that takes a stack."""
    with pytest.raises(TypeError, match="is a class"):
        describe(Retry)  # type: ignore[arg-type]
