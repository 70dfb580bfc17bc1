"""What an asyncio stub gives on a wrapped channel behaves as what it gives on a raw one.

The fixture `rpc` runs a test on a raw channel and on wrapped ones, through generated stubs and bare multi-callables:
what is true of grpc.aio is asserted, and must be true of us.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import AsyncFlow, Call, Flow, Kind, chain, errors, intercept_channel, when
from tests.conformance.calls.ways import in_public
from tests.protos.compiled import Generated
from tests.protos.features import (
    ANSWERS,
    BOUND,
    BREAK,
    FAIL,
    HOLD,
    INITIAL,
    TRAILING,
    Features,
    looks,
    passes,
    replaces,
    resends,
    resends_later,
    served,
    stub,
)


async def passes_async(call: Call) -> AsyncFlow:
    """Asks for nothing, as an `async def` generator."""
    await asyncio.sleep(0)
    yield call


WAYS: dict[str, Callable[[grpc.aio.Channel], grpc.aio.Channel]] = {
    "raw": lambda channel: channel,
    "empty": intercept_channel,
    "passes": lambda channel: intercept_channel(channel, passes),
    "stack": lambda channel: intercept_channel(channel, passes, chain(looks, replaces), when("*", looks)),
    "waits": lambda channel: intercept_channel(channel, passes_async, looks),
    "resends": lambda channel: intercept_channel(channel, passes, resends),
    "in public": lambda channel: in_public(channel, passes, looks),
    "resends_later": lambda channel: intercept_channel(channel, resends_later, looks),
}
BARE = ["raw", "passes", "resends"]  # ways that are tested through bare multi-callables too
WRAPPED = [way for way in WAYS if way != "raw"]
BASES = {
    Kind.UNARY_UNARY: grpc.aio.UnaryUnaryCall,
    Kind.UNARY_STREAM: grpc.aio.UnaryStreamCall,
    Kind.STREAM_UNARY: grpc.aio.StreamUnaryCall,
    Kind.STREAM_STREAM: grpc.aio.StreamStreamCall,
}

every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
both_unary = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
both_streams = pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
both_writers = pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
wrapped_only = pytest.mark.parametrize("rpc", [(way, "generated") for way in WRAPPED], indirect=True, ids="-".join)


@dataclass
class Rpc:
    """A service that runs, and the stub to call it."""

    channel: grpc.aio.Channel
    service: Features
    stub: dict[Kind, Any]

    def requests(self, kind: Kind) -> Any:
        """What to send: "a", or "a" and "b" as a stream."""
        text = self.service.text
        return iter([text(text="a"), text(text="b")]) if kind.request_streaming else text(text="a")

    def start(self, kind: Kind, metadata: Any = None, timeout: float | None = BOUND) -> Any:
        return self.stub[kind](self.requests(kind), timeout=timeout, metadata=metadata)

    def write(self, kind: Kind, metadata: Any = None) -> Any:
        """A call that waits for `write`."""
        return self.stub[kind](timeout=BOUND, metadata=metadata)

    async def finish(self, kind: Kind, call: Any) -> list[str]:
        """Wait for the end; gives the texts that came, or raises the failure."""
        return [message.text async for message in call] if kind.response_streaming else [(await call).text]

    async def held(self, kind: Kind, timeout: float | None = BOUND) -> Any:
        """A call that is at the server, which answers when the gate opens."""
        call = self.start(kind, HOLD, timeout)
        await happens(self.service.arrived)
        return call


async def happens(event: Any) -> None:
    """Wait for an event of another thread."""
    assert await asyncio.to_thread(event.wait, BOUND)


def pairs(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata if key.startswith("x-")]


async def texts(messages: Any) -> list[str]:
    return [message.text async for message in messages]


@pytest.fixture(
    params=[(way, style) for way in WAYS for style in ("generated", "bare") if style == "generated" or way in BARE],
    ids="-".join,
)
async def rpc(request: pytest.FixtureRequest, generated: Generated) -> AsyncIterator[Rpc]:
    """The service behind a channel, wrapped in one way, called through one kind of stub."""
    way, style = request.param
    with served(generated) as (target, service):
        channel = WAYS[way](grpc.aio.insecure_channel(target, [("grpc.enable_retries", 0)]))
        try:
            yield Rpc(channel, service, stub(generated, channel, style))
        finally:
            service.gate.set()
            await channel.close()


# --- answers ----------------------------------------------------------------------------------------------------------


@every_kind
async def test_a_call_tells_how_it_went(rpc: Rpc, kind: Kind) -> None:
    """A call is an instance of grpc.aio's own class, gives the answer, and tells the status and the metadata."""
    call = rpc.start(kind, timeout=None)

    assert isinstance(call, BASES[kind])
    assert isinstance(call, grpc.aio.Call)
    assert isinstance(call, grpc.aio.RpcContext)
    assert await rpc.finish(kind, call) == ANSWERS[kind]
    assert await call.code() is grpc.StatusCode.OK
    assert await call.details() == ""
    assert pairs(await call.initial_metadata()) == [INITIAL]
    assert pairs(await call.trailing_metadata()) == list(TRAILING)
    assert not await call.debug_error_string()
    assert call.done()
    assert not call.cancelled()
    assert not call.cancel()
    assert call.time_remaining() is None


