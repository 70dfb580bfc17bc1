"""What an interceptor asks of the sending: grpc is given it, whichever way the call is made."""

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, errors, intercept_channel
from interpose.testing.echo import Echo, Stub

CREDENTIALS = grpc.access_token_call_credentials("t")
WANTED = (True, CREDENTIALS)


def asks(call: Call) -> Flow:
    yield call.with_wait_for_ready(True).with_credentials(CREDENTIALS)


def compresses(call: Call) -> Flow:
    yield call.with_compression(grpc.Compression.Gzip)


class Below(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
):
    """A native interceptor that notes what it is given, and sends it without credentials, which need TLS."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.given.append((details.wait_for_ready, details.credentials))
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


class BelowOnAsyncio(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """The same on asyncio."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.given.append((details.wait_for_ready, details.credentials))
        return await continuation(details._replace(credentials=None), request)


async def test_on_asyncio() -> None:
    """A unary call."""
    below = BelowOnAsyncio()
    async with Echo().serve_aio() as target:
        native = grpc.aio.insecure_channel(target, interceptors=[below])
        async with intercept_channel(native, asks) as channel:
            assert await Stub(channel).unary_unary("a") == "a"

    assert below.given == [WANTED]


@pytest.fixture
def without_gzip() -> Iterator[str]:
    """A server that refuses what is compressed."""
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=[("grpc.compression_enabled_algorithms_bitset", 1)])
        answers = {"unary_unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interpose.testing.Echo", answers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_compression_on_sync(without_gzip: str) -> None:
    """It is used."""
    with intercept_channel(grpc.insecure_channel(without_gzip), compresses) as channel:
        with pytest.raises(errors.Unimplemented, match="gzip"):
            Stub(channel).unary_unary("a", timeout=10)
        with pytest.raises(errors.Unimplemented, match="gzip"):
            Stub(channel).unary_unary.future("a", timeout=10).result()


async def test_compression_on_asyncio(without_gzip: str) -> None:
    """And here."""
    async with intercept_channel(grpc.aio.insecure_channel(without_gzip), compresses) as channel:
        with pytest.raises(errors.Unimplemented, match="gzip"):
            await Stub(channel).unary_unary("a", timeout=10)
