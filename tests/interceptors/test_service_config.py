"""The service config: what is read from it, what is refused, and which method gets what."""

import json
import re
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Kind, Method, Side, chain, intercept_channel, when
from interpose.interceptors import Deadline, Retry
from interpose.interceptors.hedge import Hedge, HedgeDetails
from interpose.interceptors.retry import RetryDetails
from interpose.interceptors.service_config import (
    DEFAULT,
    HedgingPolicy,
    MethodConfig,
    PerMethod,
    RetryPolicy,
    ServiceConfig,
    Throttling,
    from_service_config,
    left_to_core,
    parse,
)
from interpose.mechanisms.budget import RetryBudget, Unlimited
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, ok, play
from tests.interceptors.driving import requests

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ABORTED = grpc.StatusCode.ABORTED
ECHO = "interpose.testing.Echo"

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]

RETRY: dict[str, Any] = {
    "maxAttempts": 3,
    "initialBackoff": "0.001s",
    "maxBackoff": "0.002s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
HEDGING: dict[str, Any] = {"maxAttempts": 3, "hedgingDelay": "0s", "nonFatalStatusCodes": ["UNAVAILABLE"]}
THROTTLING: dict[str, Any] = {"maxTokens": 10, "tokenRatio": 0.1}
EVERY: list[Any] = [{}]


def entry(*names: Any, **fields: Any) -> dict[str, Any]:
    """An entry of `methodConfig`; for every method if no name is given."""
    return {"name": list(names) or EVERY, **fields}


def config(*entries: Any, **fields: Any) -> str:
    return json.dumps({"methodConfig": list(entries), **fields})


def retrying(**changes: Any) -> str:
    """A config that retries every method, with some fields changed; those that are `...` are left out."""
    policy = {name: value for name, value in (RETRY | changes).items() if value is not ...}
    return config(entry(retryPolicy=policy))


def hedging(**changes: Any) -> str:
    policy = {name: value for name, value in (HEDGING | changes).items() if value is not ...}
    return config(entry(hedgingPolicy=policy))


def throttling(**changes: Any) -> str:
    fields = {name: value for name, value in (THROTTLING | changes).items() if value is not ...}
    return json.dumps({"retryThrottling": fields})


def refused(text: str) -> str:
    """What `parse` says against it."""
    with pytest.raises(ValueError, match="service config") as told:
        parse(text)
    return str(told.value)


def paths(message: str) -> list[str]:
    """The fields that a message names."""
    return re.findall(r"field:(\S*) error:", message)


def chosen(text: str, name: str, **options: Any) -> tuple[Any, ...]:
    return from_service_config(text, **options).select(Method(name, Kind.UNARY_UNARY))


# --- real RPCs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_retry_policy_retries(place: Place) -> None:
    """Two failures of the listed code and an answer: three attempts, each retry told to `on_retry`."""
    told: list[RetryDetails] = []
    stack = from_service_config(config(entry({"service": ECHO}, retryPolicy=RETRY)), on_retry=told.append)

    with place.open(stack, script=[failed(UNAVAILABLE), failed(UNAVAILABLE), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert len(rpc.attempts) == 3
    assert [details.number for details in told] == [1, 2]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_it_is_the_owner_who_says_that_a_call_may_be_repeated(place: Place) -> None:
    """ABORTED is retried, although nothing in the proto says that the method may be executed twice."""
    text = retrying(retryableStatusCodes=["aborted", 14])

    with place.open(from_service_config(text), script=[failed(ABORTED, initial=(("a", "b"),)), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert len(rpc.attempts) == 2


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_hedging_policy_hedges(place: Place) -> None:
    """One copy never answers, the other one does; `on_hedge` is told of both."""
    told: list[HedgeDetails] = []
    text = config(entry({"service": ECHO, "method": place.kind.value}, hedgingPolicy=HEDGING | {"maxAttempts": 2}))

    with place.open(from_service_config(text, on_hedge=told.append), script=[ok(hang=True), ok()]) as rpc:
        reply = rpc.call(*requests(place), timeout=20)

    assert reply.ok
    assert len(rpc.attempts) == 2
    assert sorted(details.number for details in told) == [0, 1]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_method_that_nothing_is_said_about_is_left_alone(place: Place) -> None:
    """The config is for another service: one attempt."""
    stack = from_service_config(config(entry({"service": "pay.v1.Cards"}, retryPolicy=RETRY)))

    with place.open(stack, script=[failed(UNAVAILABLE)]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is UNAVAILABLE
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_one_budget_for_all_methods(place: Place) -> None:
    """With two tokens the first failure is the last one that is retried, whichever policy the call falls under."""
    text = config(entry(retryPolicy=RETRY), retryThrottling={"maxTokens": 2, "tokenRatio": 0.1})

    with place.open(from_service_config(text), script=[failed(UNAVAILABLE), ...]) as rpc:
        rpc.call(*requests(place))

    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_a_timeout_is_the_rpcs(place: Place) -> None:
    """A server that never answers: DEADLINE_EXCEEDED, and the server saw the limit."""
    text = config(entry(timeout="0.05s"))

    with place.open(from_service_config(text), script=[ok(hang=True)]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_methods_are_compiled_once() -> None:
    """A stub method asks the config when it is first seen, and not again for its calls."""
    asked: list[str] = []

    class Asked(PerMethod):
        def select(self, method: Method) -> tuple[Any, ...]:
            asked.append(method.full_name)
            return super().select(method)

    echo = Echo()
    with echo.serve() as target, grpc.insecure_channel(target) as channel:
        stub = Stub(intercept_channel(channel, Asked({}))).unary_unary
        stub("a")
        stub("b")

    assert asked == [f"/{ECHO}/unary_unary"]


# --- what is read ---------------------------------------------------------------------------------------------------


def test_all_of_it() -> None:
    """Every field of ours, in the two spellings of a number that protobuf's JSON has."""
    text = config(
        entry(
            {"service": "a.A", "method": "One"}, retryPolicy=RETRY | {"perAttemptRecvTimeout": "1.5s"}, timeout="20s"
        ),
        entry({"service": "a.A"}, {"service": "b.B"}, hedgingPolicy={"maxAttempts": "4"}),
        entry(timeout="0.000000001s"),
        retryThrottling={"maxTokens": "10", "tokenRatio": "0.1239"},
    )

    assert parse(text) == ServiceConfig(
        (
            MethodConfig(("/a.A/One",), 20, RetryPolicy(3, 0.001, 0.002, 2, frozenset({UNAVAILABLE}), 1.5)),
            MethodConfig(("/a.A/", "/b.B/"), None, HedgingPolicy(4, 0, frozenset())),
            MethodConfig((DEFAULT,), 1e-9, None),
        ),
        Throttling(10, 0.123),
    )


@pytest.mark.parametrize("written", ["UNAVAILABLE", "unavailable", "Unavailable", 14])
def test_codes_by_name_or_number(written: str | int) -> None:
    """As gRFC A6 has it: a name in any case, or its number."""
    [read] = parse(hedging(nonFatalStatusCodes=[written])).methods

    assert isinstance(read.policy, HedgingPolicy)
    assert read.policy.codes == {UNAVAILABLE}


def test_every_code_but_ok() -> None:
    """All sixteen failures may be listed."""
    failures = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    [read] = parse(retrying(retryableStatusCodes=[code.name for code in failures])).methods

    assert isinstance(read.policy, RetryPolicy)
    assert read.policy.codes == set(failures)


def test_null_is_nothing() -> None:
    """In protobuf's JSON a field that is null is one that is not there."""
    text = config(
        {"name": [{"service": "a.A", "method": None}], "retryPolicy": None, "timeout": None, "hedgingPolicy": HEDGING},
        {"name": None},
        retryThrottling=None,
    )

    assert parse(text) == ServiceConfig(
        (MethodConfig(("/a.A/",), None, HedgingPolicy(3, 0, frozenset({UNAVAILABLE}))), MethodConfig((), None, None)),
        None,
    )


def test_what_the_core_does_is_left_to_it() -> None:
    """Fields that are not ours are let pass, whatever is in them."""
    text = config(
        entry(waitForReady=True, maxRequestMessageBytes=1, maxResponseMessageBytes="x"),
        loadBalancingPolicy="ROUND_ROBIN",
        loadBalancingConfig=[{"round_robin": {}}],
        healthCheckConfig={"serviceName": "a.A"},
        connectionScaling={"maxConnectionsPerSubchannel": 2},
    )

    assert parse(text) == ServiceConfig((MethodConfig((DEFAULT,), None, None),), None)


def test_an_empty_config() -> None:
    """Nothing is done, and nothing is wrong."""
    assert parse("{}") == ServiceConfig((), None)
    assert chosen("{}", "/a.A/One") == ()
    assert repr(from_service_config("{}")) == "from_service_config(nothing)"


# --- what is made of it ---------------------------------------------------------------------------------------------


def test_the_most_specific_name_counts() -> None:
    """Service and method, then service, then every method; wherever each of them stands."""
    text = config(
        entry(timeout="1s"),
        entry({"service": "a.A", "method": "One"}, timeout="3s"),
        entry({"service": "a.A"}, timeout="2s"),
    )

    def limit(name: str) -> float | None:
        clock = FakeClock()
        stack = from_service_config(text, clock=clock)
        played = play(stack, [ok("hello")], method=name, clock=clock)
        deadline = played.sent[0].call.deadline
        return None if deadline is None else deadline - clock.now()

    assert [limit(name) for name in ("/a.A/One", "/a.A/Two", "/b.B/One", "/a.AA/One", "/a/One")] == [3, 2, 1, 1, 1]


def test_a_deadline_stands_in_front() -> None:
    """The timeout is for the whole RPC, all attempts included."""
    stack = chosen(config(entry(timeout="1s", retryPolicy=RETRY)), "/a.A/One")

    assert [type(interceptor) for interceptor in stack] == [Deadline, Retry]


def test_each_policy_has_its_interceptor() -> None:
    """An entry without a policy has none, which also keeps the default away from it."""
    text = config(
        entry({"service": "a.A"}, hedgingPolicy=HEDGING),
        entry({"service": "b.B"}),
        entry(retryPolicy=RETRY),
    )

    assert [type(interceptor) for interceptor in chosen(text, "/a.A/One")] == [Hedge]
    assert chosen(text, "/b.B/One") == ()
    assert [type(interceptor) for interceptor in chosen(text, "/c.C/One")] == [Retry]


def test_names_of_one_entry_share_its_interceptors() -> None:
    """An entry is made once, however many names it has."""
    stack = from_service_config(config(entry({"service": "a.A"}, {"service": "b.B"}, retryPolicy=RETRY)))

    [first] = stack.select(Method("/a.A/One", Kind.UNARY_UNARY))
    [second] = stack.select(Method("/b.B/Two", Kind.STREAM_STREAM))
    assert first is second
    assert stack.interceptors == (first,)


def test_a_budget_of_your_own_counts() -> None:
    """It is used in the place of `retryThrottling`."""
    budget = RetryBudget(100, 1)
    stack = from_service_config(config(entry(retryPolicy=RETRY), retryThrottling=THROTTLING), budget=budget)
    play(stack, [failed(UNAVAILABLE), failed(UNAVAILABLE), ok()])

    assert budget.tokens == 99  # 100 - 2 + 1


def test_without_throttling_there_is_no_limit() -> None:
    """As in gRFC A6: a hundred calls that fail are retried to the last."""
    stack = from_service_config(retrying())
    played = [play(stack, [failed(UNAVAILABLE), ...]) for _ in range(100)]

    assert {len(each.sent) for each in played} == {3}


def test_throttling_is_shared() -> None:
    """Failures of one method stop the retries of another, which falls under another entry."""
    text = config(
        entry({"service": "a.A"}, retryPolicy=RETRY),
        entry({"service": "b.B"}, retryPolicy=RETRY),
        retryThrottling={"maxTokens": 4, "tokenRatio": 0.1},
    )
    stack = from_service_config(text)

    first = play(stack, [failed(UNAVAILABLE), ...], method="/a.A/One")
    second = play(stack, [failed(UNAVAILABLE), ...], method="/b.B/One")
    assert (len(first.sent), len(second.sent)) == (2, 1)


def test_attempts_count_as_written() -> None:
    """The core clamps at 5; here ten are ten."""
    played = play(from_service_config(retrying(maxAttempts=10)), [failed(UNAVAILABLE), ...])

    assert len(played.sent) == 10


def test_pauses_are_those_of_the_config() -> None:
    """initial · multiplier^(n-1), up to the maximum, give or take a fifth: gRFC A6."""
    text = retrying(maxAttempts=6, initialBackoff="1s", backoffMultiplier=3, maxBackoff="10s")
    played = play(from_service_config(text, clock=(clock := FakeClock())), [failed(UNAVAILABLE), ...], clock=clock)

    pauses = [sent.delay for sent in played.sent[1:]]
    assert all(0.8 * wanted <= pause <= 1.2 * wanted for pause, wanted in zip(pauses, [1, 3, 9, 10, 10], strict=True))


def test_it_stands_in_chains_and_conditions() -> None:
    """It is an interceptor like any other."""
    stack = when("/a.A/*", chain(from_service_config(retrying())))

    assert len(play(stack, [failed(UNAVAILABLE), ok()], method="/a.A/One").sent) == 2
    assert len(play(stack, [failed(UNAVAILABLE), ...], method="/b.B/One").sent) == 1


def test_it_can_be_called_in_a_flow() -> None:
    """`yield from` it, as any chain."""
    stack = from_service_config(retrying())

    def outer(call: Call) -> Flow:
        return (yield from stack(call))

    assert len(play(outer, [failed(UNAVAILABLE), ok()]).sent) == 2


def test_it_tells_what_it_is_for() -> None:
    """In messages it is named with a few of its methods."""
    names = [{"service": "a.A", "method": f"M{number}"} for number in range(5)]

    assert repr(from_service_config(config(entry({"service": "a.A"}), entry()))) == (
        "from_service_config(/a.A/, every other method)"
    )
    assert repr(from_service_config(config(entry(*names)))) == (
        "from_service_config(/a.A/M0, /a.A/M1, /a.A/M2 and 2 more)"
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"config": {"methodConfig": []}}, "json.dumps"),
        ({"config": b"{}"}, "must be the JSON text"),
        ({"budget": 3}, "budget"),
        ({"clock": 3}, "clock"),
        ({"on_retry": 3}, "on_retry"),
        ({"on_hedge": 3}, "on_hedge"),
    ],
)
def test_options_are_looked_at(options: dict[str, Any], named: str) -> None:
    """What cannot work is refused at once."""
    with pytest.raises(ValueError, match=re.escape(named)):
        from_service_config(**({"config": "{}"} | options))


# --- what is left to the core ---------------------------------------------------------------------------------------


def test_the_core_is_left_what_is_its_work() -> None:
    """All but timeouts, policies and throttling; the names stay, as they say where the rest applies."""
    text = config(
        entry({"service": "a.A"}, retryPolicy=RETRY, timeout="1s", waitForReady=True),
        entry(hedgingPolicy=HEDGING, maxRequestMessageBytes=100),
        retryThrottling=THROTTLING,
        loadBalancingConfig=[{"round_robin": {}}],
    )

    assert json.loads(left_to_core(text)) == {
        "methodConfig": [
            {"name": [{"service": "a.A"}], "waitForReady": True},
            {"name": [{}], "maxRequestMessageBytes": 100},
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
    }


@pytest.mark.parametrize("text", ["{}", '{"methodConfig": null}', '{"retryThrottling": null}', '{"methodConfig": []}'])
def test_a_config_with_nothing_in_it_is_left(text: str) -> None:
    """There is nothing to take away."""
    assert left_to_core(text) in {"{}", '{"methodConfig": []}'}


def test_the_core_is_left_nothing_that_is_broken() -> None:
    """A faulty config is refused here as well."""
    with pytest.raises(ValueError, match="must be at least 2"):
        left_to_core(retrying(maxAttempts=1))


def test_both_on_one_channel() -> None:
    """With what is left to it the core neither retries, nor minds codes in small letters."""
    text = retrying(retryableStatusCodes=["unavailable"])
    echo = Echo([failed(UNAVAILABLE), ...])

    with echo.serve() as address, grpc.insecure_channel(address, [("grpc.service_config", left_to_core(text))]) as bare:
        call = Stub(intercept_channel(bare, from_service_config(text))).unary_unary.future("a")
        code = call.code()

    assert code is UNAVAILABLE
    assert len(echo.attempts) == 3


def test_the_core_ends_timeouts_early(target: str) -> None:
    """Half a second is over at once: why `timeout` is not left to it (grpc/grpc#34547)."""
    text = config(entry(timeout="0.5s"))

    assert asked_of_core(text, target)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert asked_of_core(left_to_core(text), target)[0] is grpc.StatusCode.OK


# --- what is refused ------------------------------------------------------------------------------------------------

LONG = "9" * 5000
FAULTS = [
    # maxAttempts
    (
        retrying(maxAttempts=1),
        "methodConfig[0].retryPolicy.maxAttempts",
        "must be at least 2, the first attempt included",
    ),
    (retrying(maxAttempts=-3), "methodConfig[0].retryPolicy.maxAttempts", "must be at least 2"),
    (retrying(maxAttempts=1001), "methodConfig[0].retryPolicy.maxAttempts", "must be at most 1000"),
    (retrying(maxAttempts=3.5), "methodConfig[0].retryPolicy.maxAttempts", "must be a whole number like 4, not 3.5"),
    (retrying(maxAttempts=True), "methodConfig[0].retryPolicy.maxAttempts", "is not a number: true"),
    (retrying(maxAttempts="many"), "methodConfig[0].retryPolicy.maxAttempts", 'is not a number: "many"'),
    (retrying(maxAttempts=LONG), "methodConfig[0].retryPolicy.maxAttempts", "must be a whole number"),
    (retrying(maxAttempts=[3]), "methodConfig[0].retryPolicy.maxAttempts", "is not a number: an array"),
    (retrying(maxAttempts=...), "methodConfig[0].retryPolicy.maxAttempts", "field not present"),
    (retrying(maxAttempts=None), "methodConfig[0].retryPolicy.maxAttempts", "field not present"),
    (hedging(maxAttempts=1), "methodConfig[0].hedgingPolicy.maxAttempts", "must be at least 2"),
    (hedging(maxAttempts=101), "methodConfig[0].hedgingPolicy.maxAttempts", "must be at most 100"),
    (hedging(maxAttempts=...), "methodConfig[0].hedgingPolicy.maxAttempts", "field not present"),
    # durations
    (retrying(initialBackoff="0s"), "methodConfig[0].retryPolicy.initialBackoff", "must be greater than 0"),
    (retrying(initialBackoff="-1s"), "methodConfig[0].retryPolicy.initialBackoff", "must not be negative"),
    (retrying(initialBackoff="1"), "methodConfig[0].retryPolicy.initialBackoff", "write seconds with an s"),
    (retrying(initialBackoff="100ms"), "methodConfig[0].retryPolicy.initialBackoff", 'like "0.1s", not "100ms"'),
    (retrying(initialBackoff=0.1), "methodConfig[0].retryPolicy.initialBackoff", 'a duration like "0.1s", not 0.1'),
    (retrying(initialBackoff=...), "methodConfig[0].retryPolicy.initialBackoff", "field not present"),
    (retrying(maxBackoff="0s"), "methodConfig[0].retryPolicy.maxBackoff", "must be greater than 0"),
    (retrying(maxBackoff="1e9s"), "methodConfig[0].retryPolicy.maxBackoff", "is not a duration"),
    (retrying(maxBackoff="31536001s"), "methodConfig[0].retryPolicy.maxBackoff", "must be at most 31536000s"),
    (retrying(maxBackoff="0.0005s"), "methodConfig[0].retryPolicy.maxBackoff", "not be below initialBackoff (0.001s)"),
    (retrying(maxBackoff=...), "methodConfig[0].retryPolicy.maxBackoff", "field not present"),
    (retrying(perAttemptRecvTimeout="0s"), "methodConfig[0].retryPolicy.perAttemptRecvTimeout", "greater than 0"),
    (hedging(hedgingDelay="-0.1s"), "methodConfig[0].hedgingPolicy.hedgingDelay", "must not be negative"),
    (config(entry(timeout="0s")), "methodConfig[0].timeout", "must be greater than 0"),
    (config(entry(timeout="1 s")), "methodConfig[0].timeout", "is not a duration"),
    # the multiplier
    (retrying(backoffMultiplier=0), "methodConfig[0].retryPolicy.backoffMultiplier", "must be greater than 0"),
    (retrying(backoffMultiplier=-2), "methodConfig[0].retryPolicy.backoffMultiplier", "must be greater than 0"),
    (retrying(backoffMultiplier="1e400"), "methodConfig[0].retryPolicy.backoffMultiplier", "is too large"),
    (retrying(backoffMultiplier="NaN"), "methodConfig[0].retryPolicy.backoffMultiplier", 'is not a number: "NaN"'),
    (retrying(backoffMultiplier=float("nan")), "methodConfig[0].retryPolicy.backoffMultiplier", "is not JSON: NaN"),
    (retrying(backoffMultiplier=float("inf")), "methodConfig[0].retryPolicy.backoffMultiplier", "not JSON: Infinity"),
    (retrying(backoffMultiplier=...), "methodConfig[0].retryPolicy.backoffMultiplier", "field not present"),
    # codes
    (retrying(retryableStatusCodes=[]), "methodConfig[0].retryPolicy.retryableStatusCodes", "must be non-empty"),
    (retrying(retryableStatusCodes=...), "methodConfig[0].retryPolicy.retryableStatusCodes", "field not present"),
    (retrying(retryableStatusCodes="OK"), "methodConfig[0].retryPolicy.retryableStatusCodes", "is not an array"),
    (retrying(retryableStatusCodes=["OK"]), "methodConfig[0].retryPolicy.retryableStatusCodes[0]", "must not be OK"),
    (retrying(retryableStatusCodes=[14, 0]), "methodConfig[0].retryPolicy.retryableStatusCodes[1]", "must not be OK"),
    (
        retrying(retryableStatusCodes=["UNAVAILABEL"]),
        "methodConfig[0].retryPolicy.retryableStatusCodes[0]",
        'failed to parse status code "UNAVAILABEL"; did you mean UNAVAILABLE?',
    ),
    (
        retrying(retryableStatusCodes=["canceled"]),
        "methodConfig[0].retryPolicy.retryableStatusCodes[0]",
        "did you mean CANCELLED?",
    ),
    (hedging(nonFatalStatusCodes=[17]), "methodConfig[0].hedgingPolicy.nonFatalStatusCodes[0]", "status code 17"),
    (hedging(nonFatalStatusCodes=[1.5]), "methodConfig[0].hedgingPolicy.nonFatalStatusCodes[0]", "status code 1.5"),
    (hedging(nonFatalStatusCodes=[None]), "methodConfig[0].hedgingPolicy.nonFatalStatusCodes[0]", "not null"),
    (hedging(nonFatalStatusCodes={}), "methodConfig[0].hedgingPolicy.nonFatalStatusCodes", "not an array: an object"),
    # throttling
    (throttling(maxTokens=0), "retryThrottling.maxTokens", "must be greater than 0"),
    (throttling(maxTokens=1001), "retryThrottling.maxTokens", "must be at most 1000"),
    (throttling(maxTokens=10.5), "retryThrottling.maxTokens", "must be a whole number"),
    (throttling(maxTokens=...), "retryThrottling.maxTokens", "field not present"),
    (throttling(tokenRatio=0), "retryThrottling.tokenRatio", "must be greater than 0"),
    (throttling(tokenRatio=-0.5), "retryThrottling.tokenRatio", "must be greater than 0"),
    (throttling(tokenRatio=0.0009), "retryThrottling.tokenRatio", "three decimals count"),
    (throttling(tokenRatio=1001), "retryThrottling.tokenRatio", "must be at most 1000"),
    (throttling(tokenRatio=1e-05), "retryThrottling.tokenRatio", "is 1e-05: write it without an exponent"),
    (throttling(tokenRatio=LONG), "retryThrottling.tokenRatio", "must be at most 1000"),
    (throttling(tokenRatio=...), "retryThrottling.tokenRatio", "field not present"),
    (json.dumps({"retryThrottling": 3}), "retryThrottling", "is not an object: 3"),
    # names
    (config(entry({"method": "One"})), "methodConfig[0].name[0]", "method name populated without service name: write"),
    (config(entry({"service": "", "method": "One"})), "methodConfig[0].name[0]", "without service name"),
    (config(entry({"service": 3})), "methodConfig[0].name[0].service", "is not a string: 3"),
    (config(entry({"service": "a.A", "method": []})), "methodConfig[0].name[0].method", "is not a string: an array"),
    (config(entry({"service": "/a.A/"})), "methodConfig[0].name[0].service", 'without a "/" at its ends'),
    (config(entry("a.A")), "methodConfig[0].name[0]", 'is not an object: "a.A"'),
    (config({"name": {}}), "methodConfig[0].name", "is not an array"),
    (config(entry({}, {})), "methodConfig[0].name[1]", "duplicate default method config: the other one is"),
    (config(entry({}), entry({})), "methodConfig[1].name[0]", "the other one is methodConfig[0].name[0]"),
    (
        config(entry({"service": "a.A"}), entry({"service": "a.A", "method": ""})),
        "methodConfig[1].name[0]",
        'multiple method configs for path "/a.A/": the other one is methodConfig[0].name[0]',
    ),
    # the rest
    (config(entry(retryPolicy=RETRY, hedgingPolicy=HEDGING)), "methodConfig[0]", "keep one of them"),
    (config(entry(retryPolicy=[])), "methodConfig[0].retryPolicy", "is not an object: an array"),
    (config(entry(hedgingPolicy=True)), "methodConfig[0].hedgingPolicy", "is not an object: true"),
    (config(3), "methodConfig[0]", "is not an object: 3"),
    (json.dumps({"methodConfig": {}}), "methodConfig", "is not an array: an object"),
    ("[]", "", "is not an object: an array"),
    ("NaN", "", "is not JSON: NaN"),
    (LONG, "", "is not an object: 9999"),
    # fields that nobody knows
    (retrying(max_attempts=3), "methodConfig[0].retryPolicy.max_attempts", "unknown field; did you mean maxAttempts?"),
    (retrying(x=float("nan")), "methodConfig[0].retryPolicy.x", "NaN"),
    (json.dumps({"methodConfigs": []}), "methodConfigs", "unknown field; did you mean methodConfig?"),
    (json.dumps({"a b": 1}), '["a b"]', "unknown field"),
    (json.dumps({"\ud800": 1}), '["\\ud800"]', "unknown field"),
    (config(entry({"service": "a.A", "Method": "One"})), "methodConfig[0].name[0].Method", "did you mean method?"),
    ('{"loadBalancingConfig": [{"x": NaN}]}', "loadBalancingConfig[0].x", "is not JSON: NaN"),
    ('{"healthCheckConfig": {"a": 1, "a": 2, "a": 3}}', "healthCheckConfig.a", "is there more than once"),
]


@pytest.mark.parametrize(("text", "path", "said"), FAULTS, ids=[f"{path} {said}"[:70] for _, path, said in FAULTS])
def test_a_fault_is_told_with_its_path(text: str, path: str, said: str) -> None:
    """As gRPC's core writes it, and with what to write instead where that helps."""
    message = refused(text)

    assert message.startswith("errors validating service config: [field:")
    assert f"field:{path} error:" in message
    assert said in message
    assert len(message) < 1000


def test_a_fault_reads_as_in_the_core() -> None:
    """The whole of it, once."""
    assert refused(retrying(backoffMultiplier=0)) == (
        "errors validating service config: [field:methodConfig[0].retryPolicy.backoffMultiplier error:must be greater than 0]"
    )


def test_all_faults_are_told_at_once() -> None:
    """In the order in which they stand, entry by entry."""
    broken = RETRY | {"maxAttempts": 1, "initialBackoff": "x", "retryableStatusCodes": ["OK", "UNAVAILABLE", "NO"]}
    text = config(entry(retryPolicy=broken), entry({}, timeout=3), retryThrottling={"maxTokens": 0, "tokenRatio": 0})

    assert sorted(paths(refused(text))) == [
        "methodConfig[0].retryPolicy.initialBackoff",
        "methodConfig[0].retryPolicy.maxAttempts",
        "methodConfig[0].retryPolicy.retryableStatusCodes[0]",
        "methodConfig[0].retryPolicy.retryableStatusCodes[2]",
        "methodConfig[1].name[0]",
        "methodConfig[1].timeout",
        "retryThrottling.maxTokens",
        "retryThrottling.tokenRatio",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1 column 1"),
        ('{"methodConfig": [}', "line 1 column 19"),
        ('{\n  "methodConfig": [],\n}', "line 2 column 21|line 3 column 1"),
        ("{} {}", "line 1 column 4"),
        ("\ufeff{}", "line 1 column 1"),
        ("{'a': 1}", "line 1 column 2"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: str, where: str) -> None:
    """Line and column, as an editor counts them."""
    message = refused(text)

    assert message.startswith("the service config is not JSON: ")
    assert re.search(where, message)


@pytest.mark.parametrize("depth", [256, 100_000])
def test_a_text_that_is_nested_too_deeply(depth: int) -> None:
    """It is refused like any other: the core bears 255 levels."""
    text = f'{{"loadBalancingConfig": {"[" * (depth - 1)}{"]" * (depth - 1)}}}'

    assert refused(text).startswith("the service config is nested too deeply: at most 255")


def test_a_text_that_is_nested_as_deeply_as_may_be() -> None:
    """What is the core's may be deep."""
    text = f'{{"loadBalancingConfig": {"[" * 254}{"]" * 254}}}'

    assert left_to_core(text) == text


# --- any config -----------------------------------------------------------------------------------------------------

SERVICES = ["a.A", "b.B", "a.AA", "unknown"]
METHODS = ["One", "Two"]
CALLED = [f"/{service}/{method}" for service in [*SERVICES, "c.C"] for method in [*METHODS, "Three"]]
FAILURES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]

names: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"service": st.sampled_from(SERVICES)}),
    st.fixed_dictionaries({"service": st.sampled_from(SERVICES), "method": st.sampled_from(METHODS)}),
)
codes = st.lists(st.sampled_from(FAILURES), min_size=1, max_size=3)
retries = st.fixed_dictionaries(
    {
        "maxAttempts": st.integers(2, 8),
        "initialBackoff": st.sampled_from(["0.001s", "0.1s"]),
        "maxBackoff": st.sampled_from(["0.1s", "2s", "3.500s"]),
        "backoffMultiplier": st.floats(0.1, 10),
        "retryableStatusCodes": codes,
    },
    optional={"perAttemptRecvTimeout": st.just("10s")},
)
hedges = st.fixed_dictionaries(
    {"maxAttempts": st.integers(2, 8), "hedgingDelay": st.sampled_from(["0.01s", "2s"])},
    optional={"nonFatalStatusCodes": codes},
)
policies: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    retries.map(lambda policy: {"retryPolicy": policy}),
    hedges.map(lambda policy: {"hedgingPolicy": policy}),
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A config without a fault, whose entries can be told apart by their timeouts."""
    left = draw(st.lists(names, unique_by=lambda name: tuple(sorted(name.items())), max_size=8))
    entries: list[dict[str, Any]] = []
    while left:
        taken = draw(st.integers(1, len(left)))
        entries.append({"name": left[:taken], "timeout": f"{1000 + len(entries)}s", **draw(policies)})
        left = left[taken:]
    throttles = draw(st.booleans())
    return {"methodConfig": entries, **({"retryThrottling": THROTTLING} if throttles else {})}


def model(config: dict[str, Any], called: str) -> dict[str, Any] | None:
    """The entry for a method, slowly: all names are looked at, and the longest that fits wins."""
    _, service, method = called.split("/")
    best: tuple[int, dict[str, Any]] | None = None
    for candidate in config["methodConfig"]:
        for name in candidate["name"]:
            fits = name.get("service", service) == service and name.get("method", method) == method
            if fits and (best is None or len(name) > best[0]):
                best = len(name), candidate
    return best and best[1]


@given(configs(), st.sampled_from(CALLED))
def test_the_right_entry_is_chosen(config: dict[str, Any], called: str) -> None:
    """For every config and method: the stack of the entry that the slow model finds."""
    stack = from_service_config(json.dumps(config)).select(Method(called, Kind.UNARY_UNARY))

    wanted = model(config, called) or {}
    types = {"timeout": Deadline, "retryPolicy": Retry, "hedgingPolicy": Hedge}
    assert [type(interceptor) for interceptor in stack] == [types[field] for field in wanted if field in types]


def attempts(entry: dict[str, Any] | None, code: str) -> int:
    """How often a call is sent that always fails with this code."""
    if entry is None or not entry.keys() & {"retryPolicy", "hedgingPolicy"}:
        return 1
    policy = entry.get("retryPolicy") or entry["hedgingPolicy"]
    repeated = {*policy.get("retryableStatusCodes", ()), *policy.get("nonFatalStatusCodes", ())}
    if "perAttemptRecvTimeout" in policy:
        repeated.add("DEADLINE_EXCEEDED")  # as it would be
    return int(policy["maxAttempts"]) if code in repeated else 1


@given(configs(), st.sampled_from(CALLED), st.sampled_from(FAILURES))
def test_a_call_does_what_its_entry_says(config: dict[str, Any], called: str, code: str) -> None:
    """The deadline is that of the entry, and a call that always fails is sent as often as it says."""
    clock = FakeClock()
    began = clock.now()
    stack = from_service_config(json.dumps(config), clock=clock, budget=Unlimited())
    played = play(stack, [failed(grpc.StatusCode[code]), ...], method=called, clock=clock)

    wanted = model(config, called)
    assert len(played.sent) == attempts(wanted, code)
    assert played.sent[0].call.deadline == (began + float(wanted["timeout"][:-1]) if wanted else None)


BAD_DURATION = [0, 1.5, "", "1", "0.1 s", "-1s", "s", "1.s", ".5s", "١s", [], {}, True, "99999999999s"]
BAD_NUMBER = [0, -1, "", "x", "NaN", "inf", "1_0", "0x10", [], {}, True, float("nan"), float("-inf")]
BAD_FIELDS: dict[str, list[Any]] = {
    "retryPolicy.maxAttempts": [*BAD_NUMBER, 1, 1001, 2.5, 1e3],
    "retryPolicy.initialBackoff": [*BAD_DURATION, "0s"],
    "retryPolicy.maxBackoff": [*BAD_DURATION, "0s"],
    "retryPolicy.backoffMultiplier": [*BAD_NUMBER, "1e999"],
    "retryPolicy.retryableStatusCodes": [[], {}, "UNAVAILABLE", 14, True],
    "retryPolicy.perAttemptRecvTimeout": [*BAD_DURATION, "0s"],
    "retryPolicy.retries": [1, None, {}],
    "hedgingPolicy.maxAttempts": [*BAD_NUMBER, 1, 1001, 2.5, 1e3],
    "hedgingPolicy.hedgingDelay": BAD_DURATION,
    "hedgingPolicy.nonFatalStatusCodes": [{}, "UNAVAILABLE", 14, True],
    "hedgingPolicy.delay": [1, None, {}],
    "timeout": [*BAD_DURATION, "0s"],
    "retries": [1, None, {}],
}
BAD_THROTTLING: dict[str, list[Any]] = {
    "maxTokens": [*BAD_NUMBER, 1001, 0.5],
    "tokenRatio": [*BAD_NUMBER, 1001, 0.0001, "1e1"],
    "burst": [1, None],
}


@st.composite
def broken(draw: st.DrawFn) -> tuple[dict[str, Any], set[str]]:
    """A config with faults, and the paths where they were planted."""
    entries, planted = [], set()
    for number in range(draw(st.integers(0, 3))):
        policy = draw(st.sampled_from(["retryPolicy", "hedgingPolicy"]))
        one: dict[str, Any] = entry(
            {"service": f"s{number}"}, **{policy: dict({"retryPolicy": RETRY}.get(policy, HEDGING))}
        )
        fields = [field for field in BAD_FIELDS if "." not in field or field.startswith(f"{policy}.")]
        for field in draw(st.lists(st.sampled_from(fields), unique=True, max_size=4)):
            (one[policy] if "." in field else one)[field.rpartition(".")[2]] = draw(st.sampled_from(BAD_FIELDS[field]))
            planted.add(f"methodConfig[{number}].{field}")
        entries.append(one)
    throttled = dict(THROTTLING)
    for field in draw(st.lists(st.sampled_from(list(BAD_THROTTLING)), unique=True)):
        throttled[field] = draw(st.sampled_from(BAD_THROTTLING[field]))
        planted.add(f"retryThrottling.{field}")
    return {"methodConfig": entries, "retryThrottling": throttled}, planted


@given(broken())
def test_each_fault_is_told_once(case: tuple[dict[str, Any], set[str]]) -> None:
    """As many as were planted, each at its path, and nothing else."""
    config, planted = case
    told = paths(refused(json.dumps(config))) if planted else []

    assert sorted(told) == sorted(planted)
    if not planted:
        parse(json.dumps(config))


KNOWN = sorted(
    {part for field in BAD_FIELDS for part in field.split(".")} | {"methodConfig", "name", "service", "method"}
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1s", "0.1s", "UNAVAILABLE", "OK", "3"]),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)
shaped = st.fixed_dictionaries({}, optional=dict.fromkeys(["methodConfig", "retryThrottling"], values)) | st.builds(
    lambda entries: {"methodConfig": entries},
    st.lists(st.dictionaries(st.sampled_from(KNOWN), values, max_size=4), max_size=3),
)


@given(st.text() | values.map(json.dumps) | shaped.map(json.dumps))
def test_nothing_but_a_valueerror(text: str) -> None:
    """Whatever the text is, it makes interceptors or is refused with a reason."""
    reason = ""
    try:
        made = from_service_config(text).select(Method("/a.A/One", Kind.UNARY_UNARY))
    except ValueError as error:
        reason = str(error)

    if reason:
        assert re.match(r"the service config is not JSON: .|errors validating service config: \[field:", reason)
    else:
        assert len(made) <= 2


# --- beside the core ------------------------------------------------------------------------------------------------

SAME = [
    # Both take these,
    "{}",
    retrying(),
    retrying(maxAttempts="3"),
    retrying(maxAttempts=6),
    retrying(backoffMultiplier="1.5"),
    retrying(retryableStatusCodes=["CANCELLED", "CANCELLED"]),
    retrying(initialBackoff="0.001000000s"),
    hedging(),
    hedging(hedgingDelay=...),
    throttling(),
    throttling(maxTokens="10", tokenRatio="0.1"),
    throttling(tokenRatio=5),
    throttling(tokenRatio=0.12345),
    json.dumps({"retryThrottling": None}),
    config({}),
    config({"name": None}),
    config({"name": [], "retryPolicy": RETRY}),
    config(entry({"service": "a.A", "method": None}), entry({"service": "a.A", "method": "One"}), entry({})),
    config(entry(retryPolicy=None, timeout=None)),
    config(entry(timeout="20s", waitForReady=True, maxRequestMessageBytes=100)),
    json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    # and refuse these.
    "",
    "{",
    "{} {}",
    "[]",
    "NaN",
    "[" * 100_000,
    '{"a": 1, "a": 2}',
    json.dumps({"methodConfig": {}}),
    json.dumps({"retryThrottling": 1}),
    config(3),
    config({"name": "x"}),
    config(entry(3)),
    config(entry({"service": 3})),
    config(entry({"method": "One"})),
    config(entry({}, {})),
    config(entry({"service": "a.A"}), entry({"service": "a.A", "method": ""})),
    config(entry(timeout=1)),
    config(entry(timeout="-1s")),
    config(entry(retryPolicy=[])),
    retrying(maxAttempts=1),
    retrying(maxAttempts=3.0),
    retrying(maxAttempts=True),
    retrying(maxAttempts=5_000_000_000),
    retrying(maxAttempts=...),
    retrying(initialBackoff="0s"),
    retrying(initialBackoff="1"),
    retrying(initialBackoff=".1s"),
    retrying(initialBackoff="1.s"),
    retrying(initialBackoff="1e3s"),
    retrying(initialBackoff="1.0000000001s"),
    retrying(initialBackoff=1),
    retrying(maxBackoff=...),
    retrying(backoffMultiplier=0),
    retrying(backoffMultiplier="x"),
    retrying(backoffMultiplier=float("inf")),
    retrying(retryableStatusCodes=[]),
    retrying(retryableStatusCodes=...),
    retrying(retryableStatusCodes=None),
    retrying(retryableStatusCodes="UNAVAILABLE"),
    retrying(retryableStatusCodes=["NOPE"]),
    retrying(retryableStatusCodes=["14"]),
    retrying(retryableStatusCodes=[None]),
    throttling(maxTokens=0),
    throttling(maxTokens=10.5),
    throttling(maxTokens=...),
    throttling(tokenRatio=0),
    throttling(tokenRatio=-1),
    throttling(tokenRatio=0.0001),
    throttling(tokenRatio="1e-1"),
    throttling(tokenRatio="1."),
    throttling(tokenRatio=...),
]

STRICTER = {
    "unknown fields: a slip of the pen would go unnoticed": [
        retrying(max_attempts=3),
        json.dumps({"retries": 1}),
        config(entry({"service": "a.A", "Method": "One"})),
    ],
    "a cap below the first pause": [retrying(initialBackoff="0.002s", maxBackoff="0.001s")],
    "OK, which is no failure": [retrying(retryableStatusCodes=["OK"])],
    "more attempts than one RPC may have; the core clamps at 5": [retrying(maxAttempts=1001)],
    "more tokens than gRFC A6 allows": [throttling(maxTokens=1001)],
    "times of no use: none at all, and more than a year": [
        config(entry(timeout="0s")),
        retrying(perAttemptRecvTimeout="0s"),
        retrying(maxBackoff="31536001s"),
    ],
    "durations that are not protobuf's": [retrying(initialBackoff=" +0.001 s")],
    "numbers that are none": [retrying(backoffMultiplier="NaN"), retrying(backoffMultiplier="inf")],
    "a method of no service, which the core takes for every method": [config(entry({"service": "", "method": "One"}))],
    "a service that no call can have": [config(entry({"service": "/a.A/"}))],
    "the hedging policy, which the core does not read": [
        hedging(maxAttempts=1),
        config(entry(retryPolicy=RETRY, hedgingPolicy=HEDGING)),
    ],
}

MORE_LENIENT = {
    "codes in any case and as numbers, as in gRFC A6": [
        retrying(retryableStatusCodes=["unavailable"]),
        retrying(retryableStatusCodes=[14]),
    ],
    "null for a list, and an empty name of a method: both are nothing, in protobuf's JSON": [
        json.dumps({"methodConfig": None}),
        config(entry({"method": ""})),
    ],
    "what is left to the core": [
        config(entry(waitForReady=1, maxRequestMessageBytes="x")),
        json.dumps({"loadBalancingPolicy": "bogus"}),
    ],
}


def flat(table: dict[str, list[str]]) -> list[Any]:
    return [pytest.param(text, id=reason) for reason, texts in table.items() for text in texts]


@pytest.fixture
def target() -> Iterator[str]:
    """A server that answers every call."""

    class Everything(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[Everything()])
        port = server.add_insecure_port("localhost:0")
        server.start()
        yield f"localhost:{port}"
        server.stop(None).wait()


def accepted_by_core(text: str, target: str) -> bool:
    """The core refuses late: every RPC of the channel is INVALID_ARGUMENT."""
    code, _ = asked_of_core(text, target)
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    return code is grpc.StatusCode.OK


def asked_of_core(text: str, target: str) -> tuple[grpc.StatusCode, str]:
    """How an RPC ends on a channel with this config."""
    with grpc.insecure_channel(target, [("grpc.service_config", text)]) as channel:
        method: Any = channel.unary_unary("/a.A/One")
        call = method.future(b"", timeout=20)
        return call.code(), call.details() or ""


def accepted(text: str) -> bool:
    try:
        from_service_config(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("text", SAME, ids=lambda text: text[:100])
def test_the_core_agrees(text: str, target: str) -> None:
    """Both take it, or both refuse it."""
    assert accepted(text) is accepted_by_core(text, target)


@pytest.mark.parametrize("text", flat(STRICTER))
def test_where_the_core_is_more_lenient(text: str, target: str) -> None:
    """Each of these is refused on purpose."""
    assert (accepted(text), accepted_by_core(text, target)) == (False, True)


@pytest.mark.parametrize("text", flat(MORE_LENIENT))
def test_where_the_core_is_stricter(text: str, target: str) -> None:
    """Each of these is taken on purpose."""
    assert (accepted(text), accepted_by_core(text, target)) == (True, False)


def test_both_name_the_same_fields(target: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What is at fault for both is told at the same paths."""
    text = config(
        entry(retryPolicy=RETRY | {"maxAttempts": 1, "backoffMultiplier": 0, "initialBackoff": "1"}),
        entry({}, timeout=1),
        retryThrottling={"maxTokens": 0},
    )

    code, details = asked_of_core(text, target)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    told = details + capfd.readouterr().err  # older versions have it in their log alone
    assert set(paths(told)) == set(paths(refused(text)))