@both_unary
async def test_a_unary_response_can_be_awaited_again(rpc: Rpc, kind: Kind) -> None:
    """Awaiting a call again, and by many tasks at once, gives the same response."""
    call = rpc.start(kind)

    async def wait() -> Any:
        return await call

    first, second = await asyncio.gather(wait(), wait())
    assert first is second
    assert await call is first


@every_kind
async def test_a_call_starts_unasked(rpc: Rpc, kind: Kind) -> None:
    """The RPC starts when the stub is called, and ends whether or not somebody awaits it."""
    ended = asyncio.Event()
    call = rpc.start(kind, HOLD)
    call.add_done_callback(lambda _: ended.set())
    await happens(rpc.service.arrived)
    rpc.service.gate.set()
    if not kind.response_streaming:
        await asyncio.wait_for(ended.wait(), BOUND)
        assert call.done()

    assert await rpc.finish(kind, call) == ANSWERS[kind]


@every_kind
async def test_asking_before_while_and_after(rpc: Rpc, kind: Kind) -> None:
    """Status and metadata can be awaited from the start; who asks early is answered when it is known."""
    call = rpc.start(kind, HOLD)
    early = [asyncio.ensure_future(ask()) for ask in (call.code, call.details, call.trailing_metadata)]
    await happens(rpc.service.arrived)
    assert not call.done()
    assert not any(asked.done() for asked in early)
    rpc.service.gate.set()
    assert await rpc.finish(kind, call) == ANSWERS[kind]

    code, details, trailing = await asyncio.wait_for(asyncio.gather(*early), BOUND)
    assert code is await call.code() is grpc.StatusCode.OK
    assert details == await call.details() == ""
    assert pairs(trailing) == pairs(await call.trailing_metadata()) == list(TRAILING)


@both_streams
async def test_initial_metadata_comes_first(rpc: Rpc, kind: Kind) -> None:
    """Initial metadata is there while the server still works; for unary responses grpc asks for both together."""
    call = await rpc.held(kind)

    assert pairs(await asyncio.wait_for(call.initial_metadata(), BOUND)) == [INITIAL]
    assert not call.done()
    rpc.service.gate.set()
    assert await rpc.finish(kind, call) == ANSWERS[kind]


@every_kind
async def test_metadata_and_deadline_reach_the_server(rpc: Rpc, kind: Kind) -> None:
    """What the application sends beside the messages reaches the server, duplicates and bytes too."""
    sent = (("x-key", "one"), ("x-key", "two"), ("x-key-bin", b"\x00\xff"))
    for metadata in (sent, grpc.aio.Metadata(*sent)):
        assert await rpc.finish(kind, rpc.start(kind, metadata)) == ANSWERS[kind]
        assert [pair for pair in rpc.service.seen[-1] if pair in sent] == list(sent)
        assert 0 < rpc.service.remaining[-1] <= BOUND + 0.5


