"""What a sync channel can do beside making calls works on a wrapped one too, and in company of native interceptors."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
import pytest

from interpose import Call, Flow, Kind, errors, intercept_channel
from tests.protos.compiled import Generated
from tests.protos.features import (
    ANSWERS,
    BOUND,
    FAIL,
    Features,
    looks,
    passes,
    replaces,
    resends,
    resends_later,
    served,
    stub,
)

Wrap = Callable[[grpc.Channel], grpc.Channel]

WAYS: dict[str, Wrap] = {
    "raw": lambda channel: channel,
    "passes": lambda channel: intercept_channel(channel, passes),
    "stack": lambda channel: intercept_channel(channel, looks, replaces, passes),
    "resends": lambda channel: intercept_channel(channel, resends),
}
every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
UDS = grpc.LocalConnectionType.UDS
CLOSED = "(?i)closed channel|channel closed"
BASES = {
    Kind.UNARY_UNARY: grpc.UnaryUnaryMultiCallable,
    Kind.UNARY_STREAM: grpc.UnaryStreamMultiCallable,
    Kind.STREAM_UNARY: grpc.StreamUnaryMultiCallable,
    Kind.STREAM_STREAM: grpc.StreamStreamMultiCallable,
}


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
    """A call that does not block: a future, or a stream."""
    request: Any = iter([text(text="a"), text(text="b")]) if kind.request_streaming else text(text="a")
    options.setdefault("timeout", BOUND)
    return (methods[kind] if kind.response_streaming else methods[kind].future)(request, **options)


def finish(kind: Kind, call: Any) -> list[str]:
    """Wait for the end; gives the texts that came, or raises the failure."""
    return [message.text for message in call] if kind.response_streaming else [call.result(BOUND).text]


# --- the channel itself -----------------------------------------------------------------------------------------------


@every_kind
def test_channels_and_stub_methods_are_native(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """A channel is a `grpc.Channel` and its stub methods are grpc's multi-callables, also those of generated stubs."""
    with wrap(grpc.insecure_channel(server[0])) as channel:
        assert isinstance(channel, grpc.Channel)
        for style in ("generated", "bare"):
            assert isinstance(stub(generated, channel, style)[kind], BASES[kind])


def test_connectivity_is_told(wrap: Wrap, server: tuple[str, Features]) -> None:
    """`subscribe` tells each state until `unsubscribe`."""
    ready, states = threading.Event(), []

    def told(state: grpc.ChannelConnectivity) -> None:
        states.append(state)
        if state is grpc.ChannelConnectivity.READY:
            ready.set()

    with wrap(grpc.insecure_channel(server[0])) as channel:
        channel.subscribe(told, try_to_connect=True)
        assert ready.wait(BOUND)
        channel.unsubscribe(told)

    assert states[0] is grpc.ChannelConnectivity.IDLE
    assert states[-1] is grpc.ChannelConnectivity.READY


def test_a_subscription_does_not_connect_unless_asked(wrap: Wrap, server: tuple[str, Features]) -> None:
    """`subscribe` without `try_to_connect` only looks."""
    told = threading.Event()
    states: list[Any] = []

    def callback(state: grpc.ChannelConnectivity) -> None:
        states.append(state)
        told.set()

    with wrap(grpc.insecure_channel(server[0])) as channel:
        channel.subscribe(callback)
        assert told.wait(BOUND)
        channel.unsubscribe(callback)

    assert states == [grpc.ChannelConnectivity.IDLE]


def test_a_channel_is_ready_when_connected(wrap: Wrap, server: tuple[str, Features]) -> None:
    """`grpc.channel_ready_future` waits for the connection."""
    with wrap(grpc.insecure_channel(server[0])) as channel:
        ready = grpc.channel_ready_future(channel)
        assert ready.result(BOUND) is None
        assert ready.done()


# grpc's thread that watches the connectivity may meet the closed channel, and raises ValueError then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_channel_that_cannot_connect_is_not_ready(wrap: Wrap, tmp_path: Path) -> None:
    """`grpc.channel_ready_future` times out, and can be cancelled, where nobody listens."""
    with wrap(grpc.insecure_channel(f"unix:{tmp_path}/none")) as channel:
        ready = grpc.channel_ready_future(channel)
        with pytest.raises(grpc.FutureTimeoutError):
            ready.result(0.05)
        assert ready.cancel()


