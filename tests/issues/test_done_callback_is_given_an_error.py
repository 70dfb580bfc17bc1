"""Libraries ask `isinstance(future, grpc.RpcError)` of what a done-callback is given (Pub/Sub's streaming pull)."""

import threading
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, intercept_channel
from interpose.testing import failed
from interpose.testing.echo import Echo, Stub
from tests.support.patience import PATIENCE


def passes(call: Call) -> Flow:
    yield call


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_a_call_that_failed(kind: Kind) -> None:
    """The call itself: an error that tells the status, and a call and a future as before."""
    given: list[Any] = []
    came = threading.Event()

    def note(future: Any) -> None:
        given.append(future)
        came.set()

    echo = Echo([failed(grpc.StatusCode.UNAVAILABLE, trailing=[("x-why", "restart")])])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), passes) as channel:
        stub = getattr(Stub(channel), kind.value)
        start = stub if kind.response_streaming else stub.future
        call = start(iter("a") if kind.request_streaming else "a", timeout=PATIENCE)
        call.add_done_callback(note)
        assert came.wait(PATIENCE)

    (future,) = given
    assert future is call
    assert isinstance(future, grpc.RpcError) and isinstance(future, grpc.Call) and isinstance(future, grpc.Future)
    assert future.code() is grpc.StatusCode.UNAVAILABLE
    assert ("x-why", "restart") in future.trailing_metadata()
    assert str(future) == repr(future)
    with pytest.raises(grpc.RpcError) as caught:
        raise future  # as such a library does
    assert caught.value is call
