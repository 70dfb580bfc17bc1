"""Attempts of the core's own: what flows see of them, and how they multiply with ours."""

from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, errors
from interpose.testing import Echo, failed
from tests.facts.calling import EVERY, UNARY, Watch, Way, opened, ways
from tests.facts.hosting import NO_CORE_RETRIES

pytestmark = pytest.mark.usefixtures("hosts")

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def core_retry(attempts: int) -> list[tuple[str, Any]]:
    """Channel options with which grpc's core sends again by itself."""
    config = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": %d, "initialBackoff": "0.01s",
        "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
    return [("grpc.service_config", config % attempts)]


@pytest.mark.fact("R-50", "R-54")
@ways(way for way in EVERY if way.kind in (Kind.UNARY_UNARY, Kind.UNARY_STREAM))
def test_flows_see_one_call_where_the_core_sends_three(way: Way) -> None:
    """The core's own attempts are one attempt for flows; only the server can tell them apart, by the core's key."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 2)

    with opened(way, echo, watch, options=core_retry(3)) as link:
        link.call()

    previous = [attempt.values("grpc-previous-rpc-attempts") for attempt in echo.attempts]
    assert previous == [[], ["1"], ["2"]]
    assert watch.outcome().ok
    assert watch.outcome().attempts == 1


@pytest.mark.fact("C-21", "R-51")
@ways(UNARY)
def test_the_core_stops_at_five(way: Way) -> None:
    """Ten attempts asked of the core are five; the caller and the flow see the last failure, once."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 10)

    with opened(way, echo, watch, options=core_retry(10)) as link, pytest.raises(errors.Unavailable):
        link.call()

    assert len(echo.attempts) == 5
    assert watch.outcome().attempts == 1


@pytest.mark.fact("R-52", "R-55")
@pytest.mark.parametrize(("pushback", "seen"), [("-1", "-1"), ("garbage", "-9223372036854775808")])
@ways(UNARY)
def test_pushback_reaches_flows(way: Way, pushback: str, seen: str) -> None:
    """A server's pushback that stops the core is in the trailing metadata of the outcome, as the core has read it."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE, trailing=(("grpc-retry-pushback-ms", pushback),))])

    with opened(way, echo, watch, options=core_retry(3)) as link, pytest.raises(errors.Unavailable):
        link.call()

    assert len(echo.attempts) == 1
    assert watch.outcome().trailing_metadata["grpc-retry-pushback-ms"] == seen


@pytest.mark.fact("R-53")
@ways(way for way in EVERY if not way.streams)
def test_hedging_is_ours(way: Way) -> None:
    """The core sends no copy: here a failing first copy lets the second go at once, long before its delay."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)])

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=2, delay=60)

    with opened(way, echo, watch, hedge) as link:
        [answer] = link.call()

    assert answer == "a"
    assert len(echo.attempts) == 2
    assert watch.outcome().attempts == 2


@pytest.mark.fact("C-21", "R-54")
@pytest.mark.parametrize(
    ("options", "sends"), [(core_retry(3), 6), ([*core_retry(3), NO_CORE_RETRIES], 2)], ids=["core too", "ours only"]
)
@ways(UNARY)
def test_attempts_of_the_core_multiply_with_ours(way: Way, options: list[tuple[str, Any]], sends: int) -> None:
    """Two attempts here over three of the core's are six; a channel with the core's retries off makes two."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 10)

    def twice(call: Call) -> Flow:
        yield call
        yield call

    with opened(way, echo, watch, twice, options=options) as link, pytest.raises(errors.Unavailable):
        link.call()

    assert len(echo.attempts) == sends
    assert watch.outcome().attempts == 2