def test_a_channel_is_a_context_manager(wrap: Wrap, generated: Generated, server: tuple[str, Features]) -> None:
    """`with` gives the channel and closes it; exceptions pass."""
    channel = wrap(grpc.insecure_channel(server[0]))
    ask = stub(generated, channel, "generated")[Kind.UNARY_UNARY]
    with pytest.raises(LookupError, match="of the application"), channel as entered:
        assert entered is channel
        raise LookupError("of the application")
    with pytest.raises(ValueError, match=CLOSED):
        ask(server[1].text(text="a"), timeout=BOUND)


@every_kind
@pytest.mark.parametrize("style", ["generated", "bare", "bare, made later"])
def test_a_closed_channel_is_refused(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind, style: str
) -> None:
    """A call on a closed channel is a ValueError, however it is made.

    A generated stub must have been made before: with a later one grpc itself ends the process.
    """
    channel = wrap(grpc.insecure_channel(server[0]))
    methods = stub(generated, channel, style)
    channel.close()
    channel.close()
    if style == "bare, made later":
        methods = stub(generated, channel, style)

    with pytest.raises(ValueError, match=CLOSED):
        finish(kind, start(methods, kind, server[1].text))
    if not kind.response_streaming:
        for form in methods[kind], methods[kind].with_call:
            request: Any = iter(()) if kind.request_streaming else server[1].text()
            with pytest.raises(ValueError, match=CLOSED):
                form(request, timeout=BOUND)


