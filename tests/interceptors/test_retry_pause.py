"""Retry: what happens while it pauses, and what it costs."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Kind, Side, intercept_channel
from interpose.mechanisms.budget import Unlimited
from interpose.testing import FakeClock, Place, failed, ok
from interpose.testing.echo import Echo, Stub
from tests.facts.serving import serving
from tests.interceptors.driving import (
    Told,
    refused,
    retrying,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


# --- an end during the pause ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_client_that_leaves_during_the_pause_ends_it(sort: str, kind: str) -> None:
    """The handler is not called again, its flows are told CANCELLED, and nothing sleeps on."""
    told = Told()
    called: list[str] = []

    def refuse(request: str, context: Any) -> Any:
        called.append(request)
        context.abort(UNAVAILABLE, "not now")
        yield request

    async def refuse_later(request: str, context: Any) -> Any:
        called.append(request)
        await context.abort(UNAVAILABLE, "not now")
        yield request

    def pause(number: int) -> float:
        told.pausing.release()
        return 3600.0

    with serving(
        sort, {kind: shaped(kind, refuse_later if sort == "async" else refuse)}, told, retrying(backoff=pause)
    ) as client:
        call = client.start("a", kind=kind, timeout=None)
        assert told.pausing.acquire(timeout=10)
        call.cancel()
        assert told.ended.acquire(timeout=10), "the flows were never told"

    assert [outcome.code for outcome in told.outcomes] == [grpc.StatusCode.CANCELLED]
    assert called == ["a"]


def shaped(kind: str, stream: Callable[..., Any]) -> Callable[..., Any]:
    """A generator of responses as a handler of this kind."""
    if kind.endswith("stream"):
        return stream
    if not inspect.isasyncgenfunction(stream):
        return lambda request, context: next(stream(request, context))

    async def handle(request: str, context: Any) -> str:
        first: str = await anext(stream(request, context))
        return first

    return handle


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_cancelling_during_the_pause_ends_a_sync_call(kind: Kind) -> None:
    """The application is not kept waiting, and nothing more is sent."""
    clock = FakeClock()
    place = Place(False, Side.CLIENT, kind)
    with place.open(retrying(), script=refused(place, 2), clock=clock) as rpc:
        stub = getattr(rpc.channel, kind.value)(f"/interpose.testing.Echo/{kind.value}")
        call = stub(b"a") if kind.response_streaming else stub.future(b"a")
        clock.wait_for()
        call.cancel()

        assert call.code() is grpc.StatusCode.CANCELLED
    assert len(rpc.attempts) == 1


async def test_cancelling_during_the_pause_ends_an_asyncio_call() -> None:
    """The task that awaits it is free at once, and nothing more is sent."""
    pausing = asyncio.Event()
    loop = asyncio.get_running_loop()
    tries: list[str] = []

    async def refuse(request: bytes, context: Any) -> bytes:
        tries.append("asked")
        await context.abort(UNAVAILABLE, "not now")
        return request

    def pause(_: int) -> float:
        loop.call_soon(pausing.set)
        return 3600.0

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pay.v1.Cards", {"Charge": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as bare:
        channel: Any = intercept_channel(bare, retrying(backoff=pause))
        call = channel.unary_unary("/pay.v1.Cards/Charge")(b"a")
        await asyncio.wait_for(pausing.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await server.stop(None)

    assert tries == ["asked"]


# --- threads --------------------------------------------------------------------------------------------------------

CROWD = 200


def test_futures_that_back_off_hold_no_thread() -> None:
    """Two hundred that wait for their next attempt have not one thread between them."""
    clock = FakeClock()
    place = Place(False, Side.CLIENT, Kind.UNARY_UNARY)
    retry = retrying(budget=Unlimited())
    with place.open(retry, script=[*refused(place, CROWD), ok(), ...], clock=clock) as rpc:
        stub = Stub(rpc.channel).unary_unary
        assert not clock.waiting
        first = [stub.future("a") for _ in range(CROWD)]
        clock.wait_for(CROWD)
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("interpose")]
        clock.advance(10)

        assert {call.result(10) for call in first} == {"a"}
    assert threads == []
    assert len(rpc.attempts) == 2 * CROWD


async def test_asyncio_calls_that_back_off_hold_no_thread() -> None:
    """Nor have those of a loop."""
    clock = FakeClock()
    echo = Echo([*[failed(UNAVAILABLE)] * CROWD, ok(), ...])
    async with echo.serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        channel: Any = intercept_channel(bare, retrying(budget=Unlimited()), clock=clock)
        before = threading.active_count()
        calls = [Stub(channel).unary_unary("a") for _ in range(CROWD)]
        await clock.reached(CROWD)
        during = threading.active_count()
        clock.advance(10)

        assert set(await asyncio.gather(*calls)) == {"a"}
    assert during <= before
    assert len(echo.attempts) == 2 * CROWD
