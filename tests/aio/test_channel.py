"""What an asyncio channel can do beside making calls works on a wrapped one too, and in company of native interceptors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, errors, intercept_channel
from tests.conformance.calls.ways import in_public
from tests.protos.compiled import Generated
from tests.protos.features import (
    ANSWERS,
    BOUND,
    FAIL,
    HOLD,
    Features,
    looks,
    passes,
    replaces,
    resends,
    resends_later,
    served,
    stub,
)

Wrap = Callable[[grpc.aio.Channel], grpc.aio.Channel]

WAYS: dict[str, Wrap] = {
    "raw": lambda channel: channel,
    "passes": lambda channel: intercept_channel(channel, passes),
    "stack": lambda channel: intercept_channel(channel, looks, replaces, passes),
    "resends": lambda channel: intercept_channel(channel, resends),
    "passes, in public": lambda channel: in_public(channel, passes),
}
UDS = grpc.LocalConnectionType.UDS
READY = grpc.ChannelConnectivity.READY
IDLE = grpc.ChannelConnectivity.IDLE
HASTE = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 50),
]
BASES = {
    Kind.UNARY_UNARY: grpc.aio.UnaryUnaryMultiCallable,
    Kind.UNARY_STREAM: grpc.aio.UnaryStreamMultiCallable,
    Kind.STREAM_UNARY: grpc.aio.StreamUnaryMultiCallable,
    Kind.STREAM_STREAM: grpc.aio.StreamStreamMultiCallable,
}

every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def wrap(request: pytest.FixtureRequest) -> Wrap:
    """One way to wrap a channel."""
    found: Wrap = request.param
    return found


@pytest.fixture
def server(generated: Generated) -> Iterator[tuple[str, Features]]:
    """A running server: its target and its servicer."""
    with served(generated) as found:
        yield found


def start(methods: dict[Kind, Any], kind: Kind, text: type[Any], **options: Any) -> Any:
    """A call with requests "a", or "a" and "b"."""
    request: Any = iter([text(text="a"), text(text="b")]) if kind.request_streaming else text(text="a")
    options.setdefault("timeout", BOUND)
    return methods[kind](request, **options)


async def finish(kind: Kind, call: Any) -> list[str]:
    """Wait for the end; gives the texts that came, or raises the failure."""
    return [message.text async for message in call] if kind.response_streaming else [(await call).text]


async def happens(event: Any) -> None:
    """Wait for an event of another thread."""
    assert await asyncio.to_thread(event.wait, BOUND)


# --- the channel itself -----------------------------------------------------------------------------------------------


@every_kind
async def test_channels_and_stub_methods_are_native(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """A channel is a `grpc.aio.Channel` and its stub methods are grpc.aio's multi-callables."""
    async with wrap(grpc.aio.insecure_channel(server[0])) as channel:
        assert isinstance(channel, grpc.aio.Channel)
        for style in ("generated", "bare"):
            assert isinstance(stub(generated, channel, style)[kind], BASES[kind])


async def test_connectivity_is_told(wrap: Wrap, server: tuple[str, Features]) -> None:
    """`get_state` and `wait_for_state_change` follow the connection; only `try_to_connect` makes one."""
    async with wrap(grpc.aio.insecure_channel(server[0])) as channel:
        assert channel.get_state() is IDLE
        assert channel.get_state(try_to_connect=True) is IDLE
        state = IDLE
        while state is not READY:
            await asyncio.wait_for(channel.wait_for_state_change(state), BOUND)
            state = channel.get_state()

        assert state is READY
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_channel_is_ready_when_connected(wrap: Wrap, server: tuple[str, Features]) -> None:
    """`channel_ready` waits for the connection."""
    async with wrap(grpc.aio.insecure_channel(server[0])) as channel:
        await asyncio.wait_for(channel.channel_ready(), BOUND)
        assert channel.get_state() is READY


async def test_a_channel_that_cannot_connect_is_not_ready(wrap: Wrap, tmp_path: Path) -> None:
    """`channel_ready` waits on where nobody listens."""
    async with wrap(grpc.aio.insecure_channel(f"unix:{tmp_path}/none")) as channel:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.channel_ready(), 0.05)


