"""A response that a sync client cannot read ends the RPC on the server too."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, intercept_channel
from tests.facts.serving import SERVICE, serving
from tests.support.patience import PATIENCE


def passing(call: Call) -> Flow:
    yield call


def unreadable(data: bytes) -> str:
    raise ValueError(data)


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_an_unreadable_response_ends_the_rpc_on_the_server(kind: str) -> None:
    """The caller has its INTERNAL, and the server learns that nobody reads on; grpc itself forgets to tell it."""
    over, requested = threading.Event(), threading.Event()

    def handler(request: Any, context: Any) -> Iterator[str]:
        context.add_callback(over.set)
        yield "unreadable"
        over.wait(PATIENCE)

    def requests() -> Iterator[str]:
        yield "a"
        requested.wait(PATIENCE)

    with serving("sync", {kind: handler}) as client:
        stub = getattr(intercept_channel(client.channel, passing), kind)(f"/{SERVICE}/{kind}", str.encode, unreadable)
        call = stub("a" if kind == "unary_stream" else requests())
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        learned = over.wait(2)
        requested.set()
        over.set()

    assert raised.value.code() is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]
    assert learned
