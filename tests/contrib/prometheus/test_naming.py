"""The names, labels, values and help texts of go-grpc-middleware, word for word; and those of py-grpc-prometheus."""

import grpc
import pytest
from prometheus_client import CollectorRegistry

from interpose import Kind
from interpose.contrib.prometheus import BUCKETS, PrometheusMetrics
from interpose.contrib.prometheus.naming import Naming
from interpose.testing import play
from tests.contrib.prometheus.reading import series_of, shown
from tests.interceptors.driving import failing, incoming, outgoing

Code = grpc.StatusCode
METHOD = ["grpc_type", "grpc_service", "grpc_method"]

# providers/prometheus/server_metrics.go and client_metrics.go
GO = {
    "grpc_server_started_total": (METHOD, "Total number of RPCs started on the server."),
    "grpc_server_handled_total": (
        [*METHOD, "grpc_code"],
        "Total number of RPCs completed on the server, regardless of success or failure.",
    ),
    "grpc_server_msg_received_total": (METHOD, "Total number of RPC stream messages received on the server."),
    "grpc_server_msg_sent_total": (METHOD, "Total number of gRPC stream messages sent by the server."),
    "grpc_server_handling_seconds": (
        METHOD,
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
    ),
    "grpc_client_started_total": (METHOD, "Total number of RPCs started on the client."),
    "grpc_client_handled_total": (
        [*METHOD, "grpc_code"],
        "Total number of RPCs completed by the client, regardless of success or failure.",
    ),
    "grpc_client_msg_received_total": (METHOD, "Total number of RPC stream messages received by the client."),
    "grpc_client_msg_sent_total": (METHOD, "Total number of gRPC stream messages sent by the client."),
    "grpc_client_handling_seconds": (
        METHOD,
        "Histogram of response latency (seconds) of the gRPC until it is finished by the application.",
    ),
}
# google.golang.org/grpc/codes, from 0 to 16
GO_CODES = {
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
}


def test_the_names_of_go() -> None:
    """Each family has the name, the labels and the help text that Go's has."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, histogram=True)
    play(metrics, [failing(Code.NOT_FOUND)], **incoming())
    play(metrics, [failing(Code.NOT_FOUND)], **outgoing())

    families = {family.name: family for family in registry.collect() if family.name.startswith("grpc_")}

    assert set(families) == {name.removesuffix("_total") for name in GO}
    for name, (labels, help_text) in GO.items():
        family = families[name.removesuffix("_total")]
        assert family.documentation == help_text
        for sample in family.samples:
            assert [label for label in sample.labels if label != "le"] == labels


def test_the_buckets_of_go() -> None:
    """prometheus.DefBuckets of client_golang."""
    assert BUCKETS == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@pytest.mark.parametrize(
    ("naming", "kind", "word"),
    [
        ("go", Kind.UNARY_UNARY, "unary"),
        ("go", Kind.STREAM_UNARY, "client_stream"),
        ("go", Kind.UNARY_STREAM, "server_stream"),
        ("go", Kind.STREAM_STREAM, "bidi_stream"),
        ("python", Kind.UNARY_UNARY, "UNARY"),
        ("python", Kind.STREAM_UNARY, "CLIENT_STREAMING"),
        ("python", Kind.UNARY_STREAM, "SERVER_STREAMING"),
        ("python", Kind.STREAM_STREAM, "BIDI_STREAMING"),
    ],
)
def test_the_word_for_a_kind(naming: Naming, kind: Kind, word: str) -> None:
    """In `grpc_type`."""
    registry = CollectorRegistry()
    play(PrometheusMetrics(registry=registry, naming=naming), [failing(Code.ABORTED)], **incoming(kind))

    assert shown(registry, "grpc_server_started_total", "grpc_type") == {word: 1}


@pytest.mark.parametrize("naming", ["go", "python"])
def test_the_words_for_codes(naming: Naming) -> None:
    """All 17, in `grpc_code`."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, naming=naming)
    for code in Code:
        if code is not Code.OK:
            play(metrics, [failing(code)], **incoming())

    words = GO_CODES if naming == "go" else {code.name for code in Code}
    assert set(shown(registry, "grpc_server_handled_total", "grpc_code")) == words


def test_labels_of_ones_own() -> None:
    """Stand behind the others, the same on each series."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, histogram=True, labels={"zone": "eu-1"})
    metrics.watch("stack", metrics)

    play(metrics, [failing(Code.ABORTED)], **incoming())

    assert {sample.labels["zone"] for sample in series_of(registry)} == {"eu-1"}
    assert [*series_of(registry)[0].labels] == [*METHOD, "zone"]
