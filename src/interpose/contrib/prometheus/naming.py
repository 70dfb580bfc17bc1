"""What the series are called, and which words their labels have."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from grpc import StatusCode

from interpose._method import Kind, Side

Naming: TypeAlias = Literal["go", "python"]
Labels: TypeAlias = tuple[str, ...]

# Seconds. client_golang: DefBuckets, which go-grpc-middleware's histograms have.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METHOD = ("grpc_type", "grpc_service", "grpc_method")  # the labels of each series of a method
CODE = "grpc_code"  # and of those that count ends
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")  # the name of one
RESERVED = frozenset({*METHOD, CODE, "le", "quantile", "pid", "stack", "mode", "decision"})


class Words(NamedTuple):
    """The words of `grpc_type` and `grpc_code`."""

    types: dict[Kind, str]
    codes: dict[StatusCode, str]


def _in_go(code: StatusCode) -> str:
    """A code as Go writes it: `NotFound`."""
    if code in (StatusCode.OK, StatusCode.CANCELLED):
        return {StatusCode.OK: "OK", StatusCode.CANCELLED: "Canceled"}[code]
    return "".join(word.capitalize() for word in code.name.split("_"))


WORDS: dict[Naming, Words] = {
    # go-grpc-middleware: interceptors/callmeta.go, google.golang.org/grpc/codes
    "go": Words(
        {
            Kind.UNARY_UNARY: "unary",
            Kind.STREAM_UNARY: "client_stream",
            Kind.UNARY_STREAM: "server_stream",
            Kind.STREAM_STREAM: "bidi_stream",
        },
        {code: _in_go(code) for code in StatusCode},
    ),
    # py-grpc-prometheus: grpc_utils.py
    "python": Words(
        {
            Kind.UNARY_UNARY: "UNARY",
            Kind.STREAM_UNARY: "CLIENT_STREAMING",
            Kind.UNARY_STREAM: "SERVER_STREAMING",
            Kind.STREAM_STREAM: "BIDI_STREAMING",
        },
        {code: code.name for code in StatusCode},
    ),
}


class Series(NamedTuple):
    """A family of series. kind: "counter", "gauge" or "histogram"."""

    name: str
    kind: str
    help: str
    labels: Labels = METHOD


class SideSeries(NamedTuple):
    """The families of one side."""

    started: Series
    handled: Series
    received: Series
    sent: Series
    handling: Series
    in_flight: Series
    attempts: Series | None
    refused: Series


# go-grpc-middleware: providers/prometheus, server_metrics.go and client_metrics.go; those that begin with interpose_ are ours.
SERIES = {
    Side.SERVER: SideSeries(
        started=Series("grpc_server_started_total", "counter", "Total number of RPCs started on the server."),
        handled=Series(
            "grpc_server_handled_total",
            "counter",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            (*METHOD, CODE),
        ),
        received=Series(
            "grpc_server_msg_received_total",
            "counter",
            "Total number of RPC stream messages received on the server.",
        ),
        sent=Series(
            "grpc_server_msg_sent_total", "counter", "Total number of gRPC stream messages sent by the server."
        ),
        handling=Series(
            "grpc_server_handling_seconds",
            "histogram",
            "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
        ),
        in_flight=Series(
            "interpose_server_rpcs_in_flight", "gauge", "RPCs that have started on the server and not ended."
        ),
        attempts=None,
        refused=Series(
            "interpose_server_refused_total",
            "counter",
            "Total number of RPCs that an interceptor of the server ended with a failure before the handler was called.",
        ),
    ),
    Side.CLIENT: SideSeries(
        started=Series("grpc_client_started_total", "counter", "Total number of RPCs started on the client."),
        handled=Series(
            "grpc_client_handled_total",
            "counter",
            "Total number of RPCs completed by the client, regardless of success or failure.",
            (*METHOD, CODE),
        ),
        received=Series(
            "grpc_client_msg_received_total",
            "counter",
            "Total number of RPC stream messages received by the client.",
        ),
        sent=Series(
            "grpc_client_msg_sent_total", "counter", "Total number of gRPC stream messages sent by the client."
        ),
        handling=Series(
            "grpc_client_handling_seconds",
            "histogram",
            "Histogram of response latency (seconds) of the gRPC until it is finished by the application.",
        ),
        in_flight=Series(
            "interpose_client_rpcs_in_flight", "gauge", "RPCs that have started on the client and not ended."
        ),
        attempts=Series(
            "interpose_client_attempts_total",
            "counter",
            "Total number of attempts that the client sent, those of retries and hedges included.",
        ),
        refused=Series(
            "interpose_client_refused_total",
            "counter",
            "Total number of RPCs that an interceptor of the client ended with a failure before they were sent.",
        ),
    ),
}