@every_kind
def test_closing_ends_what_is_under_way(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """`close` cancels the calls that are at the server."""
    target, service = server
    channel = wrap(grpc.insecure_channel(target))
    call = start(stub(generated, channel, "generated"), kind, service.text, metadata=(("x-act", "hold"),))
    assert service.arrived.wait(BOUND)
    channel.close()

    with pytest.raises(grpc.RpcError):
        finish(kind, call)
    assert call.code() is grpc.StatusCode.CANCELLED
    assert call.done()


@every_kind
def test_closing_ends_what_waits_to_be_sent(generated: Generated, server: tuple[str, Features], kind: Kind) -> None:
    """`close` ends the calls that a flow has put off; they are never sent."""

    def later(call: Call) -> Flow:
        yield call.after(1e6)

    channel = intercept_channel(grpc.insecure_channel(server[0]), later)
    call = start(stub(generated, channel, "generated"), kind, server[1].text, timeout=None)
    channel.close()

    with pytest.raises((grpc.RpcError, ValueError)):
        finish(kind, call)
    assert call.done()
    assert not server[1].seen


def test_closing_ends_a_blocking_call_that_waits(generated: Generated, server: tuple[str, Features]) -> None:
    """`close` by another thread wakes a blocking call that a flow has put off."""
    delayed = threading.Event()

    def later(call: Call) -> Flow:
        delayed.set()
        yield call.after(1e6)

    channel = intercept_channel(grpc.insecure_channel(server[0]), later)
    closing = threading.Thread(target=lambda: (delayed.wait(BOUND), channel.close()))
    closing.start()
    with pytest.raises((grpc.RpcError, ValueError)):
        stub(generated, channel, "generated")[Kind.UNARY_UNARY](server[1].text(text="a"))
    closing.join(BOUND)

    assert not server[1].seen


# --- what a call is sent with -----------------------------------------------------------------------------------------


def test_messages_of_any_runtime_pass(wrap: Wrap, server: tuple[str, Features]) -> None:
    """Without serializers messages are bytes; with those of another runtime, whatever it makes of them."""
    wire = server[1].text(text="a").SerializeToString()
    answer = server[1].text(text="A").SerializeToString()
    with wrap(grpc.insecure_channel(server[0])) as channel:
        path = "/interpose.tests.Features/"
        assert channel.unary_unary(path + "Ask")(wire, timeout=BOUND) == answer
        assert list(channel.stream_stream(path + "Chat")(iter([wire, wire]), timeout=BOUND)) == [answer, answer]
        spelled = channel.stream_unary(path + "Collect", bytes.fromhex, bytes.hex)
        assert spelled(iter([wire.hex()]), timeout=BOUND) == answer.hex()


@every_kind
@pytest.mark.parametrize("given", ["call", "channel"])
def test_compression_is_used(wrap: Wrap, generated: Generated, kind: Kind, given: str) -> None:
    """Compression asked for by a call or by its channel is used: a server without gzip refuses it."""
    identity_only = (("grpc.compression_enabled_algorithms_bitset", 1),)
    options = {"compression": grpc.Compression.Gzip} if given == "call" else {}
    of_channel = grpc.Compression.Gzip if given == "channel" else None
    with (
        served(generated, options=identity_only) as (target, service),
        wrap(grpc.insecure_channel(target, compression=of_channel)) as channel,
    ):
        methods = stub(generated, channel, "generated")
        with pytest.raises(grpc.RpcError) as caught:
            if kind is Kind.STREAM_UNARY:  # its future() forgets compression: grpc's own fault
                methods[kind](iter([service.text(text="a")]), timeout=BOUND, **options)
            else:
                finish(kind, start(methods, kind, service.text, **options))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "gzip" in error.details()
        if given == "call":
            assert finish(kind, start(methods, kind, service.text)) == ANSWERS[kind]


@every_kind
def test_call_credentials_are_sent(wrap: Wrap, generated: Generated, tmp_path: Path, kind: Kind) -> None:
    """Call credentials reach the server on a secure channel, with every attempt."""
    address = f"unix:{tmp_path}/server"
    with (
        served(generated, address, grpc.local_server_credentials(UDS)) as (target, service),
        wrap(grpc.secure_channel(target, grpc.local_channel_credentials(UDS))) as channel,
    ):
        methods = stub(generated, channel, "generated")
        call = start(methods, kind, service.text, credentials=grpc.access_token_call_credentials("token"))
        assert finish(kind, call) == ANSWERS[kind]

        assert service.values("authorization") == ["Bearer token"] * len(service.seen)


@every_kind
def test_call_credentials_need_a_secure_channel(
    wrap: Wrap, generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """Call credentials on an insecure channel are UNAUTHENTICATED, and nothing is sent."""
    with wrap(grpc.insecure_channel(server[0])) as channel:
        call = start(
            stub(generated, channel, "generated"),
            kind,
            server[1].text,
            credentials=grpc.access_token_call_credentials("token"),
        )
        with pytest.raises(grpc.RpcError) as caught:
            finish(kind, call)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        assert not server[1].seen


class Token(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """Credentials of an application: told of the method, they answer with a header."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, context: Any, callback: Any) -> None:
        self.asked.append(context.method_name)
        callback((("x-token", "secret"),), None)


def test_credentials_of_the_channel_are_sent(wrap: Wrap, generated: Generated, tmp_path: Path) -> None:
    """Composite channel credentials ask their plugin for each attempt."""
    plugin = Token()
    both = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(UDS), grpc.metadata_call_credentials(plugin, "token")
    )
    with (
        served(generated, f"unix:{tmp_path}/server", grpc.local_server_credentials(UDS)) as (target, service),
        wrap(grpc.secure_channel(target, both)) as channel,
    ):
        methods = stub(generated, channel, "generated")
        assert methods[Kind.UNARY_UNARY](service.text(text="a"), timeout=BOUND).text == "A"

        assert service.values("x-token") == ["secret"] * len(service.seen)
        assert set(plugin.asked) == {"Ask"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A key and a self-signed certificate for localhost."""
    home = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            "key.pem",
            "-out",
            "crt.pem",
        ],
        cwd=home,
        check=True,
        capture_output=True,
        timeout=BOUND,
    )
    return (home / "key.pem").read_bytes(), (home / "crt.pem").read_bytes()


@pytest.mark.needs("openssl")
@every_kind
def test_tls(wrap: Wrap, generated: Generated, certificate: tuple[bytes, bytes], kind: Kind) -> None:
    """A TLS channel works wrapped, with call credentials on top."""
    trusted = grpc.ssl_channel_credentials(certificate[1])
    named = [("grpc.ssl_target_name_override", "localhost")]
    with (
        served(generated, credentials=grpc.ssl_server_credentials([certificate])) as (target, service),
        wrap(grpc.secure_channel(target, trusted, named)) as channel,
    ):
        call = start(
            stub(generated, channel, "generated"),
            kind,
            service.text,
            credentials=grpc.access_token_call_credentials("token"),
        )
        assert finish(kind, call) == ANSWERS[kind]

        assert service.values("authorization") == ["Bearer token"] * len(service.seen)


# - waiting for a connection -

HASTE = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 50),
]


@every_kind
def test_a_call_may_wait_for_the_server(wrap: Wrap, generated: Generated, tmp_path: Path, kind: Kind) -> None:
    """With `wait_for_ready` a call outlasts the time until a server listens; without it is UNAVAILABLE at once."""
    address = f"unix:{tmp_path}/server"
    text = generated("features_pb2").Text
    with wrap(grpc.insecure_channel(address, HASTE)) as channel:
        methods = stub(generated, channel, "generated")
        with pytest.raises(grpc.RpcError) as caught:
            finish(kind, start(methods, kind, text))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]

        call = start(methods, kind, text, wait_for_ready=True)
        assert not call.done()
        with served(generated, address):
            assert finish(kind, call) == ANSWERS[kind]


