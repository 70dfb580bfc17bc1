"""Tracing: span by span, for every way in which an RPC can end; as a receiver of OTLP sees it."""

import asyncio
import threading
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Kind, intercept_channel, intercept_server
from interpose.contrib.opentelemetry import Tracing
from interpose.testing import failed, ok, raised
from interpose.testing.echo import Echo, Stub
from tests.contrib.opentelemetry.driving import SORTS, traced
from tests.contrib.opentelemetry.receiver import Exporting, Got

Code = grpc.StatusCode

# Every sort with every kind, and each of these with every ending somewhere: pairs, not the whole product.
PAIRS = [(sort, kind) for sort in SORTS for kind in Kind]
HALF = [(sort, kind) for number, (sort, kind) in enumerate(PAIRS) if number % 2 == 0]


def both(spans: list[Got]) -> tuple[Got, Got]:
    """The spans of server and client, of which the second is the parent of the first."""
    server, client = sorted(spans, key=lambda span: span.kind, reverse=True)
    assert (server.kind, client.kind, client.parent) == ("SERVER", "CLIENT", "")
    assert (server.trace_id, server.parent) == (client.trace_id, client.span_id)
    assert server.scope == client.scope == "interpose"
    return server, client


@pytest.mark.parametrize(("sort", "kind"), PAIRS)
def test_an_answer(sort: str, kind: Kind, exporting: Exporting) -> None:
    """OK on both sides, and no error."""
    with traced(sort, kind, Tracing(exporting.provider)) as rpc:
        rpc.call()
        server, client = both(exporting.spans(2))

    method = f"interpose.testing.Echo/{kind.value}"
    common = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.status_code": "OK"}
    for span in (server, client):
        assert (span.name, span.code, span.description, span.events) == (method, "UNSET", "", [])
        assert span.attributes.items() >= common.items()
    assert client.attributes.keys() - common.keys() <= {"server.address", "server.port"}
    assert server.attributes["network.peer.address"] == "127.0.0.1"
    assert isinstance(server.attributes["network.peer.port"], int)


@pytest.mark.parametrize(("sort", "kind"), PAIRS)
def test_an_abort(sort: str, kind: Kind, exporting: Exporting) -> None:
    """A failure for the client; for the server NOT_FOUND is an answer like any other."""
    with traced(sort, kind, Tracing(exporting.provider), script=[failed(Code.NOT_FOUND, "no such order")]) as rpc:
        rpc.call()
        server, client = both(exporting.spans(2))

    assert (server.status, server.code, server.description) == ("NOT_FOUND", "UNSET", "")
    assert "error.type" not in server.attributes
    assert (client.status, client.code, client.description) == ("NOT_FOUND", "ERROR", "no such order")
    assert client.attributes["error.type"] == "NOT_FOUND"


@pytest.mark.parametrize(("sort", "kind"), HALF)
def test_an_abort_that_is_the_servers_fault(sort: str, kind: Kind, exporting: Exporting) -> None:
    """An error on both sides."""
    with traced(sort, kind, Tracing(exporting.provider), script=[failed(Code.DATA_LOSS, "disk 3")]) as rpc:
        rpc.call()

        for span in both(exporting.spans(2)):
            assert (span.status, span.code, span.description) == ("DATA_LOSS", "ERROR", "disk 3")
            assert span.attributes["error.type"] == "DATA_LOSS"


@pytest.mark.parametrize(("sort", "kind"), PAIRS)
def test_an_exception(sort: str, kind: Kind, exporting: Exporting) -> None:
    """UNKNOWN, and the class of the exception; its text is the handler's own business."""
    with traced(sort, kind, Tracing(exporting.provider), script=[raised(KeyError("hunter2"))]) as rpc:
        rpc.call()
        server, client = both(exporting.spans(2))

    assert (server.status, server.code) == ("UNKNOWN", "ERROR")
    assert server.events == [("exception", {"exception.type": "KeyError"})]
    assert "hunter2" not in str(server)
    assert (client.status, client.code, client.events) == ("UNKNOWN", "ERROR", [])


def test_an_exception_with_its_text(exporting: Exporting) -> None:
    """If that is asked for, with its traceback."""
    with traced(
        "sync", Kind.UNARY_UNARY, Tracing(exporting.provider, exceptions=True), script=[raised(KeyError("id"))]
    ) as rpc:
        rpc.call()
        server, _ = both(exporting.spans(2))

    [(name, attributes)] = server.events
    assert (name, attributes["exception.type"], attributes["exception.message"]) == ("exception", "KeyError", "'id'")
    assert "Traceback" in attributes["exception.stacktrace"]


