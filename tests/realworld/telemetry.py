"""OpenTelemetry's and Sentry's instrumentation, before and after Interpose has wrapped channel and server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from interpose import errors, intercept_channel, intercept_server
from interpose.interceptors import ExceptionToStatus, RequestId, Retry
from tests.realworld.scenarios import PATIENCE, Scenario, free_port


class Shop:
    """A server whose `Flaky` fails twice, and whose `Bug` and `Missing` always do."""

    def __init__(self, wrapped: bool) -> None:
        self.calls = 0
        self._pool = futures.ThreadPoolExecutor(4)
        self.server = grpc.server(self._pool)
        served: Any = intercept_server(self.server, RequestId(), ExceptionToStatus()) if wrapped else self.server
        methods = {
            name: grpc.unary_unary_rpc_method_handler(getattr(self, name.lower()))
            for name in ("Flaky", "Bug", "Missing")
        }
        served.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", methods),))
        self.target = f"127.0.0.1:{free_port()}"
        self.server.add_insecure_port(self.target)
        self.server.start()

    def flaky(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        if self.calls % 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return request

    def bug(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError("password is hunter2")

    def missing(self, request: bytes, context: Any) -> bytes:
        raise errors.NotFound("no such order")

    def stop(self) -> None:
        self.server.stop(None).wait(PATIENCE)
        self._pool.shutdown()


@contextlib.contextmanager
def shop() -> Iterator[Callable[[str], str]]:
    """A server and a channel, both with a stack; gives what calls a method, and says the code."""
    served = Shop(wrapped=True)
    with intercept_channel(grpc.insecure_channel(served.target), RequestId(), Retry(safe=True)) as channel:

        def call(method: str) -> str:
            try:
                channel.unary_unary(f"/shop.Shop/{method}")(b"kite", timeout=PATIENCE)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        yield call
    served.stop()


def opentelemetry() -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, GrpcInstrumentorServer
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)  # the one that both look at: the client's ignores what `instrument` is given
    for instrumentor in (GrpcInstrumentorServer(), GrpcInstrumentorClient()):
        instrumentor.instrument()
    with shop() as call:
        assert [call(method) for method in ("Flaky", "Bug", "Missing")] == ["OK", "INTERNAL", "NOT_FOUND"]
    kinds = [(span.kind.name, span.attributes["rpc.method"]) for span in spans.get_finished_spans()]
    assert kinds.count(("CLIENT", "Flaky")) == kinds.count(("SERVER", "Flaky")) == 3, kinds
    codes = {
        span.attributes["rpc.method"]: span.attributes["rpc.grpc.status_code"]
        for span in spans.get_finished_spans()
        if span.kind.name == "SERVER"
    }
    assert codes == {"Flaky": 0, "Bug": 13, "Missing": 5}


def sentry() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.grpc import GRPCIntegration

    sent: list[Any] = []
    sentry_sdk.init(
        "https://key@127.0.0.1/1",
        integrations=[GRPCIntegration()],
        before_send=lambda event, hint: sent.append(event),
    )
    with shop() as call:
        assert [call(method) for method in ("Flaky", "Bug", "Missing")] == ["OK", "INTERNAL", "NOT_FOUND"]
    raised = [event["exception"]["values"][-1]["value"] for event in sent if "exception" in event]
    assert raised == ["password is hunter2"]


def opentelemetry_last() -> None:
    """Instrumented when channel and server are there already: what is made before stays as it was, and goes on."""
    with shop() as call:
        assert call("Flaky") == "OK"
        opentelemetry()
        assert [call(method) for method in ("Flaky", "Bug", "Missing")] == ["OK", "INTERNAL", "NOT_FOUND"]


def sentry_last() -> None:
    with shop() as call:
        assert call("Flaky") == "OK"
        sentry()
        assert [call(method) for method in ("Flaky", "Bug", "Missing")] == ["OK", "INTERNAL", "NOT_FOUND"]


STACK = "`RequestId`, `Retry` on a channel, `RequestId`, `ExceptionToStatus` on a server"
SPANS = "One span for each attempt on both sides, with the code that the client gets"
EVENTS = "A bug is one event; `errors.NotFound` and failed attempts are none"
LAST = "Channels and servers made before go on as they were."
SCENARIOS = [
    Scenario(
        "OpenTelemetry first",
        ("opentelemetry-instrumentation-grpc", "opentelemetry-sdk"),
        STACK,
        f"{SPANS}.",
        opentelemetry,
    ),
    Scenario(
        "OpenTelemetry last",
        ("opentelemetry-instrumentation-grpc", "opentelemetry-sdk"),
        STACK,
        f"{LAST} {SPANS} for those made after it.",
        opentelemetry_last,
    ),
    Scenario("Sentry first", ("sentry-sdk",), STACK, f"{EVENTS}.", sentry),
    Scenario("Sentry last", ("sentry-sdk",), STACK, f"{LAST} {EVENTS}, for those made after it.", sentry_last),
]
