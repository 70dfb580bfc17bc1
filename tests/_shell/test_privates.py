"""The day that one of grpcio's private names goes: what is done without it. See docs/design/0006-privates.md."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc.aio import _interceptor

from interpose import Call, Flow, Kind, Side, native_interceptors
from interpose._grpcio import sync_calls
from interpose._grpcio.blocking import blocking
from interpose._grpcio.sync_calls import InactiveCall
from interpose.aio import attempt as aio_attempt
from interpose.sync import attempt as sync_attempt
from interpose.testing import Place, failed, ok


def again(call: Call) -> Flow:
    outcome = yield call
    if not outcome.ok and outcome.replayable:
        yield call


def test_a_blocking_call_goes_the_public_way() -> None:
    """A multi-callable of grpc's without `_blocking` is asked by `with_call`."""
    native = type("Native", (), {"__module__": "grpc._channel", "with_call": lambda *_: ("response", "call")})()

    assert blocking(native, InactiveCall)("request") == ("response", "call")


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_sync_calls_without_a_state(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure has no debug text, and all else is as it was."""
    for module in (sync_attempt, sync_calls):
        monkeypatch.setattr(module, "getattr", _without("_state"), raising=False)
    with Place(False, Side.CLIENT, kind).open(again, script=[failed(grpc.StatusCode.UNAVAILABLE), ok("a")]) as rpc:
        if kind.request_streaming:
            reply = rpc.call("a")
            assert reply.code is grpc.StatusCode.UNAVAILABLE
        assert rpc.call("a").ok


@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=str)
def test_asyncio_calls_without_private_parts(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written by hand arrives, and a failure is the server's."""
    monkeypatch.setattr(aio_attempt, "getattr", _without("_metadata_sent", "_read"), raising=False)
    with Place(True, Side.CLIENT, kind).open(script=[ok("a"), failed(grpc.StatusCode.NOT_FOUND)]) as rpc:
        replies = [rpc.call("a"), rpc.call("a")]

    assert [reply.code for reply in replies] == [grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND]


def test_native_hooks_without_the_calls_of_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what is missing, and what to use instead."""
    monkeypatch.delattr(_interceptor, "InterceptedUnaryUnaryCall")

    with pytest.raises(RuntimeError, match=r"InterceptedUnaryUnaryCall, which .* use intercept_channel instead"):
        native_interceptors(again, asyncio=True)


def _without(*names: str) -> Any:
    """`getattr` for objects that have no such names."""

    def get(owner: Any, name: str, *default: Any) -> Any:
        return getattr(SimpleNamespace() if name in names else owner, name, *default)

    return get
