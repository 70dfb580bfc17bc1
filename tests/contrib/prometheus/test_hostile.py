"""However many names, codes and pairs of metadata a peer makes up, a scrape stays short."""

import logging
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from interpose import Interceptor, Kind, Side, intercept_server, server_interceptor
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.contrib.prometheus.collector import MAX_UNDECLARED
from interpose.testing import play
from tests.contrib.prometheus.reading import WHERE, series_of, shown, total
from tests.interceptors.driving import failing, incoming, outgoing
from tests.protos.compiled import Generated

pytestmark = pytest.mark.slow  # ten thousand names

Code = grpc.StatusCode
RUNS = 10_000
FEW = 60  # series


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.mark.parametrize("given", [incoming, outgoing])
def test_made_up_names(given: Any, registry: CollectorRegistry) -> None:
    """10,000 names, each with its own code and metadata: fewer than 60 series, and every RPC is counted."""
    metrics = PrometheusMetrics(registry=registry)
    side = given()["side"].value
    codes = [code for code in Code if code is not Code.OK]

    for run in range(RUNS):
        kind = list(Kind)[run % 4]
        metadata = ((f"x-{run}", str(run)),)
        call = given(kind, name=f"/made.up{run}/Name{run}", metadata=metadata)
        play(metrics, [failing(codes[run % len(codes)], f"details {run}")], **call)

    assert len(series_of(registry)) < FEW
    assert total(registry, f"grpc_{side}_handled_total") == RUNS
    assert shown(registry, f"grpc_{side}_started_total", "grpc_method")["unknown"] == RUNS - MAX_UNDECLARED


@pytest.mark.parametrize("name", ["/", "x", "/x", "//", "//x", "/x/", "x" * 10_000, "/\x00\n{}\"'/"])
def test_a_name_that_is_none(name: str, registry: CollectorRegistry) -> None:
    """It is unknown, as with go-grpc-middleware."""
    metrics = PrometheusMetrics(registry=registry)

    play(metrics, [failing(Code.UNIMPLEMENTED)], **incoming(name=name))

    assert total(registry, "grpc_server_handled_total") == 1
    assert shown(registry, "grpc_server_started_total", *WHERE) == {"unknown unknown unknown": 1}


class Anything(grpc.GenericRpcHandler):
    """Answers to every name, like a proxy."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


def serving(attach: str, handlers: Any, *stack: Interceptor) -> Iterator[grpc.Channel]:
    """A channel to a server with these handlers, with the stack attached in one of the two ways."""
    with futures.ThreadPoolExecutor(1) as pool:
        if attach == "intercept_server":
            server = intercept_server(grpc.server(pool), *stack)
        else:
            server = grpc.server(pool, interceptors=[server_interceptor(*stack)])
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()


@pytest.mark.parametrize("attach", ["intercept_server", "server_interceptor"])
def test_a_server_that_answers_to_every_name(attach: str, registry: CollectorRegistry) -> None:
    """Names beyond the first few are unknown, and the log says what to do."""
    for channel in serving(attach, Anything(), PrometheusMetrics(registry=registry)):
        for number in range(3 * MAX_UNDECLARED):
            channel.unary_unary(f"/made.up/Name{number}")(b"")

    methods = shown(registry, "grpc_server_started_total", "grpc_method")
    assert len(methods) == MAX_UNDECLARED + 1
    assert methods["unknown"] == 2 * MAX_UNDECLARED


def handlers_of(count: int) -> Any:
    """A service written by hand, without a proto."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    return grpc.method_handlers_generic_handler("by.hand", {f"Name{number}": handler for number in range(count)})


def test_a_service_that_is_written_by_hand(registry: CollectorRegistry) -> None:
    """`intercept_server` sees that it declares its methods, however many."""
    for channel in serving("intercept_server", handlers_of(20), PrometheusMetrics(registry=registry)):
        for number in range(20):
            channel.unary_unary(f"/by.hand/Name{number}")(b"")

    assert len(shown(registry, "grpc_server_started_total", "grpc_method")) == 20


def test_methods_that_are_declared(registry: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """By a pattern; without one the log says once that it is needed."""
    declared = PrometheusMetrics(registry=registry, methods="/by.hand/*")
    undeclared = PrometheusMetrics(registry=CollectorRegistry())
    with caplog.at_level(logging.WARNING, "interpose"):
        for metrics in (declared, undeclared):
            for number in range(20):
                play(metrics, [failing(Code.ABORTED)], **incoming(name=f"/by.hand/Name{number}"))

    assert len(shown(registry, "grpc_server_started_total", "grpc_method")) == 20
    [told] = [record.getMessage() for record in caplog.records if record.name == "interpose"]
    assert "PrometheusMetrics(methods=['/package.Service/*'])" in told


def test_methods_of_a_proto(generated: Generated, registry: CollectorRegistry) -> None:
    """What protobuf's pool knows is declared, on both sides."""
    services = generated("features_pb2").DESCRIPTOR.services_by_name.values()
    methods = [method for service in services for method in service.methods]
    metrics = PrometheusMetrics(registry=registry)
    for number in range(MAX_UNDECLARED):
        play(metrics, [failing(Code.ABORTED)], **outgoing(name=f"/made.up/Name{number}"))
    for method in methods:
        kind = Kind.of(method.client_streaming, method.server_streaming)
        name = f"/{method.containing_service.full_name}/{method.name}"
        play(metrics, [failing(Code.ABORTED)], **outgoing(kind, name=name))

    counted = shown(registry, "grpc_client_started_total", "grpc_method")
    assert {method.name for method in methods} <= set(counted)


def test_a_name_with_two_kinds(registry: CollectorRegistry) -> None:
    """A stub that takes a method for another kind than the first one is counted as unknown."""
    metrics = PrometheusMetrics(registry=registry)

    for kind in (Kind.UNARY_UNARY, Kind.STREAM_STREAM):
        play(metrics, [failing(Code.ABORTED)], **outgoing(kind))

    assert shown(registry, "grpc_client_started_total", "grpc_type", "grpc_method") == {
        "unary Charge": 1,
        "unknown unknown": 1,
    }
    assert metrics.snapshot()[0].side is Side.CLIENT
