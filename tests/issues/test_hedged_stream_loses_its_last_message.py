"""A hedged response stream delivers its message also if the end of the RPC is known before the message was handed on."""

import asyncio
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Side, intercept_channel
from interpose.sync.attempt import Attempt
from interpose.testing import Place, ok
from interpose.testing.echo import Echo, Stub
from tests.support.patience import PATIENCE

KINDS = [Kind.UNARY_STREAM, Kind.STREAM_STREAM]


def hedge(call: Call) -> Flow:
    yield call.hedged(copies=2, delay=3600)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_on_a_sync_channel(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status comes while a tap below looks at the only message."""
    over, notice, send = threading.Event(), Attempt._when_native_is_over, Attempt.send

    def note(attempt: Attempt) -> None:
        notice(attempt)
        over.set()

    def sent(attempt: Attempt) -> Any:
        outcome = send(attempt)
        if attempt._native_over:  # before anything could be called at its end
            over.set()
        return outcome

    def look(message: Any) -> None:
        assert over.wait(PATIENCE)

    def slow(call: Call) -> Flow:
        yield call.tap(responses=look)

    monkeypatch.setattr(Attempt, "_when_native_is_over", note)
    monkeypatch.setattr(Attempt, "send", sent)
    with Place(False, Side.CLIENT, kind).open(hedge, slow, script=[ok("only")]) as rpc:
        reply = rpc.call("a")

    assert (reply.messages, reply.code) == (["only"], grpc.StatusCode.OK)


def test_many_short_streams_on_a_sync_channel() -> None:
    """One message and the end, as often as it takes."""
    with Echo([ok("only"), ...]).serve() as target, intercept_channel(grpc.insecure_channel(target), hedge) as channel:
        stream = Stub(channel).unary_stream
        answers = [list(stream("a", timeout=PATIENCE)) for _ in range(200)]

    assert answers == [["only"]] * 200


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_on_an_asyncio_channel(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc has the status already when it hands on the only message."""
    native = grpc.aio._call._StreamResponseMixin
    read = native.read

    async def read_late(call: Any) -> Any:
        message = await read(call)
        await asyncio.wait_for(call.code(), PATIENCE)
        return message

    monkeypatch.setattr(native, "read", read_late)
    with Place(True, Side.CLIENT, kind).open(hedge, script=[ok("only")]) as rpc:
        reply = rpc.call("a")

    assert (reply.messages, reply.code) == (["only"], grpc.StatusCode.OK)