@every_kind
async def test_metadata_can_be_looked_up(rpc: Rpc, kind: Kind) -> None:
    """Received metadata answers as grpc.aio's does: by key, all of a key, its length, as a mapping."""
    call = rpc.start(kind)
    await rpc.finish(kind, call)
    trailing = await call.trailing_metadata()

    assert trailing["x-trailing"] == "2"
    assert trailing.get_all("x-trailing") == ["2", "3"]
    assert trailing.get("x-none") is None
    assert "x-trailing" in trailing
    assert "x-none" not in trailing
    assert len(trailing) == 2
    assert "x-trailing" in list(trailing.keys())
    assert "x-trailing" in dict(trailing)


# --- failures ---------------------------------------------------------------------------------------------------------


@every_kind
async def test_a_failure_is_raised(rpc: Rpc, kind: Kind) -> None:
    """A failure is an AioRpcError that tells what the call tells."""
    call = rpc.start(kind, FAIL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.finish(kind, call)

    error = caught.value
    assert isinstance(error, grpc.RpcError)
    assert error.code() is await call.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == await call.details() == "no such thing"
    if kind is not Kind.UNARY_STREAM:  # grpc.aio now and then forgets what came right before such a failure
        assert pairs(error.initial_metadata()) == pairs(await call.initial_metadata()) == [INITIAL]
    assert pairs(error.trailing_metadata()) == pairs(await call.trailing_metadata()) == list(TRAILING)
    assert "no such thing" in error.debug_error_string()
    assert "no such thing" in await call.debug_error_string()
    assert "NOT_FOUND" in str(error)
    assert "NOT_FOUND" in repr(error)
    assert call.done()
    assert not call.cancelled()
    assert not call.cancel()


@both_unary
async def test_a_failure_is_raised_again(rpc: Rpc, kind: Kind) -> None:
    """Awaiting a failed call again raises again."""
    call = rpc.start(kind, FAIL)
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
            await call


@both_streams
@pytest.mark.parametrize("style", ["iterator", "reader"])
async def test_a_stream_that_breaks(rpc: Rpc, kind: Kind, style: str) -> None:
    """A stream that fails gives what came before, then raises the failure."""
    call = rpc.start(kind, BREAK)
    came: list[str] = []
    with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
        if style == "iterator":
            async for message in call:
                came.append(message.text)  # noqa: PERF401  what came before counts
        else:
            while (message := await call.read()) is not grpc.aio.EOF:
                came.append(message.text)

    assert came == ["A"]
    if style == "reader":
        with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
            await call.read()


@every_kind
async def test_a_method_that_nobody_serves(rpc: Rpc, kind: Kind) -> None:
    """An unknown method is UNIMPLEMENTED."""
    text = rpc.service.text
    method = getattr(rpc.channel, kind.value)("/interpose.tests.Features/No", text.SerializeToString, text.FromString)
    call = method(iter(()) if kind.request_streaming else text(), timeout=BOUND)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.finish(kind, call)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@every_kind
async def test_the_deadline_ends_a_call(rpc: Rpc, kind: Kind) -> None:
    """A deadline that passes while the server works gives DEADLINE_EXCEEDED."""
    call = rpc.start(kind, HOLD, timeout=0.1)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.finish(kind, call)
    assert caught.value.code() is await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert call.done()
    assert not call.cancelled()


@every_kind
async def test_a_call_that_is_under_way(rpc: Rpc, kind: Kind) -> None:
    """While the server works a call is not done, and tells the time left."""
    call = await rpc.held(kind)

    assert not call.done()
    assert not call.cancelled()
    assert 0 < call.time_remaining() <= BOUND
    rpc.service.gate.set()
    assert await rpc.finish(kind, call) == ANSWERS[kind]


@every_kind
async def test_callbacks_come_once(rpc: Rpc, kind: Kind) -> None:
    """Each callback is called once with the call, at the end or, if that was before, soon."""
    call = rpc.start(kind, HOLD)
    told: list[Any] = []
    call.add_done_callback(told.append)
    await happens(rpc.service.arrived)
    assert not told
    rpc.service.gate.set()
    await rpc.finish(kind, call)
    await call.code()
    await asyncio.sleep(0)

    assert told == [call]
    call.add_done_callback(told.append)
    await asyncio.sleep(0)
    assert told == [call, call]


# --- cancelling -------------------------------------------------------------------------------------------------------


@every_kind
async def test_a_call_can_be_cancelled(rpc: Rpc, kind: Kind) -> None:
    """`cancel` ends the call here and at the server; who awaits it gets CancelledError."""
    call = await rpc.held(kind)
    told: list[Any] = []
    call.add_done_callback(told.append)

    assert call.cancel()
    assert not call.cancel()
    assert call.cancelled()
    assert call.done()
    with pytest.raises(asyncio.CancelledError):
        await rpc.finish(kind, call)
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert await call.details() == "Locally cancelled by application!"
    await asyncio.sleep(0)
    assert told == [call]
    await happens(rpc.service.gone)


@every_kind
async def test_a_call_cancelled_before_it_starts(rpc: Rpc, kind: Kind) -> None:
    """A call that is cancelled at once is cancelled."""
    call = rpc.start(kind)
    assert call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await rpc.finish(kind, call)
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED


@every_kind
async def test_cancelling_who_waits_cancels_the_call(rpc: Rpc, kind: Kind) -> None:
    """A task that is cancelled while it awaits the answer takes the RPC with it."""
    call = await rpc.held(kind)
    waiting = asyncio.ensure_future(rpc.finish(kind, call))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await happens(rpc.service.gone)


@every_kind
async def test_wait_for_gives_up(rpc: Rpc, kind: Kind) -> None:
    """`asyncio.wait_for` over a call raises TimeoutError and cancels it."""
    call = await rpc.held(kind)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(rpc.finish(kind, call), 0.02)
    assert call.cancelled()
    await happens(rpc.service.gone)


# --- reading and writing ----------------------------------------------------------------------------------------------


@both_streams
async def test_reading(rpc: Rpc, kind: Kind) -> None:
    """`read` gives message after message, then EOF, and EOF again."""
    call = rpc.start(kind)
    read = [(await call.read()).text for _ in ANSWERS[kind]]

    assert read == ANSWERS[kind]
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@both_streams
async def test_iterating_on(rpc: Rpc, kind: Kind) -> None:
    """A loop that was left goes on where it stood."""
    call = rpc.start(kind)
    async for message in call:
        assert message.text == "A"
        break

    assert aiter(call) is aiter(call)
    assert await texts(call) == ANSWERS[kind][1:]


@both_streams
async def test_reading_and_iterating_do_not_mix(rpc: Rpc, kind: Kind) -> None:
    """Mixing the two ways to get responses is a UsageError."""
    call = await rpc.held(kind)
    aiter(call)
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        await call.read()
    call.cancel()

    call = rpc.start(kind, HOLD)
    reading = asyncio.ensure_future(call.read())
    await asyncio.sleep(0)
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        aiter(call)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@both_writers
async def test_writing(rpc: Rpc, kind: Kind) -> None:
    """`write` sends message after message, `done_writing` ends the stream, once or twice."""
    call = rpc.write(kind)
    for text in ("a", "b"):
        await asyncio.wait_for(call.write(rpc.service.text(text=text)), BOUND)
    await call.done_writing()
    await call.done_writing()

    assert await rpc.finish(kind, call) == ANSWERS[kind]
    assert await call.code() is grpc.StatusCode.OK
    await call.done_writing()


@both_writers
async def test_writing_after_the_end(rpc: Rpc, kind: Kind) -> None:
    """`write` after `done_writing`, and after the end of the RPC, is an InvalidStateError."""
    call = rpc.write(kind)
    await asyncio.wait_for(call.write(rpc.service.text(text="a")), BOUND)
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(rpc.service.text(text="b"))

    assert await rpc.finish(kind, call) == ["A"]
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(rpc.service.text(text="b"))


@both_writers
async def test_writing_after_cancel(rpc: Rpc, kind: Kind) -> None:
    """`write` to a cancelled call is an InvalidStateError."""
    call = rpc.write(kind)
    await asyncio.wait_for(call.write(rpc.service.text(text="a")), BOUND)
    call.cancel()

    with pytest.raises(asyncio.InvalidStateError):
        await call.write(rpc.service.text(text="b"))


@both_writers
async def test_writing_beside_an_iterator(rpc: Rpc, kind: Kind) -> None:
    """A call that was given its requests takes no others: UsageError."""
    call = rpc.start(kind)

    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        await call.write(rpc.service.text(text="c"))
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        await call.done_writing()
    assert await rpc.finish(kind, call) == ANSWERS[kind]


@pytest.mark.parametrize("style", ["iterator", "reader"])
async def test_a_conversation(rpc: Rpc, style: str) -> None:
    """On a bidi call what is written may depend on what was read before."""
    call = rpc.write(Kind.STREAM_STREAM)
    heard = []
    for text in ("how", "are", "you"):
        await asyncio.wait_for(call.write(rpc.service.text(text=text)), BOUND)
        message = await (call.read() if style == "reader" else anext(aiter(call)))
        heard.append(message.text)
    await call.done_writing()

    assert heard == ["HOW", "ARE", "YOU"]
    if style == "reader":
        assert await call.read() is grpc.aio.EOF
    else:
        assert await texts(call) == []
    assert await call.code() is grpc.StatusCode.OK


@both_writers
@pytest.mark.parametrize("form", ["list", "iterator", "generator", "async generator"])
async def test_requests_may_be_of_any_form(rpc: Rpc, kind: Kind, form: str) -> None:
    """A request stream may be any iterable, plain or async."""
    messages = [rpc.service.text(text=text) for text in ("a", "b")]

    async def each() -> AsyncIterator[Any]:
        for message in messages:
            await asyncio.sleep(0)
            yield message

    forms = {
        "list": messages,
        "iterator": iter(messages),
        "generator": (message for message in messages),
        "async generator": each(),
    }
    assert await rpc.finish(kind, rpc.stub[kind](forms[form], timeout=BOUND)) == ANSWERS[kind]


@every_kind
async def test_waiting_for_the_connection(rpc: Rpc, kind: Kind) -> None:
    """`wait_for_connection` returns once the call is connected; again after its end."""
    call = rpc.start(kind)
    await asyncio.wait_for(call.wait_for_connection(), BOUND)

    assert await rpc.finish(kind, call) == ANSWERS[kind]
    await asyncio.wait_for(call.wait_for_connection(), BOUND)


@pytest.mark.parametrize("way", WAYS)
@every_kind
async def test_waiting_for_a_connection_that_fails(generated: Generated, tmp_path: Any, way: str, kind: Kind) -> None:
    """`wait_for_connection` raises the failure where nobody listens."""
    async with WAYS[way](grpc.aio.insecure_channel(f"unix:{tmp_path}/none")) as channel:
        text = generated("features_pb2").Text
        methods = stub(generated, channel, "generated")
        call = methods[kind](iter([text()]) if kind.request_streaming else text(), timeout=BOUND)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.wait_for_connection(), BOUND)

        assert caught.value.code() is await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_at_once(rpc: Rpc) -> None:
    """Many tasks may use one stub."""
    kinds = list(Kind) * 4
    ends = await asyncio.gather(*(rpc.finish(kind, rpc.start(kind)) for kind in kinds))

    assert ends == [ANSWERS[kind] for kind in kinds]


