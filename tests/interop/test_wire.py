"""Peers that send rubbish beside a status: the call ends with that status all the same, and asking for details is safe."""

import asyncio
import base64
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from interpose import Kind, errors
from tests.facts.serving import serving
from tests.interop.calling import KINDS, STACKS, failure, pass_on, watched
from tests.interop.wire import Field, saying

KEY = b"grpc-status-details-bin"
GONE: Field = (b"grpc-message", b"gone")
INFO = error_details_pb2.ErrorInfo(reason="SOLD", domain="shop.example")


def packed(*parts: Any, code: int = 5, message: str = "gone") -> bytes:
    """A google.rpc.Status as base64 with its padding."""
    status = status_pb2.Status(code=code, message=message)
    for part in parts:
        status.details.append(part) if isinstance(part, any_pb2.Any) else status.details.add().Pack(part)
    return base64.b64encode(status.SerializeToString())


GOOD = packed(INFO)
assert GOOD.endswith(b"=")  # so that there is a padding to get wrong


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", STACKS)
def test_a_stranger_s_details(stack: str, kind: Kind) -> None:
    """What a server that is not gRPC's own sends is read, in every stack and kind, by caller and flow."""
    with saying(5, GONE, (KEY, GOOD)) as target:
        error, outcome = failure(stack, target, kind), watched(stack, target, kind)

    assert isinstance(error, errors.NotFound)
    assert (error.code(), error.details(), error.error_details) == (grpc.StatusCode.NOT_FOUND, "gone", (INFO,))
    assert outcome.error_details == (INFO,)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    ("value", "details"),
    [
        (GOOD.rstrip(b"="), 1),
        (GOOD.rstrip(b"=") + b"===", 1),
        (base64.b64encode(base64.b64decode(GOOD)[:-5]), 0),
        (b"\0" + base64.b64decode(GOOD), 1),
        (b"", 0),
        (base64.b64encode(b"\xff\xff\xff"), 0),
        (base64.b64encode(b"not a status"), 0),
        (packed(code=5), 0),
        (packed(INFO, code=13, message="another text"), 1),
        (packed(INFO, code=0), 1),
        (packed(INFO, code=-99), 1),
        (packed(INFO, message="\0 😀\r\n"), 1),
        (packed(any_pb2.Any(type_url="shop.example/Unheard", value=b"\xff"), INFO), 2),
    ],
    ids=[
        "no padding",
        "too much padding",
        "cut off",
        "bare bytes",
        "empty",
        "rubbish",
        "text",
        "without details",
        "another code",
        "code OK",
        "no such code",
        "odd text",
        "a type that is not known",
    ],
)
def test_odd_details_break_nothing(value: bytes, details: int, stack: str) -> None:
    """The trailers' code and text stand, whatever the packed status says, and as many messages as can be read are given."""
    with saying(5, GONE, (KEY, value)) as target:
        error = failure(stack, target, Kind.UNARY_UNARY)

    assert isinstance(error, errors.NotFound)
    assert error.details() == "gone"
    assert len(error.error_details) == details


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("value", [b"!!not base64!!", b"A", GOOD + b"," + GOOD], ids=["no base64", "one letter", "two"])
def test_what_grpc_cannot_decode(value: bytes, stack: str, kind: Kind) -> None:
    """grpc's core makes INTERNAL, or UNKNOWN, of such trailers; so ends the call without and with interceptors."""
    with saying(5, GONE, (KEY, value)) as target:
        bare, error = failure(stack, target, kind, interceptor=None), failure(stack, target, kind)

    assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)  # which of them, its version decides
    assert isinstance(error, errors.of(bare.code()))
    assert error.details() == bare.details()
    assert error.error_details == ()


@pytest.mark.parametrize("stack", STACKS)
def test_the_first_of_two(stack: str) -> None:
    """A packed status that comes twice counts once, as with grpcio-status."""
    with saying(5, GONE, (KEY, GOOD), (KEY, packed())) as target:
        error = failure(stack, target, Kind.UNARY_UNARY)

    assert error.error_details == (INFO,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    "field", [(KEY, base64.b64encode(b"x" * 75_000)), (b"x-big", b"x" * 100_000)], ids=["bin", "text"]
)
def test_a_hundred_kilobytes(field: Field, stack: str, kind: Kind) -> None:
    """A server that sends so much loses its status: RESOURCE_EXHAUSTED, at once."""
    with saying(5, GONE, field) as target:
        error = failure(stack, target, kind)

    assert isinstance(error, errors.ResourceExhausted)
    assert error.error_details == ()


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"a%00b%F0%9F%98%80%0D%0A", "a\0b😀\r\n"),
        (b"100% %zz %f", "100% %zz %f"),
        (b"a%FFb", "aÿb"),
        ("grün".encode(), "grün"),
    ],
)
def test_odd_text(sent: bytes, read: str, stack: str) -> None:
    """Details are text, however they were sent."""
    with saying(5, (b"grpc-message", sent)) as target:
        error = failure(stack, target, Kind.UNARY_UNARY)

    assert isinstance(error, errors.NotFound)
    assert error.details() == read


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_an_error_passed_on(sort: str) -> None:
    """A handler lets pass what another server failed with: status and details arrive, without what cannot be sent."""
    with saying(5, GONE, (KEY, GOOD), (b"x-odd", b"\xff"), (b"x-cost", b"7")) as target:

        def plain(_: Any, context: Any) -> Any:
            raise failure("sync", target, Kind.UNARY_UNARY)

        async def later(_: Any, context: Any) -> Any:
            raise await asyncio.to_thread(failure, "asyncio", target, Kind.UNARY_UNARY)

        with serving(sort, {"unary_unary": later if sort == "async" else plain}, pass_on) as client:
            reply = client.call()

    assert (reply.code, reply.details) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert errors.parse_details(reply.trailing) == (INFO,)
    assert (reply.trailing.get("x-cost"), reply.trailing.get("x-odd")) == ("7", None)