# --- in company -------------------------------------------------------------------------------------------------------


def marks(name: str) -> Callable[[Call], Flow]:
    """An interceptor that leaves its name in the metadata."""

    def mark(call: Call) -> Flow:
        yield call.with_metadata(("x-mark", name))

    return mark


class Native(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """grpc's own kind of interceptor, that leaves its name in the metadata."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        marked = (*(details.metadata or ()), ("x-mark", self._name))
        return continuation(Details(details, marked), request)

    intercept_unary_unary = intercept_unary_stream = _intercept
    intercept_stream_unary = intercept_stream_stream = _intercept


class Details(grpc.ClientCallDetails):  # type: ignore[misc]
    """Call details with other metadata."""

    def __init__(self, details: Any, metadata: Any) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class Foreign(grpc.Channel):  # type: ignore[misc]
    """A channel of somebody else's that passes all on."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.unary_unary = channel.unary_unary
        self.unary_stream = channel.unary_stream
        self.stream_unary = channel.stream_unary
        self.stream_stream = channel.stream_stream
        self.subscribe = channel.subscribe
        self.unsubscribe = channel.unsubscribe
        self.close = channel.close

    unary_unary = unary_stream = stream_unary = stream_stream = None
    subscribe = unsubscribe = close = __enter__ = None

    def __exit__(self, *exc_info: object) -> None:
        self.close()


COMPANY: dict[str, tuple[Wrap, list[str]]] = {
    "twice": (
        lambda channel: intercept_channel(intercept_channel(channel, marks("a"), marks("b")), marks("c")),
        ["c", "a", "b"],
    ),
    "native inside": (
        lambda channel: intercept_channel(grpc.intercept_channel(channel, Native("n")), marks("a")),
        ["a", "n"],
    ),
    "native around": (
        lambda channel: grpc.intercept_channel(intercept_channel(channel, marks("a")), Native("n")),
        ["n", "a"],
    ),
    "native between": (
        lambda channel: intercept_channel(
            grpc.intercept_channel(intercept_channel(channel, marks("a")), Native("n"), Native("m")), marks("b")
        ),
        ["b", "n", "m", "a"],
    ),
    "foreign between": (
        lambda channel: intercept_channel(Foreign(intercept_channel(channel, marks("a"))), marks("b")),
        ["b", "a"],
    ),
    "native inside, sent again": (
        lambda channel: intercept_channel(grpc.intercept_channel(channel, Native("n")), resends_later),
        ["n", "n"],
    ),
    "native around, sent again": (
        lambda channel: grpc.intercept_channel(intercept_channel(channel, resends_later), Native("n")),
        ["n", "n"],
    ),
}
in_company = pytest.mark.parametrize(("wrapped", "order"), COMPANY.values(), ids=COMPANY)


@in_company
@every_kind
def test_order_in_company(
    generated: Generated, server: tuple[str, Features], kind: Kind, wrapped: Wrap, order: list[str]
) -> None:
    """Whoever wrapped last is outermost, be it ours or grpc's own; futures, streams and blocking calls all pass."""
    target, service = server
    with wrapped(grpc.insecure_channel(target)) as channel:
        methods = stub(generated, channel, "generated")
        call = start(methods, kind, service.text)
        assert finish(kind, call) == ANSWERS[kind]
        assert service.values("x-mark") == order
        assert call.code() is grpc.StatusCode.OK
        assert ("x-initial", "1") in list(call.initial_metadata())

        if not kind.response_streaming:
            service.seen.clear()
            request: Any = iter([service.text(text="b")]) if kind.request_streaming else service.text(text="b")
            response, ended = methods[kind].with_call(request, timeout=BOUND)
            assert response.text == "B"
            assert ended.code() is grpc.StatusCode.OK
            assert service.values("x-mark") == order


@in_company
@every_kind
def test_failures_in_company(
    generated: Generated, server: tuple[str, Features], kind: Kind, wrapped: Wrap, order: list[str]
) -> None:
    """A failure comes through interceptors of both kinds unchanged."""
    target, service = server
    with wrapped(grpc.insecure_channel(target)) as channel:
        methods = stub(generated, channel, "generated")
        with pytest.raises(grpc.RpcError) as caught:
            finish(kind, start(methods, kind, service.text, metadata=FAIL))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == "no such thing"
        assert ("x-trailing", "2") in list(error.trailing_metadata())

        if not kind.response_streaming:
            with pytest.raises(grpc.RpcError) as caught:
                request: Any = iter([service.text(text="b")]) if kind.request_streaming else service.text(text="b")
                methods[kind](request, timeout=BOUND, metadata=FAIL)
            error = caught.value
            assert error.code() is grpc.StatusCode.NOT_FOUND


@in_company
@every_kind
def test_cancelling_in_company(
    generated: Generated, server: tuple[str, Features], kind: Kind, wrapped: Wrap, order: list[str]
) -> None:
    """`cancel` reaches the server through interceptors of both kinds."""
    target, service = server
    with wrapped(grpc.insecure_channel(target)) as channel:
        call = start(stub(generated, channel, "generated"), kind, service.text, metadata=(("x-act", "hold"),))
        assert service.arrived.wait(BOUND)
        assert call.cancel()

        assert service.gone.wait(BOUND)
        assert call.code() is grpc.StatusCode.CANCELLED


class Broken(Native):
    """A native interceptor with a fault of its own."""

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        raise LookupError("of the interceptor")

    intercept_unary_unary = intercept_unary_stream = _intercept
    intercept_stream_unary = intercept_stream_stream = _intercept


@every_kind
def test_the_fault_of_a_native_interceptor_comes_through(
    generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """What a native interceptor inside raises is the outcome's error, and reaches the application as it is."""
    told: list[Any] = []

    def watch(call: Call) -> Flow:
        told.append((yield call))

    native = grpc.intercept_channel(grpc.insecure_channel(server[0]), Broken("n"))
    with intercept_channel(native, watch) as channel:
        methods = stub(generated, channel, "generated")
        with pytest.raises(LookupError, match="of the interceptor"):
            finish(kind, start(methods, kind, server[1].text))

    [outcome] = told
    assert isinstance(outcome.error, LookupError)
    assert outcome.code is grpc.StatusCode.INTERNAL
    assert outcome.local


class Generating(Native):
    """A native interceptor that gives a bare generator in the place of a response stream, as several do."""

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        yield from continuation(details, request)

    intercept_stream_stream = intercept_unary_stream


@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
def test_a_native_interceptor_may_give_a_bare_generator(
    generated: Generated, server: tuple[str, Features], kind: Kind
) -> None:
    """A response stream that a native interceptor inside made a bare generator still ends with an outcome."""
    told: list[Any] = []

    def watch(call: Call) -> Flow:
        told.append((yield call))

    native = grpc.intercept_channel(grpc.insecure_channel(server[0]), Generating("n"))
    with intercept_channel(native, watch) as channel:
        methods = stub(generated, channel, "generated")
        call = start(methods, kind, server[1].text)
        assert finish(kind, call) == ANSWERS[kind]
        assert call.code() is grpc.StatusCode.OK
        with pytest.raises(errors.NotFound, match="no such thing"):
            finish(kind, start(methods, kind, server[1].text, metadata=FAIL))

    assert [(outcome.code.name, outcome.responses) for outcome in told] == [
        ("OK", len(ANSWERS[kind])),
        ("NOT_FOUND", 0),
    ]


def test_streams_read_by_one_thread(generated: Generated, server: tuple[str, Features]) -> None:
    """The channel option for response streams without a thread of their own works wrapped."""
    option = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
    for wrap in WAYS.values():
        with wrap(grpc.insecure_channel(server[0], option)) as channel:
            methods = stub(generated, channel, "generated")
            call = start(methods, Kind.UNARY_STREAM, server[1].text)
            assert finish(Kind.UNARY_STREAM, call) == ["A", "A", "A"]
            assert call.code() is grpc.StatusCode.OK
            with pytest.raises(grpc.RpcError) as caught:
                finish(Kind.UNARY_STREAM, start(methods, Kind.UNARY_STREAM, server[1].text, metadata=FAIL))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "what", [None, "localhost:1", object(), grpc.insecure_channel], ids=["None", "text", "object", "function"]
)
def test_only_a_channel_can_be_wrapped(what: Any) -> None:
    """Anything but a channel is a TypeError that says what to give."""
    with pytest.raises(
        TypeError,
        match=r"is no channel.* begins with what grpc.insecure_channel",
    ):
        intercept_channel(what, passes)
