"""The service config: what is refused, and that each fault is told once, with its path."""

import json
import re
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Kind, Method
from interpose.interceptors.service_config import from_service_config, left_to_core, parse
from tests.interceptors.service_configs import (
    HEDGING,
    RETRY,
    THROTTLING,
    config,
    entry,
    hedging,
    paths,
    refused,
    retrying,
    throttling,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ABORTED = grpc.StatusCode.ABORTED


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
