"""The service config: what is read from it, and which method gets what."""

import json
import re
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
from tests.interceptors.service_configs import HEDGING, RETRY, THROTTLING, config, entry, hedging, retrying

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ABORTED = grpc.StatusCode.ABORTED
ECHO = "interpose.testing.Echo"

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]


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
        stack = from_service_config(text)
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
    played = play(from_service_config(text), [failed(UNAVAILABLE), ...])

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
    stack = from_service_config(json.dumps(config), budget=Unlimited())
    played = play(stack, [failed(grpc.StatusCode[code]), ...], method=called, clock=clock)

    wanted = model(config, called)
    assert len(played.sent) == attempts(wanted, code)
    assert played.sent[0].call.deadline == (began + float(wanted["timeout"][:-1]) if wanted else None)
