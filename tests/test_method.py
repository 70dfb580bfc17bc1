"""Methods: their names, their kinds, and what their protos say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Idempotency, Kind, Method, intercept_channel
from interpose._method import Target
from interpose.testing import PLACES, Echo, Place, Stub, incoming
from tests.protos.compiled import Generated
from tests.protos.features import BOUND, served, stub

UU = Kind.UNARY_UNARY


@pytest.mark.parametrize(
    ("path", "package", "service", "name"),
    [
        ("/pay.v1.Orders/Place", "pay.v1", "pay.v1.Orders", "Place"),
        ("/Orders/Place", "", "Orders", "Place"),
        ("pay.v1.Orders/Place", "pay.v1", "pay.v1.Orders", "Place"),
        ("/a.b/c/d", "a", "a.b", "c/d"),
    ],
)
def test_a_path_has_parts(path: str, package: str, service: str, name: str) -> None:
    """A method knows the package, service and name in its path, and is written as it was given."""
    method = Method(path, UU)

    assert (method.package, method.service, method.name) == (package, service, name)
    assert str(method) == method.full_name == path


@pytest.mark.parametrize("path", ["", "/", "//", "nothing", "/nothing", "/nothing/", "//name", "\r\n", "\0"])
def test_a_malformed_path_is_unknown(path: str) -> None:
    """A path that is not "/service/name" has an unknown service and name, never a part of what a peer made up."""
    method = Method(path, UU)

    assert (method.package, method.service, method.name) == ("", "unknown", "unknown")
    assert method.descriptor is None
    assert method.idempotency_level is Idempotency.UNKNOWN
    assert str(method) == path


def test_methods_are_equal_by_name_and_kind() -> None:
    """Two methods of the same path and kind are one key of a dict."""
    assert Method("/a.B/C", UU) == Method("/a.B/C", UU)
    assert hash(Method("/a.B/C", UU)) == hash(Method("/a.B/C", UU))
    assert Method("/a.B/C", UU) != Method("/a.B/C", Kind.UNARY_STREAM)
    assert Method("/a.B/C", UU) != Method("/a.B/D", UU)
    assert Method("/a.B/C", UU) != "/a.B/C"
    assert repr(Method("/a.B/C", UU)) == "Method('/a.B/C', UNARY_UNARY)"


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_kinds_know_their_directions(kind: Kind) -> None:
    """A kind knows which directions stream, and is found by them."""
    requests, responses = kind.value.split("_")

    assert kind.request_streaming is (requests == "stream")
    assert kind.response_streaming is (responses == "stream")
    assert Kind.of(kind.request_streaming, kind.response_streaming) is kind


# --- protos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level"),
    [("Read", Idempotency.NO_SIDE_EFFECTS), ("Put", Idempotency.IDEMPOTENT), ("Add", Idempotency.UNKNOWN)],
)
def test_the_proto_tells_idempotency(generated: Generated, name: str, level: Idempotency) -> None:
    """`idempotency_level` is the option of the method's proto, once the application has loaded it."""
    generated("idempotency_pb2")
    method = Method(f"/interpose.tests.idempotency.Ledger/{name}", UU)

    assert method.idempotency_level is level
    assert method.options.idempotency_level == level.value  # type: ignore[union-attr]


def test_the_proto_tells_the_messages(generated: Generated) -> None:
    """A descriptor knows the types of request and response."""
    generated("idempotency_pb2")
    method = Method("/interpose.tests.idempotency.Ledger/Read", UU)

    assert method.descriptor.name == "Read"  # type: ignore[union-attr]
    assert method.request_type.full_name == "interpose.tests.idempotency.Entry"  # type: ignore[union-attr]
    assert method.response_type.full_name == "interpose.tests.idempotency.Receipt"  # type: ignore[union-attr]


def test_without_a_proto_nothing_is_known(generated: Generated) -> None:
    """A method whose proto the application has not loaded has no descriptor, options or types."""
    generated("idempotency_pb2")
    for path in ("/interpose.tests.idempotency.Ledger/Nothing", "/nobody.Knows/This"):
        method = Method(path, UU)
        assert method.descriptor is None
        assert method.options is None
        assert method.request_type is None
        assert method.response_type is None
        assert method.idempotency_level is Idempotency.UNKNOWN


def test_a_flow_sees_the_method(generated: Generated) -> None:
    """Through a generated stub a flow sees the descriptor, made once per stub method."""
    seen: list[Method] = []

    def watch(call: Call) -> Flow:
        seen.append(call.method)
        yield call

    with served(generated) as (target, service), intercept_channel(grpc.insecure_channel(target), watch) as channel:
        ask = stub(generated, channel, "generated")[UU]
        for _ in range(2):
            ask(service.text(text="a"), timeout=BOUND)

    first, second = seen
    assert first is second
    assert first.descriptor.full_name == "interpose.tests.Features.Ask"  # type: ignore[union-attr]
    assert first.kind is UU


