"""Blocking calls that go straight to grpcio's core: what is chosen when, and what only they could get wrong.

tests/conformance/calls holds the direct way, and the one by grpcio's own state, to a raw channel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import _channel
from grpc._cython import cygrpc

from interpose import Call, Flow, Outcome, errors, intercept_channel
from interpose._grpcio import blocking
from interpose._grpcio.parts import found
from interpose.testing import Echo, failed
from tests.conformance.a6.wire import answering, message_and_status, status_behind
from tests.conformance.calls.ways import by_a_state, passes

OK = grpc.StatusCode.OK
INTERNAL = grpc.StatusCode.INTERNAL
METHOD = "/interpose.testing.Echo/unary_unary"
possible = pytest.mark.skipif(blocking.PARTS is None, reason="this grpcio lacks a private part: its state is asked")


class Client:
    """A channel with one interceptor, which keeps the outcomes."""

    def __init__(self, target: str, wrap: Callable[..., Any]) -> None:
        self.outcomes: list[Outcome] = []
        self.native = grpc.insecure_channel(target)
        self.channel = wrap(self.native, self.watch)

    def watch(self, call: Call) -> Flow:
        self.outcomes.append((yield call))

    def stub(self, serialize: Any = None, deserialize: Any = None) -> Any:
        return self.channel.unary_unary(METHOD, serialize, deserialize)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture(params=[intercept_channel, by_a_state], ids=["direct", "by a state"])
def client(request: pytest.FixtureRequest, echo: Echo) -> Iterator[Client]:
    with echo.serve() as target:
        client = Client(target, request.param)
        with client.channel:
            yield client


def way_of(stub: Any) -> str:
    return str(stub._blocking.__qualname__)


# --- which way --------------------------------------------------------------------------------------------------------


@possible
def test_this_grpcio_has_the_parts() -> None:
    """On the newest grpcio the direct way is taken, so that it is tested at all."""
    with intercept_channel(grpc.insecure_channel("unix:none")) as channel:
        assert way_of(channel.unary_unary(METHOD)).startswith("_direct")
        assert way_of(channel.stream_unary(METHOD)).startswith("_stated")


@pytest.mark.parametrize("missing", ["_determine_deadline", "_UnaryUnaryMultiCallable", "_InitialMetadataFlags"])
def test_parts_that_a_grpcio_lacks(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day that one of them goes."""
    monkeypatch.delattr(_channel, missing)

    assert found(blocking._Parts) is None


def test_parts_that_take_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day that an operation has one argument less: the state is asked, and not each call broken."""
    monkeypatch.setattr(cygrpc, "SendMessageOperation", lambda message: message)

    assert found(blocking._Parts) is None


def test_a_stub_that_lacks_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that grpcio keeps is asked."""
    with grpc.insecure_channel("unix:none") as native:
        stub: Any = native.unary_unary(METHOD)
        del stub._context

        assert blocking.blocking(stub, grpc.RpcError).__qualname__.startswith("_stated")


def test_a_stub_of_another_make() -> None:
    """A class derived from grpc's may do something else than grpc's."""

    class Other(_channel._UnaryUnaryMultiCallable):
        __module__ = "grpc._channel"

    other = Other.__new__(Other)

    assert blocking.blocking(other, grpc.RpcError).__qualname__.startswith("_stated")