async def test_a_channel_is_a_context_manager(wrap: Wrap, generated: Generated, server: tuple[str, Features]) -> None:
    """`async with` gives the channel and closes it; exceptions pass."""
    channel = wrap(grpc.aio.insecure_channel(server[0]))
    ask = stub(generated, channel, "generated")[Kind.UNARY_UNARY]
    with pytest.raises(LookupError, match="of the application"):
        async with channel as entered:
            assert entered is channel
            raise LookupError("of the application")
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await ask(server[1].text(text="a"), timeout=BOUND)


@every_kind
@pytest.mark.parametrize("style", ["generated", "bare", "bare, made later"])
async def test_a_closed_channel_is_refused(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind, style: str
) -> None:
    """A call on a closed channel is a UsageError; closing twice does no harm."""
    channel = wrap(grpc.aio.insecure_channel(server[0]))
    methods = stub(generated, channel, style)
    await channel.close()
    await channel.close()
    if style == "bare, made later":
        methods = stub(generated, channel, style)

    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await finish(kind, start(methods, kind, server[1].text))


@every_kind
async def test_closing_ends_what_is_under_way(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """`close` cancels the calls that are at the server."""
    target, service = server
    channel = wrap(grpc.aio.insecure_channel(target))
    call = start(stub(generated, channel, "generated"), kind, service.text, metadata=HOLD)
    await happens(service.arrived)
    await asyncio.wait_for(channel.close(), BOUND)

    assert await asyncio.wait_for(call.code(), BOUND) is grpc.StatusCode.CANCELLED
    assert call.cancelled()
    assert call.done()
    with pytest.raises(asyncio.CancelledError):
        await finish(kind, call)


@every_kind
async def test_closing_with_grace_lets_calls_end(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """`close(grace)` waits for the calls that are at the server, and takes no new ones."""
    target, service = server
    channel = wrap(grpc.aio.insecure_channel(target))
    methods = stub(generated, channel, "bare")
    call = start(methods, kind, service.text, metadata=HOLD)
    await happens(service.arrived)
    closing = asyncio.ensure_future(channel.close(grace=BOUND))
    await asyncio.sleep(0)
    with pytest.raises(grpc.aio.UsageError):
        await finish(kind, start(methods, kind, service.text))
    service.gate.set()

    assert await finish(kind, call) == ANSWERS[kind]
    await asyncio.wait_for(closing, BOUND)


@every_kind
async def test_grace_has_an_end(wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind) -> None:
    """When the grace is over the calls that are left are cancelled."""
    target, service = server
    channel = wrap(grpc.aio.insecure_channel(target))
    call = start(stub(generated, channel, "generated"), kind, service.text, metadata=HOLD)
    await happens(service.arrived)
    await asyncio.wait_for(channel.close(grace=0.05), BOUND)

    assert await asyncio.wait_for(call.code(), BOUND) is grpc.StatusCode.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await finish(kind, call)


@every_kind
@pytest.mark.parametrize("grace", [None, 0.05])
async def test_closing_ends_what_waits_to_be_sent(
    generated: Generated, server: tuple[str, Features], kind: Kind, grace: float | None
) -> None:
    """`close` ends the calls that a flow has put off; they are never sent."""

    def later(call: Call) -> Flow:
        yield call.after(1e6)

    channel = intercept_channel(grpc.aio.insecure_channel(server[0]), later)
    call = start(stub(generated, channel, "generated"), kind, server[1].text, timeout=None)
    await asyncio.wait_for(channel.close(grace), BOUND)

    assert await asyncio.wait_for(call.code(), BOUND) is grpc.StatusCode.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await finish(kind, call)
    assert not server[1].seen


# --- what a call is sent with -----------------------------------------------------------------------------------------


async def test_messages_of_any_runtime_pass(wrap: Wrap, server: tuple[str, Features]) -> None:
    """Without serializers messages are bytes; with those of another runtime, whatever it makes of them."""
    wire = server[1].text(text="a").SerializeToString()
    answer = server[1].text(text="A").SerializeToString()
    async with wrap(grpc.aio.insecure_channel(server[0])) as channel:
        path = "/interpose.tests.Features/"
        assert await channel.unary_unary(path + "Ask")(wire, timeout=BOUND) == answer
        chat = channel.stream_stream(path + "Chat")([wire, wire], timeout=BOUND)
        assert [message async for message in chat] == [answer, answer]
        spelled = channel.stream_unary(path + "Collect", bytes.fromhex, bytes.hex)
        assert await spelled([wire.hex()], timeout=BOUND) == answer.hex()


@every_kind
@pytest.mark.parametrize("given", ["call", "channel"])
async def test_compression_is_used(wrap: Wrap, generated: Generated, kind: Kind, given: str) -> None:
    """Compression asked for by a call or by its channel is used: a server without gzip refuses it."""
    identity_only = (("grpc.compression_enabled_algorithms_bitset", 1),)
    options = {"compression": grpc.Compression.Gzip} if given == "call" else {}
    of_channel = grpc.Compression.Gzip if given == "channel" else None
    with served(generated, options=identity_only) as (target, service):
        async with wrap(grpc.aio.insecure_channel(target, compression=of_channel)) as channel:
            methods = stub(generated, channel, "generated")
            # Nothing is written: a refusal between two writes reaches a client of grpc.aio as INTERNAL now and then.
            request = {} if kind.request_streaming else {"request": service.text(text="a")}
            call = methods[kind](**request, timeout=BOUND, **options)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await finish(kind, call)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "gzip" in caught.value.details()
            if given == "call":
                assert await finish(kind, start(methods, kind, service.text)) == ANSWERS[kind]


@every_kind
async def test_call_credentials_are_sent(wrap: Wrap, generated: Generated, tmp_path: Path, kind: Kind) -> None:
    """Call credentials reach the server on a secure channel, with every attempt."""
    with served(generated, f"unix:{tmp_path}/server", grpc.local_server_credentials(UDS)) as (target, service):
        async with wrap(grpc.aio.secure_channel(target, grpc.local_channel_credentials(UDS))) as channel:
            methods = stub(generated, channel, "generated")
            call = start(methods, kind, service.text, credentials=grpc.access_token_call_credentials("token"))
            assert await finish(kind, call) == ANSWERS[kind]

            assert service.values("authorization") == ["Bearer token"] * len(service.seen)


@every_kind
async def test_call_credentials_need_a_secure_channel(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """Call credentials on an insecure channel are refused as on a raw one, and nothing is sent."""

    async def refusal(channel: grpc.aio.Channel) -> Any:
        credentials = grpc.access_token_call_credentials("token")
        with pytest.raises((grpc.aio.UsageError, grpc.aio.AioRpcError)) as caught:
            methods = stub(generated, channel, "generated")
            await finish(kind, start(methods, kind, server[1].text, credentials=credentials))
        if isinstance(caught.value, grpc.aio.AioRpcError):
            return caught.value.code()
        return str(caught.value)

    async with grpc.aio.insecure_channel(server[0]) as raw, grpc.aio.insecure_channel(server[0]) as other:
        assert await refusal(wrap(other)) == await refusal(raw)
    assert not server[1].seen


@every_kind
async def test_a_call_may_wait_for_the_server(wrap: Wrap, generated: Generated, tmp_path: Path, kind: Kind) -> None:
    """With `wait_for_ready` a call outlasts the time until a server listens; without it is UNAVAILABLE at once."""
    address = f"unix:{tmp_path}/server"
    text = generated("features_pb2").Text
    async with wrap(grpc.aio.insecure_channel(address, HASTE)) as channel:
        methods = stub(generated, channel, "generated")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await finish(kind, start(methods, kind, text))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

        call = start(methods, kind, text, wait_for_ready=True)
        assert not call.done()
        with served(generated, address):
            assert await finish(kind, call) == ANSWERS[kind]


# --- in company -------------------------------------------------------------------------------------------------------


def marks(name: str) -> Callable[[Call], Flow]:
    """An interceptor that leaves its name in the metadata."""

    def mark(call: Call) -> Flow:
        yield call.with_metadata(("x-mark", name))

    return mark


class _Native:
    """grpc.aio's own kind of interceptor, that leaves its name in the metadata."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = details.metadata or grpc.aio.Metadata()
        metadata.add("x-mark", self._name)
        return await continuation(details._replace(metadata=metadata), request)


class NativeUnaryUnary(_Native, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary = _Native._intercept


class NativeUnaryStream(_Native, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = _Native._intercept


class NativeStreamUnary(_Native, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary = _Native._intercept


class NativeStreamStream(_Native, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream = _Native._intercept


NATIVE = (NativeUnaryUnary, NativeUnaryStream, NativeStreamUnary, NativeStreamStream)


def native(target: str) -> grpc.aio.Channel:
    """A channel with native interceptors for every kind."""
    return grpc.aio.insecure_channel(target, interceptors=[made("n") for made in NATIVE])


COMPANY: dict[str, tuple[Callable[[str], grpc.aio.Channel], list[str]]] = {
    "twice": (
        lambda target: intercept_channel(
            intercept_channel(grpc.aio.insecure_channel(target), marks("a"), marks("b")), marks("c")
        ),
        ["c", "a", "b"],
    ),
    "native inside": (lambda target: intercept_channel(native(target), marks("a")), ["a", "n"]),
    "native inside, sent again": (lambda target: intercept_channel(native(target), resends_later), ["n", "n"]),
}
in_company = pytest.mark.parametrize(("opened", "order"), COMPANY.values(), ids=COMPANY)


@in_company
@every_kind
async def test_order_in_company(
    generated: Generated, server: tuple[str, Features], kind: Kind, opened: Any, order: list[str]
) -> None:
    """Whoever wrapped last is outermost; native interceptors of the channel are innermost."""
    target, service = server
    async with opened(target) as channel:
        call = start(stub(generated, channel, "generated"), kind, service.text)
        assert await finish(kind, call) == ANSWERS[kind]
        assert service.values("x-mark") == order
        assert await call.code() is grpc.StatusCode.OK
        assert ("x-initial", "1") in list(await call.initial_metadata())
        assert ("x-trailing", "2") in list(await call.trailing_metadata())


@in_company
@every_kind
async def test_failures_in_company(
    generated: Generated, server: tuple[str, Features], kind: Kind, opened: Any, order: list[str]
) -> None:
    """A failure comes through native interceptors unchanged, and typed."""
    target, service = server
    async with opened(target) as channel:
        with pytest.raises(errors.NotFound, match="no such thing") as caught:
            await finish(kind, start(stub(generated, channel, "generated"), kind, service.text, metadata=FAIL))
        assert isinstance(caught.value, grpc.aio.AioRpcError)
        assert caught.value.trailing_metadata().get_all("x-trailing") == ["2", "3"]


@in_company
@every_kind
async def test_cancelling_in_company(
    generated: Generated, server: tuple[str, Features], kind: Kind, opened: Any, order: list[str]
) -> None:
    """`cancel` reaches the server through native interceptors."""
    target, service = server
    async with opened(target) as channel:
        call = start(stub(generated, channel, "generated"), kind, service.text, metadata=HOLD)
        await happens(service.arrived)
        assert call.cancel()

        await happens(service.gone)
        assert await asyncio.wait_for(call.code(), BOUND) is grpc.StatusCode.CANCELLED
        assert call.cancelled()


@in_company
async def test_a_conversation_in_company(
    generated: Generated, server: tuple[str, Features], opened: Any, order: list[str]
) -> None:
    """`write` and `read` work through native interceptors."""
    target, service = server
    async with opened(target) as channel:
        call = stub(generated, channel, "generated")[Kind.STREAM_STREAM](timeout=BOUND)
        heard = []
        for text in ("how", "are", "you"):
            await asyncio.wait_for(call.write(service.text(text=text)), BOUND)
            heard.append((await call.read()).text)
        await call.done_writing()

        assert heard == ["HOW", "ARE", "YOU"]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


class Broken(_Native):
    """A native interceptor with a fault of its own."""

    async def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        raise LookupError("of the interceptor")


class BrokenUnaryUnary(Broken, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary = Broken._intercept


class BrokenUnaryStream(Broken, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = Broken._intercept


class BrokenStreamUnary(Broken, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary = Broken._intercept


class BrokenStreamStream(Broken, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream = Broken._intercept


BROKEN = (BrokenUnaryUnary, BrokenUnaryStream, BrokenStreamUnary, BrokenStreamStream)


@every_kind
async def test_the_fault_of_a_native_interceptor_comes_through(
    generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """What a native interceptor inside raises is the outcome's error, and reaches the application as it is."""
    told: list[Any] = []

    def watch(call: Call) -> Flow:
        told.append((yield call))

    broken = grpc.aio.insecure_channel(server[0], interceptors=[made("n") for made in BROKEN])
    async with intercept_channel(broken, watch) as channel:
        with pytest.raises(LookupError, match="of the interceptor"):
            await asyncio.wait_for(
                finish(kind, start(stub(generated, channel, "generated"), kind, server[1].text)), BOUND
            )

    [outcome] = told
    assert isinstance(outcome.error, LookupError)
    assert outcome.code is grpc.StatusCode.INTERNAL
    assert outcome.local
