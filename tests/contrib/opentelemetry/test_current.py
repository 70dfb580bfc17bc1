"""Tracing: the span is current in a handler of whichever shape, all the way, and nowhere else."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry import trace

from interpose import Call, Flow, Side, intercept_channel
from interpose.contrib.opentelemetry import Tracing
from interpose.testing import PLACES, Place
from interpose.testing.echo import Echo, Stub
from tests.contrib.opentelemetry.receiver import Exporting
from tests.facts.serving import serving
from tests.interceptors.driving import requests

Seen = list[str]


def current() -> str:
    """The span that is current here."""
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


def plain(seen: Seen) -> dict[str, Callable[..., Any]]:
    def unary(request: Any, context: Any) -> str:
        seen.append(current())
        return "a"

    def uploaded(messages: Any, context: Any) -> str:
        seen.extend(current() for _ in messages)
        return "a"

    def stream(request: Any, context: Any) -> Any:
        try:
            for _ in range(3):
                seen.append(current())
                yield "x" * 100_000  # more than fits before the client reads
            while True:
                yield "x" * 100_000
        finally:
            seen.append(current())

    def both(messages: Any, context: Any) -> Any:
        for message in messages:
            seen.append(current())
            yield message

    return {"unary_unary": unary, "stream_unary": uploaded, "unary_stream": stream, "stream_stream": both}


def asynchronous(seen: Seen) -> dict[str, Callable[..., Any]]:
    async def unary(request: Any, context: Any) -> str:
        seen.append(current())
        return "a"

    async def uploaded(messages: Any, context: Any) -> str:
        async for _ in messages:
            seen.append(current())
        return "a"

    async def stream(request: Any, context: Any) -> Any:
        try:
            for _ in range(3):
                seen.append(current())
                yield "x" * 100_000
            while True:
                yield "x" * 100_000
        finally:
            seen.append(current())

    async def both(messages: Any, context: Any) -> None:  # the other shape of a stream
        async for message in messages:
            seen.append(current())
            await context.write(message)

    return {"unary_unary": unary, "stream_unary": uploaded, "unary_stream": stream, "stream_stream": both}


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary", "unary_stream", "stream_stream"])
@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_the_span_is_current_in_a_handler(
    sort: str, kind: str, exporting: Exporting, caplog: pytest.LogCaptureFixture
) -> None:
    """In functions, coroutines, generators and async generators, also while one of a client that has gone is closed."""
    seen: Seen = []
    handlers = asynchronous(seen) if sort == "async" else plain(seen)
    caplog.set_level(logging.DEBUG, "opentelemetry")
    with serving(sort, {kind: handlers[kind]}, Tracing(exporting.provider)) as client:
        call = client.start("a", "b", kind=kind)
        if kind == "unary_stream":
            next(call)
            call.cancel()
        else:
            _ = list(call) if kind == "stream_stream" else call.result()
        [span] = exporting.spans(1)

    assert seen
    assert set(seen) == {span.span_id}
    assert span.status == ("CANCELLED" if kind == "unary_stream" else "OK")
    # "Failed to detach context", for one. What grpc itself says of a client that has gone comes when it comes.
    assert not [record for record in caplog.records if record.name.startswith(("opentelemetry", "interpose"))]


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_one_rpc_leaves_no_span_to_the_next(sort: str, exporting: Exporting) -> None:
    """Each is the root of a trace of its own, if the client sends none, whichever thread it runs on."""
    seen: Seen = []
    handlers = asynchronous(seen) if sort == "async" else plain(seen)
    with serving(sort, {"unary_unary": handlers["unary_unary"]}, Tracing(exporting.provider)) as client:
        for _ in range(3):
            client.call()
        spans = exporting.spans(3)

    assert [span.parent for span in spans] == ["", "", ""]
    assert len({span.trace_id for span in spans}) == len(set(seen)) == 3


@pytest.mark.parametrize("place", [place for place in PLACES if place.side is Side.CLIENT], ids=str)
def test_the_span_of_a_client_is_current_further_in(place: Place, exporting: Exporting) -> None:
    """For what stands inside of it, before and after."""
    inside: Seen = []

    def look(call: Call) -> Flow:
        inside.append(current())
        yield call
        inside.append(current())

    with place.open(Tracing(exporting.provider), look) as rpc:
        rpc.call(*requests(place))
        [span] = exporting.spans(1)

    assert inside == [span.span_id] * 2


def test_the_span_of_a_client_is_none_of_its_caller(exporting: Exporting) -> None:
    """The application keeps its own, while a stream runs and after."""
    with Echo().serve() as target, grpc.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, Tracing(exporting.provider)))
        with exporting.provider.get_tracer("mine").start_as_current_span("mine"):
            mine, seen = current(), [current() for _ in stub.unary_stream("a")]
            stub.unary_unary("a")
            seen.append(current())
    *calls, outer = exporting.spans(3)

    assert set(seen) == {mine} == {outer.span_id} == {call.parent for call in calls}


async def test_the_span_of_an_asyncio_client_is_none_of_its_caller(exporting: Exporting) -> None:
    """The same."""
    async with Echo().serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, Tracing(exporting.provider)))
        with exporting.provider.get_tracer("mine").start_as_current_span("mine"):
            mine, seen = current(), [current() async for _ in stub.unary_stream("a")]
            await stub.unary_unary("a")
            seen.append(current())
    *calls, outer = await asyncio.to_thread(exporting.spans, 3)

    assert set(seen) == {mine} == {outer.span_id} == {call.parent for call in calls}