# --- flows that wait --------------------------------------------------------------------------------------------------


def forever(call: Call) -> Flow:
    """Puts the call off."""
    yield call.after(1e6)


def again_much_later(call: Call) -> Flow:
    """Lets the first attempt fail, and puts the second one off."""
    yield call.buffered().with_metadata(("x-fail-first", "yes"))
    yield call.buffered().after(1e6)


async def never(call: Call) -> AsyncFlow:
    """Waits for what never comes."""
    await asyncio.get_running_loop().create_future()
    yield call


@pytest.mark.parametrize("flow", [forever, again_much_later, never], ids=lambda flow: flow.__name__)
@every_kind
async def test_a_call_can_be_cancelled_while_a_flow_waits(generated: Generated, kind: Kind, flow: Any) -> None:
    """While a flow waits a call is there, answers what can be known, and can be cancelled."""
    with served(generated) as (target, service):
        async with intercept_channel(grpc.aio.insecure_channel(target), flow) as channel:
            rpc = Rpc(channel, service, stub(generated, channel, "generated"))
            call = rpc.start(kind, timeout=None)
            told: list[Any] = []
            call.add_done_callback(told.append)
            waiting = asyncio.ensure_future(rpc.finish(kind, call))
            await asyncio.sleep(0.02)
            assert not call.done()
            assert call.time_remaining() is None
            assert call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await asyncio.wait_for(call.code(), BOUND) is grpc.StatusCode.CANCELLED
            assert call.cancelled()
            assert told == [call]
            assert len(service.seen) <= 1


