"""Unary calls that go straight to grpcio's core: what is chosen when, and what only they could get wrong."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc.aio import _channel

from interpose import Call, Flow, Interceptor, intercept_channel
from interpose._grpcio import direct
from interpose._grpcio.direct import Direct
from interpose._grpcio.parts import found
from interpose.testing import Echo, failed, ok
from tests.conformance.calls.ways import in_public, passes

BOUND = 10.0
METHOD = "/interpose.testing.Echo/unary_unary"
possible = pytest.mark.skipif(direct.PARTS is None, reason="this grpcio lacks a private part: the public way is taken")


def dial(target: str, *interceptors: Interceptor) -> Any:
    """An intercepted channel."""
    return intercept_channel(grpc.aio.insecure_channel(target), *interceptors)


def again(call: Call) -> Flow:
    outcome = yield call
    if not outcome.ok:
        yield call


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """A server that answers with what it is asked."""
    async with Echo().serve_aio() as target:
        yield target


@possible
def test_this_grpcio_has_the_parts() -> None:
    """On the newest grpcio the direct way is taken, so that it is tested at all."""

    async def chosen() -> Any:
        async with dial("unix:none", passes) as channel:
            return channel.unary_unary(METHOD)._way, channel.unary_stream(METHOD)._route.native

    way, stream = asyncio.run(chosen())

    assert type(way) is Direct
    assert type(stream) is _channel.UnaryStreamMultiCallable


async def test_without_one_of_the_parts_calls_go_the_public_way(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen once, when the channel is made."""
    monkeypatch.setattr(direct, "PARTS", None)
    async with dial(echo, passes) as channel:
        ask = channel.unary_unary(METHOD)
        assert not isinstance(ask._route.native, Direct)
        assert await ask(b"a") == b"a"


async def test_a_channel_of_another_make_goes_the_public_way(echo: str) -> None:
    """A class derived from grpc's channel may do something else than grpc's."""

    class Other(_channel.Channel): ...

    async with intercept_channel(Other(echo, (), None, None, None), passes) as channel:
        ask: Any = channel.unary_unary(METHOD)
        assert not isinstance(ask._route.native, Direct)
        assert await ask(b"a") == b"a"


@pytest.mark.parametrize("missing", ["_register_call", "UnaryUnaryMultiCallable", "Channel"])
def test_parts_that_a_grpcio_lacks(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day that one of them goes."""
    owner = _channel.Channel if missing == "_register_call" else _channel
    monkeypatch.delattr(owner, missing, raising=False)

    assert found(direct._Parts) is None


async def test_interceptors_appended_later_see_the_next_call(echo: str) -> None:
    """Libraries append to the channel's list after stubs were made."""
    seen = []

    class Sees(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(request)
            return await continuation(client_call_details, request)

    async with dial(echo, passes) as channel:
        ask = channel.unary_unary(METHOD)
        await ask(b"a")
        channel._unary_unary_interceptors.append(Sees())
        await ask(b"b")

    assert len(seen) == 1


@pytest.mark.parametrize("ours", [True, False], ids=["our close", "the native channel's"])
@pytest.mark.parametrize("wrap", [intercept_channel, in_public])
async def test_a_close_finds_the_calls_in_flight(wrap: Any, ours: bool) -> None:
    """With grace it waits for them, without it cancels them, whichever of the two channels is closed."""
    gate = asyncio.Event()

    async def held(_: bytes, context: Any) -> bytes:
        arrived.release()
        await gate.wait()
        return b"late"

    arrived = asyncio.Semaphore(0)
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(held)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for grace, ends in ((BOUND, b"late"), (None, asyncio.CancelledError)):
        native = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        channel = wrap(native, passes)
        asked = [channel.unary_unary("/a/b")(b"x") for _ in range(2)]
        for _ in asked:
            await asyncio.wait_for(arrived.acquire(), BOUND)
        closing = asyncio.ensure_future((channel if ours else native).close(grace))
        await asyncio.sleep(0)
        if grace:
            gate.set()
        got = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), BOUND)
        await closing
        gate.clear()
        assert [one if isinstance(one, bytes) else type(one) for one in got] == [ends, ends]
    await server.stop(None)


