"""The channels that are compared: a raw one, and the same wrapped with flows that must not be noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import grpc
import grpc.aio

from interpose import Call, Flow, Interceptor, intercept_channel
from interpose._grpcio import blocking, direct

UNUSED = grpc.StatusCode.DATA_LOSS  # no scenario ends with it


def passes(call: Call) -> Flow:
    """Asks for nothing."""
    yield call


def taps(call: Call) -> Flow:
    """Looks at every message, and at the outcome."""
    outcome = yield call.tap(requests=repr, responses=repr, initial_metadata=repr)
    repr((outcome, outcome.initial_metadata, outcome.trailing_metadata))


def retries(call: Call) -> Flow:
    """Is ready to send the call again, and never has a reason to."""
    call = call.buffered()
    outcome = yield call
    if outcome.code is UNUSED and outcome.replayable:
        outcome = yield call
    return outcome


RAW = "raw"
WAYS: dict[str, Callable[[Any], Any]] = {
    RAW: lambda channel: channel,
    "passes": lambda channel: intercept_channel(channel, passes),
    "taps": lambda channel: intercept_channel(channel, taps),
    "retries": lambda channel: intercept_channel(channel, retries),
}
SYNC_WAYS: dict[str, Callable[[Any], Any]] = {**WAYS, "passes, by a state": lambda channel: by_a_state(channel, passes)}
AIO_WAYS: dict[str, Callable[[Any], Any]] = {**WAYS, "passes, in public": lambda channel: in_public(channel, passes)}


def by_a_state(channel: grpc.Channel, *interceptors: Interceptor) -> grpc.Channel:
    """As with a grpcio without the private parts that blocking calls are sent through (interpose/_grpcio/blocking.py)."""
    intercepted: Any = intercept_channel(channel, *interceptors)
    stub = intercepted._stub

    def stub_by_a_state(route: Any) -> Any:
        with mock.patch.object(blocking, "PARTS", None):
            return stub(route)

    intercepted._stub = stub_by_a_state
    return intercepted  # type: ignore[no-any-return]


def in_public(channel: grpc.aio.Channel, *interceptors: Interceptor) -> grpc.aio.Channel:
    """As with a grpcio without the private parts that unary calls are sent through (interpose/_grpcio/direct.py)."""
    with mock.patch.object(direct, "PARTS", None):
        return intercept_channel(channel, *interceptors)