@possible
def test_grpcs_observability_learns_of_each_call(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plugin is told by the state how long an RPC took, so grpc keeps one while there is a plugin."""
    stated: list[bytes] = []
    below = _channel._UnaryUnaryMultiCallable._blocking

    def noting(self: Any, request: bytes, *options: Any) -> Any:
        stated.append(request)
        return below(self, request, *options)

    observability = SimpleNamespace(_OBSERVABILITY_PLUGIN=None)
    monkeypatch.setattr(_channel._UnaryUnaryMultiCallable, "_blocking", noting)
    monkeypatch.setattr(blocking.PARTS, "observability", observability)
    with echo.serve() as target:
        client = Client(target, intercept_channel)
        with client.channel:
            stub = client.stub()
            for request, plugin in ((b"a", None), (b"b", "a plugin"), (b"c", None)):
                observability._OBSERVABILITY_PLUGIN = plugin
                assert stub(request) == request

    assert stated == [b"b"]
    assert [outcome.code for outcome in client.outcomes] == [OK] * 3


# --- (de)serializers --------------------------------------------------------------------------------------------------


def raises(_: Any) -> Any:
    raise ValueError("no")


@pytest.mark.parametrize("serialize", [raises, lambda _: None], ids=["raises", "gives nothing"])
def test_a_request_that_cannot_be_serialized(client: Client, serialize: Any, caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL in grpc's words, the cause in grpc's log, and nothing is sent."""
    with pytest.raises(errors.Internal, match="Exception serializing request!") as caught:
        client.stub(serialize)(b"a")

    assert caught.value.local
    assert isinstance(caught.value, grpc.Call)
    assert [(outcome.code, outcome.local) for outcome in client.outcomes] == [(INTERNAL, True)]
    assert isinstance(client.outcomes[0].error, grpc.Call)
    assert [record.name for record in caplog.records] == ["grpc._common"] * (serialize is raises)


@possible
def test_the_cause_of_a_request_that_cannot_be_serialized(echo: Echo) -> None:
    """It is that of the error, which grpcio itself drops."""
    with echo.serve() as target:
        client = Client(target, intercept_channel)
        with client.channel, pytest.raises(errors.Internal) as caught:
            client.stub(raises)(b"a")

    assert isinstance(caught.value.__cause__, ValueError)


def test_no_request(client: Client) -> None:
    """Nothing to send, and no serializer that makes something of it."""
    with pytest.raises(errors.Internal, match="Exception serializing request!"):
        client.stub()(None)


def test_a_response_that_is_nothing_when_deserialized(client: Client) -> None:
    """grpcio takes None for a failure of the deserializer; what the server sent behind it is there."""
    with pytest.raises(errors.Internal, match="Exception deserializing response!") as caught:
        client.stub(None, lambda _: None)(b"a")

    assert caught.value.local


@pytest.mark.parametrize("wrap", [intercept_channel, by_a_state], ids=["direct", "by a state"])
def test_a_response_that_is_nothing_behind_a_failure(wrap: Any) -> None:
    """grpcio looks at the message before the status."""
    with (
        answering(message_and_status(b"a", 5)) as server,
        grpc.insecure_channel(server.target) as native,
        wrap(native, passes) as channel,
        pytest.raises(errors.Internal, match="Exception deserializing response!"),
    ):
        channel.unary_unary(METHOD, None, lambda _: None)(b"a")


# --- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [intercept_channel, by_a_state], ids=["direct", "by a state"])
def test_a_failure_has_all_that_the_server_sent(wrap: Any) -> None:
    """Code, details, both metadata, and the core's words."""
    told = failed(grpc.StatusCode.NOT_FOUND, "no such thing", initial=(("a", "1"),), trailing=(("b", "2"),))
    with Echo([told]).serve() as target:
        client = Client(target, wrap)
        with client.channel, pytest.raises(errors.NotFound) as caught:
            client.stub()(b"a")

    error: Any = caught.value
    assert (error.details(), error.initial_metadata()["a"], error.trailing_metadata()["b"]) == (
        "no such thing",
        "1",
        "2",
    )
    assert "no such thing" in error.debug_error_string()
    assert not error.local


@pytest.mark.parametrize("wish", [None, False, True])
def test_waiting_for_a_server(client: Client, wish: bool | None) -> None:
    """`wait_for_ready` as the application says; with it a call to nobody waits for its deadline."""
    with intercept_channel(grpc.insecure_channel("unix:/nowhere"), client.watch) as channel:
        expected = errors.DeadlineExceeded if wish else errors.Unavailable
        with pytest.raises(expected):
            channel.unary_unary(METHOD)(b"a", timeout=0.2, wait_for_ready=wish)


def test_what_is_sent_along(client: Client, echo: Echo) -> None:
    """Metadata, and a message compressed."""
    client.stub()(b"a" * 1000, metadata=[("a", "1")], compression=grpc.Compression.Gzip)

    assert ("a", "1") in echo.attempts[-1].metadata


@pytest.mark.parametrize("wrap", [intercept_channel, by_a_state], ids=["direct", "by a state"])
def test_a_number_that_is_no_status(wrap: Any) -> None:
    """UNKNOWN, as grpcio has it."""
    with answering(status_behind(99, (b"a", b"1"))) as server, grpc.insecure_channel(server.target) as native:
        with pytest.raises(grpc.RpcError) as raw:
            native.unary_unary(METHOD)(b"a")
        with wrap(native, passes) as channel, pytest.raises(errors.Unknown) as caught:
            channel.unary_unary(METHOD)(b"a")

    theirs, ours = raw.value, caught.value
    assert (ours.code(), ours.details()) == (theirs.code(), theirs.details())  # type: ignore[attr-defined]
    assert ours.initial_metadata()["a"] == "1"


@pytest.mark.parametrize("wrap", [intercept_channel, by_a_state], ids=["direct", "by a state"])
def test_the_deadline_of_a_context(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """grpcio has a hook by which a build of it hands on the deadline of the RPC that is being handled."""
    now = time.time()
    monkeypatch.setattr(cygrpc, "get_deadline_from_context", lambda: now)

    # To nobody: an answer can be there before the core looks at its clock.
    with wrap(grpc.insecure_channel("unix:/nowhere"), passes) as channel, pytest.raises(errors.DeadlineExceeded):
        channel.unary_unary(METHOD)(b"a", timeout=20, wait_for_ready=True)

    assert time.time() - now < 10
