"""A server that was stopped called its handlers again: `Retry` took the end of their RPCs for a failure that passes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from interpose import Side, intercept_server, testing
from interpose.interceptors import Retry
from interpose.testing import ok
from tests.interceptors.driving import at_once, failing, raising

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
STOPPED = "the server was stopped"


def test_a_handler_whose_server_was_stopped_is_not_called_again() -> None:
    """Nobody waits for it any more."""
    called: list[bytes] = []
    begun, free = threading.Event(), threading.Event()

    def handle(request: bytes, context: Any) -> bytes:
        called.append(request)
        begun.set()
        free.wait(20)
        return request

    with ThreadPoolExecutor(2) as pool:
        server = intercept_server(grpc.server(pool), Retry(safe=True, backoff=at_once))
        methods: Any = {"Buy": grpc.unary_unary_rpc_method_handler(handle)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Shop", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_retries", 0)]) as channel:
            call = channel.unary_unary("/shop.v1.Shop/Buy").future(b"a")
            assert begun.wait(20)
            server.stop(0).wait(20)
            assert call.code() is UNAVAILABLE
            free.set()

    assert called == [b"a"]


@pytest.mark.parametrize(
    "end",
    [
        failing(UNAVAILABLE, STOPPED, local=True),
        raising(OSError("broken pipe"), UNAVAILABLE, details=STOPPED, replayable=True),  # what the handler made of it
    ],
)
def test_whatever_the_handler_makes_of_it(end: Any) -> None:
    """The same status that a handler passes on is a failure like others."""
    retry = Retry(2, safe=True, errors=(OSError,), backoff=at_once)

    assert len(testing.play(retry, [end], side=Side.SERVER).sent) == 1
    assert len(testing.play(retry, [failing(UNAVAILABLE, STOPPED), ok()], side=Side.SERVER).sent) == 2
