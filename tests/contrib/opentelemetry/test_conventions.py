"""The semantic conventions: names, values, and what is read from targets and peers."""

from typing import Any

import grpc
import pytest

from interpose import Kind, Side
from interpose._method import Method, Target
from interpose.contrib.opentelemetry import Tracing
from interpose.contrib.opentelemetry.conventions import STATUS, Conventions, is_error, server_of
from interpose.testing import failed, play
from tests.contrib.opentelemetry.receiver import Exporting
from tests.interceptors.driving import incoming, outgoing

NEW = Conventions(new=True, old=False, status=STATUS)
OLD = Conventions(new=False, old=True, status=STATUS)


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("grpc.io:50051", "grpc.io", 50051),
        ("dns:///grpc.io:50051", "grpc.io", 50051),
        ("dns://1.2.3.4/grpc.io:50051", "grpc.io", 50051),
        ("dns:grpc.io:50051", "grpc.io", 50051),
        ("dns:///grpc.io", "grpc.io", None),
        ("ipv4:127.0.0.1:50051", "127.0.0.1", 50051),
        ("ipv6:[::1]:50051", "::1", 50051),
        ("dns:///[::1]:50051", "::1", 50051),
        ("ipv6:%5B::1%5D:50051", "::1", 50051),
        ("unix:///run/x.sock", "/run/x.sock", None),
        ("unix:run/x.sock", "run/x.sock", None),
        ("unix-abstract:x", "unix-abstract:x", None),
        ("zk://zookeeper:2181/my-server", "zk://zookeeper:2181/my-server", None),
        ("ipv4:1.2.3.4:1,5.6.7.8:1", "ipv4:1.2.3.4:1,5.6.7.8:1", None),
        ("xds:///shop", "xds:///shop", None),
        ("", "", None),
    ],
)
def test_the_server_that_a_target_says(target: str, address: str, port: int | None) -> None:
    """As the conventions read it."""
    assert server_of(target) == (address, port)
    attributes = NEW.of_method(Method("/a.B/C", Kind.UNARY_UNARY, Target(target)))
    assert (attributes.get("server.address"), attributes.get("server.port")) == (address or None, port)


@pytest.mark.parametrize(
    ("peer", "address", "port"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1", 5000),
        ("ipv6:%5B::1%5D:5000", "::1", 5000),
        ("ipv6:[2001:db8::1]:5000", "2001:db8::1", 5000),
        ("unix:/run/x.sock", "unix:/run/x.sock", None),
        ("unix:", "unix:", None),
    ],
)
def test_the_client_that_a_peer_says(peer: str, address: str, port: int | None) -> None:
    """Its address and port; another kind of peer as grpc writes it."""
    attributes = NEW.of_peer(peer)

    assert (attributes["network.peer.address"], attributes.get("network.peer.port")) == (address, port)


def test_the_old_names_of_a_peer() -> None:
    """As opentelemetry-instrumentation-grpc has them."""
    local, far = OLD.of_peer("ipv4:127.0.0.1:5000"), OLD.of_peer("ipv4:10.0.0.1:5000")

    assert local == {"net.peer.ip": "127.0.0.1", "net.peer.port": "5000", "net.peer.name": "localhost"}
    assert far == {"net.peer.ip": "10.0.0.1", "net.peer.port": "5000"}
    assert OLD.of_peer("unix:") == {}


def test_which_codes_are_errors() -> None:
    """On a server six, on a client all but OK."""
    errors = {side: {code.name for code in grpc.StatusCode if is_error(code, side)} for side in Side}

    assert errors[Side.CLIENT] == {code.name for code in grpc.StatusCode} - {"OK"}
    assert errors[Side.SERVER] == {
        *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
    }


def test_a_span_with_the_old_names(exporting: Exporting) -> None:
    """Name, attributes and the number of the code."""
    play(Tracing(exporting.provider, semconv="old"), [failed(grpc.StatusCode.NOT_FOUND)], **outgoing())
    [span] = exporting.spans(1)

    assert span.name == "/pay.v1.Cards/Charge"
    assert span.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "pay.v1.Cards",
        "rpc.method": "Charge",
        "rpc.grpc.status_code": 5,
    }


def test_a_span_with_both(exporting: Exporting) -> None:
    """Where a name is in both, its value is the new one."""
    play(Tracing(exporting.provider, semconv="both"), [failed(grpc.StatusCode.NOT_FOUND)], **outgoing())
    [span] = exporting.spans(1)

    assert span.name == "pay.v1.Cards/Charge"
    assert span.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "pay.v1.Cards",
        "rpc.system.name": "grpc",
        "rpc.method": "pay.v1.Cards/Charge",
        "rpc.grpc.status_code": 5,
        "rpc.status_code": "NOT_FOUND",
        "error.type": "NOT_FOUND",
    }


def test_the_name_of_the_code_as_it_was(exporting: Exporting) -> None:
    """Until the conventions have settled it."""
    play(Tracing(exporting.provider, status="rpc.response.status_code"), **incoming())
    [span] = exporting.spans(1)

    assert span.attributes["rpc.response.status_code"] == "OK"
    assert "rpc.status_code" not in span.attributes


@pytest.mark.parametrize(("semconv", "name"), [("new", "grpc"), ("old", "/no method\\n")])
def test_a_path_that_is_no_method(semconv: Any, name: str, exporting: Exporting) -> None:
    """Has no name of its own; what was called is there beside it, on one short line."""
    play(Tracing(exporting.provider, semconv=semconv), **incoming(name="/no method\n"))
    play(Tracing(exporting.provider, semconv=semconv), **incoming(name="/" + "x" * 10_000))
    first, second = exporting.spans(2)

    assert first.name == name
    assert len(second.name) < 300
    if semconv == "new":
        assert first.attributes["rpc.method"] == "_OTHER"
        assert first.attributes["rpc.method_original"] == "/no method\\n"
        assert len(second.attributes["rpc.method_original"]) < 300


def test_details_are_one_line(exporting: Exporting) -> None:
    """Of a bounded length."""
    play(Tracing(exporting.provider), [failed(grpc.StatusCode.INTERNAL, "a\nb" + "x" * 5000)], **incoming())
    [span] = exporting.spans(1)

    assert span.description.startswith("a\\nb")
    assert len(span.description) < 1100
