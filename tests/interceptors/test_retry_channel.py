"""Retry: gRPC's own retries, switched off by the options of a channel."""

import json
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import errors, intercept_channel
from interpose.interceptors import Retry, from_service_config
from interpose.interceptors import retry as module
from interpose.testing import Place, failed, ok
from interpose.testing.echo import Echo, Stub
from tests.interceptors.driving import at_once, refused, requests, retrying

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


# --- options of a channel -------------------------------------------------------------------------------------------

POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
CONFIG = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not warned yet."""
    monkeypatch.setattr(module, "_unsaid", [True])


def test_the_cores_retries_are_switched_off() -> None:
    """In the place of any other word on it; all other options stay, in their order."""
    given = [("a", 1), ("grpc.enable_retries", 1), ("b", "2"), ("grpc.enable_retries", 1)]

    assert Retry.channel_options(given) == [("a", 1), ("b", "2"), ("grpc.enable_retries", 0)]
    assert Retry.channel_options() == Retry.channel_options(None) == [("grpc.enable_retries", 0)]
    assert given[1] == ("grpc.enable_retries", 1)


@pytest.mark.usefixtures("unsaid")
def test_a_policy_of_the_service_config_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """That it is off, and what to do instead."""
    with caplog.at_level(logging.WARNING, "interpose"):
        for _ in range(3):
            Retry.channel_options([("grpc.service_config", CONFIG)])

    (record,) = caplog.records
    assert "Retry.from_service_config" in record.getMessage()


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "null",
        "{}",
        '{"methodConfig": 5}',
        '{"methodConfig": [5]}',
        '{"methodConfig": [{}]}',
        None,
        "[" * 9**5,
    ],
)
def test_any_other_config_is_for_grpc_to_judge(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, and nothing raised."""
    with caplog.at_level(logging.WARNING, "interpose"):
        options = Retry.channel_options([("grpc.service_config", config)])

    assert options[0] == ("grpc.service_config", config)
    assert not caplog.records


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize(("options", "attempts"), [(Retry.channel_options, 3), (list, 12)])
def test_the_two_multiply(options: Callable[[Any], Any], attempts: int) -> None:
    """Three of ours times four of core's, unless the channel has these options."""
    echo = Echo([failed(UNAVAILABLE), ...])
    with echo.serve() as target:
        bare = grpc.insecure_channel(target, options([("grpc.service_config", CONFIG)]))
        with intercept_channel(bare, retrying(3, backoff=at_once)) as channel, pytest.raises(errors.Unavailable):
            Stub(channel).unary_unary("a", timeout=20)

    assert len(echo.attempts) == attempts


def test_a_service_config_is_read_elsewhere() -> None:
    """The method is another name of the function that reads it, also of an instance."""
    assert Retry.from_service_config is Retry().from_service_config is from_service_config


def test_the_policy_of_a_service_config_is_taken_over(place: Place) -> None:
    """The very text that core reads, with as many attempts as it says."""
    stack = Retry.from_service_config(CONFIG)

    with place.open(stack, script=[*refused(place, 3), ok()]) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert len(rpc.attempts) == 4
