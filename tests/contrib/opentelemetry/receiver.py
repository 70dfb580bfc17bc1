"""A receiver of OTLP: takes the spans that an SDK exports over grpc, and shows them as plain values."""

from __future__ import annotations

import threading
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.support.patience import PATIENCE

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Got:
    """A span as it came over the wire. code: its status, UNSET or ERROR. Ids are hexadecimal; no parent: ""."""

    name: str
    kind: str
    code: str
    description: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, dict[str, Any]]]
    trace_id: str
    span_id: str
    parent: str
    scope: str
    seconds: float

    @property
    def status(self) -> Any:
        """The status code of the RPC."""
        return self.attributes.get("rpc.status_code")


class Receiver:
    """A server of the collector's service, and what it got."""

    def __init__(self) -> None:
        self._spans: list[Got] = []
        export = grpc.unary_unary_rpc_method_handler(
            self._export, otlp.ExportTraceServiceRequest.FromString, otlp.ExportTraceServiceResponse.SerializeToString
        )
        self._pool = futures.ThreadPoolExecutor(1)
        self._pool.submit(int).result()  # its thread is there before any test, and stays
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": export}),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self._spans += [_got(scope.scope.name, span) for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    def take(self) -> list[Got]:
        """What has come since the last time."""
        taken, self._spans = self._spans, []
        return taken

    def close(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


class _Ended(SpanProcessor):
    """Counts the spans that have ended."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.count = 0

    def on_end(self, span: Any) -> None:
        with self.changed:
            self.count += 1
            self.changed.notify_all()


class Exporting:
    """A provider of the SDK that exports to a receiver."""

    def __init__(self, receiver: Receiver, **options: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self._receiver = receiver
        self._ended = _Ended()
        self._batches = BatchSpanProcessor(
            OTLPSpanExporter(receiver.target, insecure=True), schedule_delay_millis=3_600_000
        )
        self.provider.add_span_processor(self._batches)
        self.provider.add_span_processor(self._ended)

    def spans(self, count: int) -> list[Got]:
        """The spans that were made since the last time, once there are as many as that; in the order in which they ended."""
        ended = self._ended
        with ended.changed:
            ended.changed.wait_for(lambda: ended.count >= count, PATIENCE)
            ended.count = 0
        assert self._batches.force_flush()
        spans = self._receiver.take()
        assert len(spans) == count, spans
        return spans

    def close(self) -> None:
        self.provider.shutdown()


def _got(scope: str, span: Any) -> Got:
    return Got(
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        span.status.message,
        _values(span.attributes),
        [(event.name, _values(event.attributes)) for event in span.events],
        [(link.span_id.hex(), _values(link.attributes)) for link in span.links],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        scope,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