async def test_what_is_asked_of_a_call_before_and_after_its_end(echo: str) -> None:
    """The whole surface, of a call that began without an exchange."""
    async with dial(echo, passes) as channel:
        called: list[Any] = []
        early, late = channel.unary_unary(METHOD)(b"a", timeout=BOUND), channel.unary_unary(METHOD)(b"b")
        assert not early.done()
        assert 0 < early.time_remaining() <= BOUND
        early.add_done_callback(called.append)
        await early.wait_for_connection()
        assert list(await asyncio.gather(early, early, late)) == [b"a", b"a", b"b"]
        for call in (early, late):
            call.add_done_callback(called.append)
            assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
            assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
            assert type(await call.initial_metadata()) is type(await call.trailing_metadata()) is grpc.aio.Metadata
            assert await call.debug_error_string() == ""
            assert repr(call).startswith("<UnaryUnaryCall of RPC that terminated with")
        assert called == [early, early, late]
        assert 0 < early.time_remaining() <= BOUND
        assert late.time_remaining() is None


@pytest.mark.parametrize("how", ["the call", "its awaiter", "the awaiter that has not begun"])
async def test_cancelled(echo: str, how: str) -> None:
    """The flow is told once, and who awaits gets CancelledError."""
    told = []

    def notes(call: Call) -> Flow:
        told.append((yield call).code)

    async with dial(echo, notes) as channel:

        async def ask() -> bytes:
            return await call  # type: ignore[no-any-return]

        call = channel.unary_unary(METHOD)(b"a")
        task = asyncio.create_task(ask())
        if how != "the awaiter that has not begun":
            await asyncio.sleep(0)
        if how == "the call":
            assert call.cancel()
            assert call.cancelled()
            assert not call.cancel()
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if how == "the awaiter that has not begun":
            assert call.cancel()  # as with grpc's own: nobody had awaited it yet
    assert told == [grpc.StatusCode.CANCELLED]


async def test_an_awaiter_cancelled_as_the_response_comes_is_cancelled(echo: str) -> None:
    """Its cancel is not lost, although the RPC has ended well."""

    def cancels(call: Call) -> Flow:
        yield call
        task.cancel()

    async with dial(echo, cancels) as channel:
        call = channel.unary_unary(METHOD)(b"a")
        task = asyncio.ensure_future(call)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await call.code() is grpc.StatusCode.OK


async def test_a_flow_that_sends_again_goes_on_with_what_has_begun() -> None:
    """The exchange takes over in the middle, with the flows outside that have begun."""
    async with (
        Echo([failed(grpc.StatusCode.UNAVAILABLE), ok(b"b")]).serve_aio() as target,
        dial(target, passes, again) as channel,
    ):
        call = channel.unary_unary(METHOD)(b"a")
        assert await call == b"b"
        assert await call.code() is grpc.StatusCode.OK


async def test_a_call_that_has_ended_leaves_nothing_to_collect(echo: str) -> None:
    """No cycles: the garbage collector has nothing to do for a call that went well."""
    async with dial(echo, passes) as channel:
        ask = channel.unary_unary(METHOD)
        await ask(b"a")
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await ask(b"a")
            found = [one for one in gc.get_objects() if type(one).__module__.startswith("interpose.aio.calls")]
        finally:
            gc.enable()
    assert found == []


@possible
async def test_the_core_is_quicker_than_the_loop() -> None:
    """A call that the core has ended, awaited before the loop has said so: it failed, and was not cancelled."""
    outcomes = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with dial("unix:none", note) as channel:
        call = channel.unary_unary(METHOD)(b"", metadata=(("X-Key", "refused"),))
        while not call._native.waiting.done():  # noqa: ASYNC110  the turn of the loop counts
            await asyncio.sleep(0)
        with pytest.raises(Exception, match="execute_batch"):
            await call

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.INTERNAL]


@possible
@pytest.mark.parametrize("timeout", [20, 0.000_001], ids=["answered", "out of time"])
async def test_a_call_that_has_ended_is_kept_no_longer(echo: str, timeout: float) -> None:
    """A channel knows the calls in flight, and none before: it may make millions."""
    async with dial(echo, passes) as channel:
        stub = channel.unary_unary(METHOD, str.encode, bytes.decode)
        for _ in range(3):
            await asyncio.wait([asyncio.ensure_future(stub("a", timeout=timeout).code())])
        kept = stub._way._calls

        assert not kept
        assert kept.done()
