"""Tracing beside opentelemetry-instrumentation-grpc: one span for each RPC and side, and a warning once."""

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.instrumentation import grpc as instrumentation

from interpose import Interceptor, intercept_channel, intercept_server, native_interceptors, server_interceptor
from interpose.contrib.opentelemetry import Tracing
from interpose.testing.echo import Echo, Stub
from tests.contrib.opentelemetry.receiver import Exporting

THEIRS = "opentelemetry.instrumentation.grpc"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "opentelemetry-instrumentation-grpc" in record.message]


@pytest.fixture
def instrumented(exporting: Exporting) -> Iterator[Any]:
    """Make the instrumentations of these names active."""
    active: list[Any] = []

    def instrument(*names: str) -> None:
        for name in names:
            active.append(getattr(instrumentation, name)())
            active[-1].instrument(tracer_provider=exporting.provider)

    yield instrument
    for one in active:
        one.uninstrument()


class _Serving:
    def __init__(self, tracing: Interceptor, wrapped: bool) -> None:
        self._pool = futures.ThreadPoolExecutor(2)
        echo = Echo().handlers(asyncio=False)
        if wrapped:
            self._server = intercept_server(grpc.server(self._pool), tracing)
        else:
            self._server = grpc.server(self._pool, interceptors=[server_interceptor(tracing)])
        self._server.add_generic_rpc_handlers((echo,))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> str:
        return self.target

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_sync_server(
    wrapped: bool, instrumented: Any, exporting: Exporting, caplog: pytest.LogCaptureFixture
) -> None:
    """Theirs stand: they had begun before ours was asked."""
    instrumented("GrpcInstrumentorServer")
    with _Serving(Tracing(exporting.provider), wrapped) as target, grpc.insecure_channel(target) as channel:
        Stub(channel).unary_unary("a")
        _ = list(Stub(channel).unary_stream("a"))
        spans = exporting.spans(2)

    assert [(span.kind, span.scope) for span in spans] == [("SERVER", THEIRS)] * 2
    assert len(warnings(caplog)) == 1
    assert "uninstrument()" in warnings(caplog)[0]


async def test_an_asyncio_server(instrumented: Any, exporting: Exporting, caplog: pytest.LogCaptureFixture) -> None:
    """The same."""
    instrumented("GrpcAioInstrumentorServer")
    server = intercept_server(grpc.aio.server(), Tracing(exporting.provider))
    server.add_generic_rpc_handlers((Echo().handlers(asyncio=True),))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}") as channel:
        await server.start()
        await Stub(channel).unary_unary("a")
        _ = [message async for message in Stub(channel).unary_stream("a")]
        await server.stop(None)
    spans = exporting.spans(2)

    assert [(span.kind, span.scope) for span in spans] == [("SERVER", THEIRS)] * 2
    assert len(warnings(caplog)) == 1


def test_a_sync_client(exporting: Exporting, caplog: pytest.LogCaptureFixture) -> None:
    """Theirs stand there too, so that one rule holds."""
    # As its instrumentor does for every channel that is made; but that forgets which provider it was given.
    theirs = instrumentation.client_interceptor(tracer_provider=exporting.provider)
    with Echo().serve() as target, instrumentation.intercept_channel(grpc.insecure_channel(target), theirs) as bare:
        stub = Stub(intercept_channel(bare, Tracing(exporting.provider)))
        stub.unary_unary("a")
        _ = list(stub.unary_stream("a"))
        spans = exporting.spans(2)

    assert [(span.kind, span.scope) for span in spans] == [("CLIENT", THEIRS)] * 2
    assert len(warnings(caplog)) == 1


async def test_an_asyncio_client(instrumented: Any, exporting: Exporting, caplog: pytest.LogCaptureFixture) -> None:
    """The same."""
    instrumented("GrpcAioInstrumentorClient")
    async with Echo().serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, Tracing(exporting.provider)))
        await stub.unary_unary("a")
        _ = [message async for message in stub.unary_stream("a")]
    spans = exporting.spans(2)

    assert [(span.kind, span.scope) for span in spans] == [("CLIENT", THEIRS)] * 2
    assert len(warnings(caplog)) == 1


async def test_an_asyncio_client_with_native_interceptors(instrumented: Any, exporting: Exporting) -> None:
    """Theirs stand outside of ours then, and are current."""
    instrumented("GrpcAioInstrumentorClient")
    native = native_interceptors(Tracing(exporting.provider), asyncio=True)
    async with (
        Echo().serve_aio() as target,
        grpc.aio.insecure_channel(target, interceptors=native) as channel,
    ):
        await Stub(channel).unary_unary("a")
    [span] = exporting.spans(1)

    assert (span.kind, span.scope) == ("CLIENT", THEIRS)


def test_a_client_below_a_server_of_theirs(instrumented: Any, exporting: Exporting) -> None:
    """Their span of the incoming RPC is no span of the outgoing one: that has ours, below it."""
    instrumented("GrpcInstrumentorServer")
    tracing = Tracing(exporting.provider)

    with Echo().serve() as behind, grpc.insecure_channel(behind) as bare:
        stub = Stub(intercept_channel(bare, tracing))

        def handler(request: bytes, context: Any) -> bytes:
            return str(stub.unary_unary("a")).encode()

        pool = futures.ThreadPoolExecutor(2)
        server = grpc.server(pool)
        unary = grpc.unary_unary_rpc_method_handler(handler)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": unary}),))
        with grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}") as channel:
            server.start()
            channel.unary_unary("/a.B/C")(b"")
        server.stop(None).wait()
        pool.shutdown()
    spans = {(span.scope, span.name): span for span in exporting.spans(3)}
    ours, theirs = spans["interpose", "interpose.testing.Echo/unary_unary"], spans[THEIRS, "/a.B/C"]

    assert (ours.kind, ours.parent) == ("CLIENT", theirs.span_id)


def test_nothing_is_said_without_it(exporting: Exporting, caplog: pytest.LogCaptureFixture) -> None:
    """A channel that was made before they were active, or after, is ours."""
    with Echo().serve(Tracing(exporting.provider)) as target, grpc.insecure_channel(target) as bare:
        Stub(intercept_channel(bare, Tracing(exporting.provider))).unary_unary("a")
        spans = exporting.spans(2)

    assert {span.scope for span in spans} == {"interpose"}
    assert warnings(caplog) == []