@pytest.mark.parametrize(("sort", "kind"), PAIRS)
def test_a_client_that_cancels(sort: str, kind: Kind, exporting: Exporting) -> None:
    """CANCELLED, and not a success; it is no error of the server's."""
    with traced(sort, kind, Tracing(exporting.provider), script=[ok(hang=True)]) as rpc:
        rpc.leave(cancel=True)
        server, client = both(exporting.spans(2))

    assert (server.status, server.code) == ("CANCELLED", "UNSET")
    assert (client.status, client.code) == ("CANCELLED", "ERROR")


@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM])
@pytest.mark.parametrize("sort", SORTS)
def test_a_stream_that_is_dropped(sort: str, kind: Kind, exporting: Exporting) -> None:
    """CANCELLED as well: the application has forgotten it."""
    with traced(sort, kind, Tracing(exporting.provider), script=[ok(hang=True)]) as rpc:
        rpc.leave(cancel=False)
        server, client = both(exporting.spans(2))

    assert (server.status, client.status) == ("CANCELLED", "CANCELLED")


@pytest.mark.parametrize(("sort", "kind"), HALF)
def test_a_deadline(sort: str, kind: Kind, exporting: Exporting) -> None:
    """DEADLINE_EXCEEDED; on the server CANCELLED if the client's news of it is quicker than its clock."""
    with traced(sort, kind, Tracing(exporting.provider), script=[ok(hang=True)]) as rpc:
        code = rpc.call(timeout=1.0)
        rpc.echo.wait_begun()
        server, client = both(exporting.spans(2))

    assert code is Code.DEADLINE_EXCEEDED
    assert (client.status, client.code) == ("DEADLINE_EXCEEDED", "ERROR")
    assert (server.status, server.code) in {("DEADLINE_EXCEEDED", "ERROR"), ("CANCELLED", "UNSET")}
    assert client.seconds >= 0.99


def test_a_sync_server_that_stops(exporting: Exporting) -> None:
    """UNAVAILABLE, and an error: nobody answered."""
    tracing, echo = Tracing(exporting.provider), Echo([ok(hang=True)])
    with futures.ThreadPoolExecutor(2) as pool:
        server = intercept_server(grpc.server(pool), tracing)
        server.add_generic_rpc_handlers((echo.handlers(asyncio=False),))
        with grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}") as bare:
            server.start()
            call = Stub(intercept_channel(bare, tracing)).unary_stream("a")
            echo.wait_begun()
            server.stop(None).wait()
            code = call.code()
            served, sent = both(exporting.spans(2))

    assert (served.status, served.code) == ("UNAVAILABLE", "ERROR")
    assert (sent.status, sent.code) == (code.name, "ERROR")


async def test_an_asyncio_server_that_stops(exporting: Exporting) -> None:
    """The same."""
    tracing, echo = Tracing(exporting.provider), Echo([ok(hang=True)])
    server = intercept_server(grpc.aio.server(), tracing)
    server.add_generic_rpc_handlers((echo.handlers(asyncio=True),))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}") as bare:
        await server.start()
        call = Stub(intercept_channel(bare, tracing)).unary_stream("a")
        await asyncio.to_thread(echo.wait_begun)
        await server.stop(None)
        code = await call.code()
        served, sent = both(await asyncio.to_thread(exporting.spans, 2))

    assert (served.status, served.code) == ("UNAVAILABLE", "ERROR")
    assert (sent.status, sent.code) == (code.name, "ERROR")


def test_a_span_lasts_as_long_as_its_stream(exporting: Exporting) -> None:
    """It ends when the last message was read, and not when the stub was called."""
    read = threading.Event()

    def handler(_: Any, context: Any) -> Any:
        yield "a"
        assert read.wait(10)
        yield "b"

    tracing = Tracing(exporting.provider)
    with futures.ThreadPoolExecutor(2) as pool:
        server = intercept_server(grpc.server(pool), tracing)
        server.add_generic_rpc_handlers((_generic(grpc.unary_stream_rpc_method_handler(handler, None, str.encode)),))
        with grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}") as bare:
            server.start()
            stream = intercept_channel(bare, tracing).unary_stream("/a.B/C")(b"")
            next(stream)
            exporting.spans(0)
            read.set()
            assert list(stream) == [b"b"]
            both(exporting.spans(2))
        server.stop(None).wait()


def _generic(handler: Any) -> Any:
    return grpc.method_handlers_generic_handler("a.B", {"C": handler})
