"""An RPC that `server.stop()` ended is not said to have been cancelled by its client."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, wait
from interpose.interceptors import AccessLog
from tests.facts.serving import Watch, serving
from tests.support.patience import PATIENCE
from tests.test_attach_server import SORTS, as_generated, handler, running

STOPPED = (grpc.StatusCode.UNAVAILABLE, "the server was stopped")
CANCELLED = (grpc.StatusCode.CANCELLED, "the client cancelled")
KINDS = [Kind.UNARY_UNARY, Kind.UNARY_STREAM]


class Hanging:
    """Handlers that hang until their RPC has ended."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def unary(self, request: str, context: Any) -> str:
        over = threading.Event()
        context.add_callback(over.set)
        self.begun.set()
        assert over.wait(PATIENCE)
        return request

    def stream(self, request: str, context: Any) -> Iterator[str]:
        yield self.unary(request, context)

    async def handled(self, request: str, context: Any) -> str:
        self.begun.set()
        await asyncio.get_running_loop().create_future()
        return request

    async def streamed(self, request: str, context: Any) -> AsyncIterator[str]:
        yield await self.handled(request, context)

    def handlers(self, sort: str) -> dict[str, Any]:
        unary, stream = (self.handled, self.streamed) if sort == "async" else (self.unary, self.stream)
        return {kind.value: handler(kind, stream if kind.response_streaming else unary) for kind in KINDS}


def ended(watch: Watch) -> tuple[grpc.StatusCode, str]:
    outcome = watch.next()
    assert outcome.local
    return outcome.code, outcome.details


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("sort", SORTS)
def test_the_outcome_says_that_the_server_was_stopped(sort: str, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """UNAVAILABLE, as its client sees; so does the log."""
    hanging, watch = Hanging(), Watch()
    caplog.set_level("INFO", "interpose.access")

    with running(sort, lambda server: as_generated(server, hanging.handlers(sort)), watch, AccessLog()) as served:
        call = served.start(kind.value, "a")
        assert hanging.begun.wait(PATIENCE)
        served.stop(None)
        assert ended(watch) == STOPPED
        assert call.code() is grpc.StatusCode.UNAVAILABLE

    assert [vars(record)["grpc.code"] for record in caplog.records if "grpc.code" in vars(record)] == ["UNAVAILABLE"]


@pytest.mark.parametrize("sort", SORTS)
def test_a_client_that_cancels_while_the_server_stops(sort: str) -> None:
    """Within the grace its cancel is one."""
    hanging, watch = Hanging(), Watch()

    with running(sort, lambda server: as_generated(server, hanging.handlers(sort)), watch) as served:
        call = served.start("unary_unary", "a")
        assert hanging.begun.wait(PATIENCE)
        stopping = threading.Thread(target=served.stop, args=(PATIENCE,))
        stopping.start()
        call.cancel()
        assert ended(watch) == CANCELLED
        stopping.join(PATIENCE)


@pytest.mark.parametrize("sort", SORTS)
def test_a_client_that_cancels(sort: str) -> None:
    """As ever, and as surely."""
    hanging, watch = Hanging(), Watch()

    with running(sort, lambda server: as_generated(server, hanging.handlers(sort)), watch) as served:
        call = served.start("unary_unary", "a")
        assert hanging.begun.wait(PATIENCE)
        call.cancel()
        assert ended(watch) == CANCELLED


@pytest.mark.parametrize("sort", SORTS)
def test_an_interceptor_alone_cannot_know(sort: str) -> None:
    """grpc says the same of both ends; with `server_interceptor` the outcome names both."""
    hanging, watch = Hanging(), Watch()

    with serving(sort, hanging.handlers(sort), watch) as client:
        call = client.start()
        assert hanging.begun.wait(PATIENCE)
        client.stop(None)
        assert ended(watch) == (grpc.StatusCode.CANCELLED, "the client cancelled, or the server was stopped")
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_a_flow_that_waits_in_a_server_that_stops() -> None:
    """What it waits for is given up with the same status."""
    hanging, watch, waiting = Hanging(), Watch(), threading.Event()

    def waits(call: Call) -> Flow:
        waiting.set()
        yield from wait(Future[None]())
        yield call

    with running("sync", lambda server: as_generated(server, hanging.handlers("sync")), watch, waits) as served:
        call = served.start("unary_unary", "a")
        assert waiting.wait(PATIENCE)
        served.stop(None)
        assert ended(watch) == STOPPED
        assert call.code() is grpc.StatusCode.UNAVAILABLE
