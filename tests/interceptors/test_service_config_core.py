"""The service config beside the core's own reading of it: where both agree, and where they do not on purpose."""

import json
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from interpose.interceptors.service_config import from_service_config, left_to_core
from tests.interceptors.service_configs import (
    HEDGING,
    RETRY,
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


def test_the_core_ends_timeouts_early(target: str) -> None:
    """Half a second is over at once: why `timeout` is not left to it (grpc/grpc#34547)."""
    text = config(entry(timeout="0.5s"))

    assert asked_of_core(text, target)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert asked_of_core(left_to_core(text), target)[0] is grpc.StatusCode.OK
