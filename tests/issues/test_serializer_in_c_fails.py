"""A response stream whose message the serializer, one in C, cannot serialize: INTERNAL for the client and for the flows."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.facts.serving import MAKE, Watch, serving
from tests.support.patience import PATIENCE
from tests.test_attach_server import SERVICE, by_method, running

IN_C = StringValue.SerializeToString


def handler(request: str, context: Any) -> Iterator[Any]:
    yield StringValue(value=request)
    yield "no message of protobuf"
    yield StringValue(value="it goes no further")


HANDLERS = {"unary_stream": MAKE["unary_stream"](handler, lambda data: data.decode(), IN_C)}


@pytest.mark.parametrize("attached", ["server", "interceptor"])
def test_the_flows_see_what_the_client_sees(attached: str) -> None:
    """Not that the client had cancelled, though grpc drops the handler's generator in either case."""
    watch = Watch()
    opened = (
        running("sync", lambda server: by_method(server, HANDLERS), watch)
        if attached == "server"
        else serving("sync", HANDLERS, watch)
    )

    with opened as served:
        service = SERVICE if attached == "server" else "facts.Server"
        stub = served.channel.unary_stream(f"/{service}/unary_stream", str.encode, StringValue.FromString)
        with pytest.raises(grpc.RpcError) as failure:
            list(stub("a", timeout=PATIENCE))
        outcome = watch.next()

    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert (outcome.code, outcome.details) == (grpc.StatusCode.INTERNAL, "Failed to serialize response!")


def test_a_client_that_leaves_such_a_stream() -> None:
    """Is one that cancelled."""
    watch = Watch()

    def endless(request: str, context: Any) -> Iterator[Any]:
        while True:
            yield StringValue(value=request)

    handlers = {"unary_stream": MAKE["unary_stream"](endless, lambda data: data.decode(), IN_C)}
    with running("sync", lambda server: by_method(server, handlers), watch) as served:
        stub = served.channel.unary_stream(f"/{SERVICE}/unary_stream", str.encode, StringValue.FromString)
        call = stub("a", timeout=PATIENCE)
        next(call)
        call.cancel()
        outcome = watch.next()

    assert outcome.code is grpc.StatusCode.CANCELLED