def run(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_protobuf_is_never_imported_by_us() -> None:
    """`import interpose` and a look at a method import no protobuf; nor does asking for what a proto says."""
    program = (
        "import sys, interpose, interpose.testing\n"
        "method = interpose.Method('/a.B/C', interpose.Kind.UNARY_UNARY)\n"
        "assert method.idempotency_level is interpose.Idempotency.UNKNOWN\n"
        "print([name for name in sys.modules if name.startswith('google')])"
    )
    assert run(program) == "[]"


def test_protobuf_loaded_later_is_found() -> None:
    """A method that was looked at before the application loaded its proto knows it afterwards."""
    program = (
        "import interpose\n"
        "method = interpose.Method('/later.S/M', interpose.Kind.UNARY_UNARY)\n"
        "assert method.descriptor is None\n"
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "assert method.descriptor is None\n"
        "file = descriptor_pb2.FileDescriptorProto(name='later.proto', package='later')\n"
        "file.message_type.add(name='T')\n"
        "made = file.service.add(name='S').method.add(name='M', input_type='.later.T', output_type='.later.T')\n"
        "made.options.idempotency_level = 2\n"
        "descriptor_pool.Default().Add(file)\n"
        "print(method.idempotency_level.name)"
    )
    assert run(program) == "IDEMPOTENT"


@pytest.mark.parametrize("place", [place for place in PLACES if place.kind is UU], ids=str)
def test_messages_of_any_runtime_pass(place: Place) -> None:
    """Messages that are plain text pass; a method without a proto has no descriptor."""
    seen: list[Call] = []

    def watch(call: Call) -> Flow:
        seen.append(call)
        outcome = yield call
        assert outcome.response == "a"

    with place.open(watch) as rpc:
        reply = rpc.call("a")

    assert reply.messages == ["a"]
    assert seen[0].request == "a"
    assert seen[0].method.descriptor is None
    assert seen[0].method.service == "interpose.testing.Echo"


# --- targets --------------------------------------------------------------------------------------------------------


def test_a_target_tells_where_its_channel_goes() -> None:
    """On a client the method knows it, and two channels to one address are two targets."""
    seen: list[Method] = []

    def note(call: Call) -> Flow:
        seen.append(call.method)
        yield call

    with Echo().serve() as address:
        for _ in range(2):
            with intercept_channel(grpc.insecure_channel(address), note) as channel:
                Stub(channel).unary_unary("a")
                list(Stub(channel).unary_stream("a"))

    first, second, third, fourth = (method.target for method in seen)
    assert first is second and third is fourth and first != third
    assert str(first) == f"dns:///{address}" and repr(first) == f"Target('dns:///{address}')"


async def test_an_asyncio_channel_has_a_target() -> None:
    """The same on grpc.aio, whose channels keep it elsewhere."""
    seen: list[Method] = []

    def note(call: Call) -> Flow:
        seen.append(call.method)
        yield call

    async with Echo().serve_aio() as address, intercept_channel(grpc.aio.insecure_channel(address), note) as channel:
        await Stub(channel).unary_unary("a")

    # As it was given, or as core writes it; older versions of grpc.aio do not tell.
    assert str(seen[0].target).removeprefix("dns:///") in (address, "")


async def test_a_target_knows_what_stands_between() -> None:
    """Native interceptors that a channel has, by where they come from."""

    class Native(grpc.UnaryUnaryClientInterceptor, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(details, request)

    with grpc.insecure_channel("localhost:1") as bare:
        assert __name__ not in Target.of(bare).modules
        assert __name__ in Target.of(grpc.intercept_channel(bare, Native())).modules
    async with grpc.aio.insecure_channel("localhost:1", interceptors=[Native()]) as channel:
        assert __name__ in Target.of(channel).modules


def test_a_channel_of_somebody_else_has_a_target_without_text() -> None:
    """It stands for its channel all the same, also if that one raises when it is asked."""

    class Odd:
        class _channel:  # noqa: N801  as grpcio has it
            @staticmethod
            def target() -> str:
                raise ValueError("closed")

    class Circle:
        @property
        def _channel(self) -> Circle:
            return self

    hidden = [Target.of(channel) for channel in (object(), Odd(), Circle())]
    assert [str(target) for target in hidden] == [""] * 3
    assert len({target.key for target in hidden}) == len(set(hidden)) == 3


def test_a_server_has_no_target() -> None:
    """It goes nowhere."""
    assert incoming().method.target is None