# --- errors -----------------------------------------------------------------------------------------------------------


async def failure_of(rpc: Rpc, kind: Kind) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        await rpc.finish(kind, rpc.start(kind, FAIL))
    return caught.value


@wrapped_only
@every_kind
async def test_a_failure_is_typed_and_native(rpc: Rpc, kind: Kind) -> None:
    """`except grpc.RpcError`, `except grpc.aio.AioRpcError` and `except errors.NotFound` all catch what a stub raises."""
    error = await failure_of(rpc, kind)

    for catches in (grpc.RpcError, grpc.aio.AioRpcError, errors.NotFound, errors.StatusError):
        assert isinstance(error, catches)
    assert type(error).__name__ == "NotFound"
    assert not error.local
    assert error.trailing_metadata().get_all("x-trailing") == ["2", "3"]


def pickled(error: Any) -> Any:
    """What another process would get."""
    return pickle.loads(pickle.dumps(error))


@wrapped_only
@every_kind
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled], ids=lambda duplicate: duplicate.__name__)
async def test_a_failure_can_be_copied(rpc: Rpc, kind: Kind, duplicate: Callable[[Any], Any]) -> None:
    """A copy of an error, also one from another process, is caught by what catches the error, and tells the same."""
    error = await failure_of(rpc, kind)
    twin = duplicate(error)

    assert type(twin) is type(error)
    assert isinstance(twin, grpc.aio.AioRpcError)
    assert (twin.code(), twin.details(), twin.local) == (error.code(), error.details(), error.local)
    assert twin.trailing_metadata() == error.trailing_metadata()
    assert twin.initial_metadata() == error.initial_metadata()
    assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)
    assert twin.debug_error_string() == error.debug_error_string()


@wrapped_only
@both_writers
@pytest.mark.parametrize("form", ["plain", "async"])
async def test_a_request_stream_that_raises_is_the_cause(rpc: Rpc, kind: Kind, form: str) -> None:
    """An exception of the application's request stream ends the RPC with UNKNOWN and is its cause."""
    cause = LookupError("of the application")

    def requests() -> Iterator[Any]:
        yield rpc.service.text(text="a")
        raise cause

    async def requests_async() -> AsyncIterator[Any]:
        for request in requests():
            yield request

    call = rpc.stub[kind](requests() if form == "plain" else requests_async(), timeout=BOUND)
    with pytest.raises(errors.Unknown, match="Exception iterating requests!") as caught:
        await rpc.finish(kind, call)
    assert caught.value.__cause__ is cause
