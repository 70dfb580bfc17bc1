"""The whole stack of a service in production, ours and the market's, for `bench.stacks`.

Both do the same: a request id that is accepted or made and sent on, a JSON line for each RPC in a file, counters and a
histogram, a span of OpenTelemetry whose batches are dropped instead of sent, and exceptions made statuses on the server.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.places import Mode

HEADER = "x-request-id"
SAMPLED, SOME = 1.0, 0.01  # of the traces: all, and as many as a busy service keeps


def nowhere() -> Any:
    """A file into which lines are written, with a system call each."""
    return Path(os.devnull).open("w", buffering=1, encoding="utf-8")


def provider(share: float) -> Any:
    """Of the SDK, with batches that are dropped. share: of the traces, how many are sampled."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  the others do without
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    class Dropping(SpanExporter):
        def export(self, spans: Sequence[Any]) -> Any:
            return SpanExportResult.SUCCESS

    made = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)))
    made.add_span_processor(BatchSpanProcessor(Dropping()))
    return made


def logger() -> logging.Logger:
    """One that writes lines of JSON into such a file."""
    from interpose.interceptors import JsonFormatter  # noqa: PLC0415

    handler = logging.StreamHandler(nowhere())
    handler.setFormatter(JsonFormatter())
    made = logging.Logger("bench", logging.DEBUG)  # noqa: LOG001  one for each stack
    made.addHandler(handler)
    return made


def lines() -> Any:
    """The same without `logging`."""
    from interpose.interceptors import JsonLines  # noqa: PLC0415

    return JsonLines(nowhere(), level=logging.DEBUG)


def meters() -> Any:
    """A provider of the SDK's meters, which are read when they are asked for."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    return MeterProvider([InMemoryMetricReader()])


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(share: float | None, log: Any = None) -> tuple[Any, ...]:
    """The stack in the order of docs/stack-order.md. share: of the traces, how many are sampled; None: no tracing.

    log: where the access log writes to; lines into a stream unless given, as the market's do.
    """
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from interpose.contrib.opentelemetry import Tracing  # noqa: PLC0415
    from interpose.contrib.prometheus import PrometheusMetrics  # noqa: PLC0415
    from interpose.interceptors import AccessLog, ExceptionToStatus, RequestId  # noqa: PLC0415

    tracing = () if share is None else (Tracing(provider(share)),)
    metrics = PrometheusMetrics(registry=CollectorRegistry(), histogram=True)
    return (RequestId(), *tracing, metrics, AccessLog(log or lines()), ExceptionToStatus())


# --- the market's -----------------------------------------------------------------------------------------------------


def line_of() -> Any:
    """structlog, as its documentation has it for speed, with a line of JSON for each event."""
    import structlog  # noqa: PLC0415

    return structlog.wrap_logger(
        structlog.WriteLogger(nowhere()),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=True,
    )


class Instrumented:
    """OpenTelemetry's interceptor of a sync client, which has a way of its own to be put around a channel."""

    def __init__(self, interceptor: Any) -> None:
        self._interceptor = interceptor

    def wrap(self, channel: grpc.Channel) -> grpc.Channel:
        """The channel with it."""
        from opentelemetry.instrumentation.grpc.grpcext import intercept_channel  # noqa: PLC0415

        wrapped: grpc.Channel = intercept_channel(channel, self._interceptor)
        return wrapped


def id_in(metadata: Any) -> str:
    """The id that came, or a fresh one."""
    return next((str(value) for key, value in metadata or () if key == HEADER), None) or str(uuid.uuid4())


def their_sync(share: float, metrics: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Interceptors of a sync client and of a sync server, the first outermost. metrics: those of the market."""
    from grpc_interceptor import ClientInterceptor, ExceptionToStatusInterceptor, ServerInterceptor  # noqa: PLC0415
    from opentelemetry.instrumentation.grpc import client_interceptor, server_interceptor  # noqa: PLC0415

    log, traces = line_of(), provider(share)

    class Ids(ClientInterceptor):
        def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
            pairs = [*(call_details.metadata or ()), (HEADER, id_in(call_details.metadata))]
            return method(request_or_iterator, call_details._replace(metadata=pairs))

    class Lines(ClientInterceptor):
        def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
            began = time.perf_counter()
            call = method(request_or_iterator, call_details)
            log.info("finished call", method=call_details.method, code=call.code().name, ms=_ms(began))
            return call

    class ServerIds(ServerInterceptor):
        def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            _bind(id_in(context.invocation_metadata()))
            return method(request_or_iterator, context)

    class ServerLines(ServerInterceptor):
        def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            began = time.perf_counter()
            try:
                return method(request_or_iterator, context)
            finally:
                log.info("finished call", method=method_name, code=_name(context.code()), ms=_ms(began))

    client = (Ids(), Instrumented(client_interceptor(tracer_provider=traces)), *metrics.client, Lines())
    served = (server_interceptor(tracer_provider=traces), *metrics.server)
    return client, (ServerIds(), *served, ServerLines(), ExceptionToStatusInterceptor())


def their_aio(share: float, metrics: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The same on asyncio, where grpc-interceptor has no client: its part is written by hand."""
    from grpc_interceptor import AsyncExceptionToStatusInterceptor, AsyncServerInterceptor  # noqa: PLC0415
    from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor  # noqa: PLC0415

    log, traces = line_of(), provider(share)

    class Ids(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            pairs = [*(client_call_details.metadata or ()), (HEADER, id_in(client_call_details.metadata))]
            details = client_call_details._replace(metadata=grpc.aio.Metadata(*pairs))
            return await continuation(details, request)

    class Lines(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            began = time.perf_counter()
            call = await continuation(client_call_details, request)
            code = await call.code()
            log.info("finished call", method=client_call_details.method.decode(), code=code.name, ms=_ms(began))
            return call

    class ServerIds(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            _bind(id_in(context.invocation_metadata()))
            return await method(request_or_iterator, context)

    class ServerLines(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            began = time.perf_counter()
            try:
                return await method(request_or_iterator, context)
            finally:
                log.info("finished call", method=method_name, code=_name(context.code()), ms=_ms(began))

    tracing = aio_client_interceptors(tracer_provider=traces)[:1]  # of four objects, the one for this kind of RPC
    client = (Ids(), *tracing, *metrics.client[:1], Lines())
    served = (aio_server_interceptor(tracer_provider=traces), *metrics.server)
    return client, (ServerIds(), *served, ServerLines(), AsyncExceptionToStatusInterceptor())


def theirs(mode: Mode, share: float, metrics: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The interceptors of client and server."""
    return (their_sync if mode == "sync" else their_aio)(share, metrics)


def _bind(request_id: str) -> None:
    import structlog  # noqa: PLC0415

    structlog.contextvars.bind_contextvars(request_id=request_id)


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1e3, 3)


def _name(code: Any) -> str:
    return "OK" if not code else str(getattr(code, "name", code))
