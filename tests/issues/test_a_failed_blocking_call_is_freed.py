"""A blocking call that failed left a cycle: its error, the frames in its traceback, and the outcome that keeps the error.

So everything in the frames of the application that called was kept until the next run of the collector, which bare calls
do not cause: in an outage each failed call costs memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Interceptor, Kind, intercept_channel
from interpose.testing import Echo, failed
from interpose.testing.echo import path
from tests.conformance.calls.ways import by_a_state


class Large:
    """Something that the application has in hand as it calls."""


def passes(call: Call) -> Flow:
    yield call


def again(call: Call) -> Flow:
    outcome = yield call.buffered()
    if not outcome.ok:
        outcome = yield call.buffered()
    return outcome


def tried(stub: Any, kind: Kind) -> weakref.ref[Large]:
    large = Large()
    with pytest.raises(grpc.RpcError):
        stub(iter([b"a"]) if kind.request_streaming else b"a")
    return weakref.ref(large)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("wrap", [intercept_channel, by_a_state], ids=["direct", "by a state"])
@pytest.mark.parametrize("interceptor", [passes, again])
@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=str)
def test_nothing_is_kept(kind: Kind, interceptor: Interceptor, wrap: Any, no_collector: None) -> None:
    """What the caller had is freed with its frame."""
    echo = Echo([failed(grpc.StatusCode.NOT_FOUND), ...])
    with echo.serve() as target, wrap(grpc.insecure_channel(target), interceptor) as channel:
        stub = getattr(channel, kind.value)(path(kind))

        assert tried(stub, kind)() is None
