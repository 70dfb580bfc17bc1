"""What an interceptor asks of the sending: grpc is given it, whichever way the call is made."""

from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, intercept_channel
from interpose.testing.echo import Echo, Stub

CREDENTIALS = grpc.access_token_call_credentials("t")
WANTED = (True, CREDENTIALS)


def asks(call: Call) -> Flow:
    call = call.with_wait_for_ready(True).with_credentials(CREDENTIALS)
    yield call.with_compression(grpc.Compression.Gzip)


class Below(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
):
    """A native interceptor that notes what it is given, and sends it without credentials, which need TLS."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []
        self.compression: list[Any] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.given.append((details.wait_for_ready, details.credentials))
        self.compression.append(details.compression)
        return continuation(details._replace(credentials=None), request)

    intercept_unary_stream = intercept_unary_unary


@pytest.mark.parametrize("way", ["blocking", "future", "stream"])
def test_on_sync(way: str) -> None:
    """A blocking call, a future and a stream."""
    below = Below()
    with Echo().serve() as target:
        native = grpc.intercept_channel(grpc.insecure_channel(target), below)
        with intercept_channel(native, asks) as channel:
            stub = Stub(channel)
            if way == "stream":
                assert list(stub.unary_stream("a")) == ["a"] * 3
            else:
                assert (stub.unary_unary("a") if way == "blocking" else stub.unary_unary.future("a").result()) == "a"

    assert below.given == [WANTED]
    assert below.compression == [grpc.Compression.Gzip]


class BelowOnAsyncio(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """The same on asyncio, where compression has become metadata by then."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []
        self.compression: list[Any] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.given.append((details.wait_for_ready, details.credentials))
        self.compression.append(dict(details.metadata)["grpc-internal-encoding-request"])
        return await continuation(details._replace(credentials=None), request)


async def test_on_asyncio() -> None:
    """A unary call."""
    below = BelowOnAsyncio()
    async with Echo().serve_aio() as target:
        native = grpc.aio.insecure_channel(target, interceptors=[below])
        async with intercept_channel(native, asks) as channel:
            assert await Stub(channel).unary_unary("a") == "a"

    assert below.given == [WANTED]
    assert below.compression == ["gzip"]
