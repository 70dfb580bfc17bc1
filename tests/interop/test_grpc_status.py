"""grpcio-status alone on one side, Interpose on the other: each reads what the other sends."""

from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from interpose import Kind, errors, intercept_channel
from tests.interop.calling import KINDS, STACKS, failure, pass_on, watched
from tests.interop.serving import serving

RETRY = error_details_pb2.RetryInfo(retry_delay={"seconds": 3})
INFO = error_details_pb2.ErrorInfo(reason="SOLD", domain="shop.example", metadata={"title": "Emma"})


def refuse(context: Any) -> None:
    """Ours: an error with details."""
    raise errors.ResourceExhausted("sold out", RETRY, INFO)


def abort(context: Any) -> Any:
    """Theirs: a status, packed by grpcio-status."""
    status = status_pb2.Status(code=8, message="sold out")
    status.details.add().Pack(RETRY)
    status.details.add().Pack(INFO)
    return context.abort_with_status(rpc_status.to_status(status))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("caller", STACKS)
@pytest.mark.parametrize("server", STACKS)
def test_their_server_our_client(server: str, caller: str, kind: Kind) -> None:
    """The caller catches a typed error with the messages, and so does a flow."""
    with serving(server, abort) as target:
        error, outcome = failure(caller, target, kind), watched(caller, target, kind)

    assert isinstance(error, errors.ResourceExhausted)
    assert (error.details(), error.error_details) == ("sold out", (RETRY, INFO))
    assert outcome.error_details == (RETRY, INFO)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [refuse, abort], ids=["raised", "aborted"])
@pytest.mark.parametrize("caller", STACKS)
@pytest.mark.parametrize("server", STACKS)
def test_our_server_their_client(server: str, caller: str, way: Any, kind: Kind) -> None:
    """A bare channel and `rpc_status.from_call` find the status that was raised, or that was aborted with."""
    with serving(server, way, pass_on) as target:
        found = rpc_status.from_call(failure(caller, target, kind, interceptor=None))

    assert (found.code, found.message) == (8, "sold out")
    unpacked = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    assert all(part.Unpack(message) for part, message in zip(found.details, unpacked, strict=True))
    assert unpacked == (RETRY, INFO)


@pytest.mark.parametrize(
    "details", ["x" * 20_000, "größer 😀\0\r\n" * 2000, "\ud800"], ids=["long", "wide", "surrogate"]
)
@pytest.mark.parametrize("way", ["raised", "aborted"])
@pytest.mark.parametrize("server", STACKS)
def test_a_text_that_is_cut(server: str, way: str, details: str) -> None:
    """`from_call` refuses a status with another text than the call's: it finds the same in both, cut or not."""

    def fail(context: Any) -> Any:
        if way == "raised":
            raise errors.ResourceExhausted(details, RETRY)
        status = status_pb2.Status(code=8, message=details.replace("\ud800", "?"))
        status.details.add().Pack(RETRY)
        return context.abort_with_status(rpc_status.to_status(status))

    with serving(server, fail, pass_on) as target:
        error = failure("sync", target, Kind.UNARY_UNARY, interceptor=None)
        found = rpc_status.from_call(error)

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert found.message == error.details() != ""
    assert len(found.details) == 1


@pytest.mark.slow
@pytest.mark.parametrize("server", STACKS)
def test_a_large_status_keeps_its_code(server: str) -> None:
    """20 kB of details no longer turn INTERNAL into RESOURCE_EXHAUSTED, nor does a large value beside them."""

    def fail(context: Any) -> Any:
        trace = error_details_pb2.DebugInfo(detail="x" * 20_000)
        raise errors.Internal("broken", trace, INFO, trailing_metadata=[("x-large", "x" * 100_000), ("x-cost", "7")])

    with serving(server, fail, pass_on) as target:
        raised = [failure("sync", target, Kind.UNARY_UNARY) for _ in range(20)]

    assert {(error.code(), error.details()) for error in raised} == {(grpc.StatusCode.INTERNAL, "broken")}
    assert all(error.error_details == (INFO,) for error in raised)
    assert all(error.trailing_metadata().get("x-cost") == "7" for error in raised)


async def test_their_helper_for_asyncio_takes_our_call() -> None:
    """`rpc_status.aio.from_call` reads the call object of an intercepted channel."""
    with serving("sync", abort) as target:
        async with grpc.aio.insecure_channel(target) as bare:
            channel: Any = intercept_channel(bare, pass_on)
            call = channel.unary_unary("/interop.v1.Peer/Unary")(b"", timeout=20)
            code = await call.code()
            found = await rpc_status.aio.from_call(call)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (found.code, found.message, len(found.details)) == (8, "sold out", 2)
