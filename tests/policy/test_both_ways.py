"""Code and file give the same stack: what a program makes is written and read, and is what it was."""

import json
import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpose import Call, Flow, describe, when
from interpose._flow import Chain, name_of
from interpose.interceptors import (
    AccessLog,
    Authenticate,
    CircuitBreaker,
    Deadline,
    RateLimit,
    Redactor,
    RequestId,
    Retry,
    StaticTokens,
    from_service_config,
)
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.window import calls
from interpose.policy import Policy, dump
from tests.policy.drawing import DRAWN, HOOK, battery, same, stacks
from tests.policy.files import loaded
from tests.support.examples import examples

CONFIG = {"methodConfig": [{"name": [{"service": "shop.v1.Orders"}], "timeout": "1s"}]}


def read(entries: Any) -> Policy:
    with tempfile.TemporaryDirectory() as folder:
        return loaded(Path(folder), {"server": entries}, allow=[HOOK])


@pytest.mark.parametrize("name", DRAWN)
def test_a_battery_is_read_as_it_was_made(name: str) -> None:
    """With any of its options: the same options, the same words, and the same text when it is written again."""

    @settings(max_examples=examples(15))
    @given(battery(name))
    def law(made: Any) -> None:
        entries = dump([made])
        policy = read(json.loads(json.dumps(entries)))
        (found,) = policy.server.interceptors

        assert same(made, found)
        assert describe(made) == describe(policy.server)
        assert dump(policy.server) == entries

    law()


@settings(max_examples=examples(25))
@given(stacks())
def test_a_stack_is_read_as_it_was_made(stack: list[Any]) -> None:
    """Chains and conditions included: for every method the same interceptors in the same order."""
    entries = dump(stack)
    policy = read(json.loads(json.dumps(entries)))

    assert dump(policy.server) == entries
    assert describe(*stack) == describe(policy.server)
    for method in ("/shop.v1.Orders/GetOrder", "/shop.v1.Carts/Get", "/a.B/C"):
        assert describe(*stack, method=method) == describe(policy.server, method=method)
    assert all(map(same, opened(stack), opened(policy.server)))
    assert len(opened(stack)) == len(opened(policy.server))


def opened(stack: Any) -> list[Any]:
    """The batteries in it."""
    found = []
    for interceptor in stack.interceptors if isinstance(stack, Chain) else stack:
        found += opened(interceptor) if isinstance(interceptor, Chain) else [interceptor]
    return found


def test_a_file_and_the_program_that_says_the_same(tmp_path: Path) -> None:
    """What docs say of a file, in code."""
    policy = loaded(
        tmp_path,
        {
            "server": [
                "RequestId",
                {"Deadline": "5s"},
                {
                    "Retry": {
                        "attempts": 3,
                        "codes": ["UNAVAILABLE"],
                        "backoff": {"exponential": {"initial": "50ms", "cap": "2s"}},
                    }
                },
                {"methods": {"/shop.v1.Orders/*": [{"CircuitBreaker": {"window": {"calls": 100}}}]}},
                {"RateLimit": "100/second"},
            ]
        },
    )
    stack = [
        RequestId(),
        Deadline(5),
        Retry(attempts=3, codes=[grpc.StatusCode.UNAVAILABLE], backoff=exponential(0.05, cap=2)),
        when("/shop.v1.Orders/*", CircuitBreaker(window=calls(100))),
        RateLimit("100/second"),
    ]

    assert describe(*stack) == describe(policy.server)
    assert all(map(same, opened(stack), opened(policy.server)))
    assert dump(stack) == dump(policy.server)


def test_a_service_config_is_written_as_it_is() -> None:
    """The JSON that it was made of."""
    assert dump(from_service_config(json.dumps(CONFIG))) == [{"service_config": CONFIG}]


def own(call: Call) -> Flow:
    yield call


def test_a_function_is_written_as_its_name() -> None:
    """If it has one under which it can be imported."""
    assert dump([own, Retry(on_retry=own)]) == [f"{__name__}:own", {"Retry": {"on_retry": f"{__name__}:own"}}]


def test_what_no_file_can_hold_is_told_all_at_once() -> None:
    """By the names of interceptors and options; no value is shown."""
    stack: list[Any] = [
        when(lambda method: True, RequestId()),
        Retry(retry_if=lambda outcome: None),
        Authenticate(StaticTokens({"a-secret": "ann"})),
        AccessLog(payloads=Redactor("card")),
        from_service_config(json.dumps(CONFIG), on_retry=own),
        Retry(backoff=exponential(1, cap=2, random=lambda: 0.5)),
    ]

    with pytest.raises(ValueError, match=r"^dump: no file can hold ") as raised:
        dump(stack)

    assert "a-secret" not in str(raised.value)
    assert str(raised.value).removeprefix("dump: no file can hold ").split("; ") == [
        f"{name_of(stack[0])}: its condition is a function",
        "Retry: its retry_if",
        "Authenticate: its verifiers",
        "from_service_config(/shop.v1.Orders/): its budget or hooks were given beside the JSON",
        "Retry: its backoff",
    ]


@given(st.sampled_from(["250ms", "2s", "1.5m", "1h", "0.000001s", 3, 0.25]))
def test_a_duration_is_what_it_says(text: Any) -> None:
    """Milliseconds, seconds, minutes, hours, or a number of seconds."""
    seconds = {"250ms": 0.25, "2s": 2, "1.5m": 90, "1h": 3600, "0.000001s": 1e-6}.get(text, text)
    (deadline,) = read([{"Deadline": text}]).server.interceptors

    assert same(deadline, Deadline(seconds))


def test_metrics_go_to_the_registry_that_the_application_names(tmp_path: Path) -> None:
    """An object of the application's, by its name."""
    name = "tests.policy.interceptors:registry"
    rows = [{"PrometheusMetrics": {"registry": name, "histogram": [0.1, 1], "labels": {"zone": "a"}}}]

    assert (
        describe(loaded(tmp_path, {"server": rows}, allow=[name]).server)
        .splitlines()[1]
        .startswith("  1. PrometheusMetrics")
    )
