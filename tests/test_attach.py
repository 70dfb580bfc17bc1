"""Where interceptors are attached: channels and servers."""

from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, chain, intercept_channel, server_interceptor
from interpose._method import Kind
from interpose.testing import Echo
from interpose.testing.echo import decode, encode, path


def adds(name: str) -> Any:
    """An interceptor that leaves its name in the metadata."""

    def flow(call: Call) -> Flow:
        yield call.with_metadata(("x-layer", name))

    return flow


@pytest.mark.parametrize("channel", [None, "localhost:50051", 5, object(), grpc.insecure_channel, print])
def test_what_is_no_channel(channel: Any) -> None:
    """TypeError at once, which says what was given and what a channel is."""
    with pytest.raises(TypeError, match=r"is no channel: intercept_channel\(channel, \*") as refusal:
        intercept_channel(channel, adds("a"))
    assert repr(channel) in str(refusal.value)


def test_a_server_is_no_channel() -> None:
    """Nor is what belongs on the other side."""
    with pytest.raises(TypeError, match="is no channel"):
        intercept_channel(grpc.server(futures.ThreadPoolExecutor(1)), adds("a"))


def test_interceptors_in_front_of_the_channel() -> None:
    """The channel comes first; the other way round it is no interceptor."""
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(TypeError, match="is no channel"):
        intercept_channel(adds("a"), channel)  # type: ignore[arg-type]


def test_a_sync_channel_stays_one() -> None:
    """What comes back is a grpc.Channel, and closes the one that was given."""
    with intercept_channel(grpc.insecure_channel("localhost:1"), adds("a")) as channel:
        assert isinstance(channel, grpc.Channel)


async def test_an_asyncio_channel_stays_one() -> None:
    """What comes back is a grpc.aio.Channel."""
    async with intercept_channel(grpc.aio.insecure_channel("localhost:1"), adds("a")) as channel:
        assert isinstance(channel, grpc.aio.Channel)


def test_one_object_serves_both_kinds_of_server() -> None:
    """It is an interceptor for grpc.server and for grpc.aio.server, and says what is in it."""
    made = server_interceptor(adds("a"), chain())

    assert isinstance(made, grpc.ServerInterceptor)
    assert isinstance(made, grpc.aio.ServerInterceptor)
    assert repr(made) == "server_interceptor(adds.flow, chain())"


def test_a_server_interceptor_is_no_interceptor() -> None:
    """It stands in grpc's list, not in a chain."""
    with pytest.raises(TypeError, match="is an object for servers"):
        chain(server_interceptor())  # type: ignore[arg-type]


def test_one_object_on_two_servers_and_twice_wrapped_channels() -> None:
    """One object serves a sync and an asyncio server; a channel that is wrapped twice runs both stacks in order."""
    import asyncio

    sync_echo, aio_echo = Echo(), Echo()
    seen: list[list[str | bytes]] = []

    def watch(call: Call) -> Flow:
        seen.append(call.metadata.get_all("x-layer"))
        yield call

    made = server_interceptor(watch)
    pool = futures.ThreadPoolExecutor(2)
    server = grpc.server(pool, interceptors=[made])
    server.add_generic_rpc_handlers((sync_echo.handlers(asyncio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    inner = intercept_channel(grpc.insecure_channel(f"127.0.0.1:{port}"), adds("inner"))
    with intercept_channel(inner, adds("outer")) as channel:
        assert channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)("a", timeout=10) == "a"
    server.stop(None).wait()
    pool.shutdown()

    async def again() -> None:
        server = grpc.aio.server(interceptors=[made])
        server.add_generic_rpc_handlers((aio_echo.handlers(asyncio=True),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        inner = intercept_channel(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), adds("inner"))
        async with intercept_channel(inner, adds("outer")) as channel:
            assert await channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)("a", timeout=10) == "a"
        await server.stop(None)

    asyncio.run(again())

    assert seen == [["outer", "inner"]] * 2


def test_without_interceptors() -> None:
    """An empty stack is a stack."""
    echo = Echo()
    pool = futures.ThreadPoolExecutor(2)
    server = grpc.server(pool, interceptors=[server_interceptor()])
    server.add_generic_rpc_handlers((echo.handlers(asyncio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    with intercept_channel(grpc.insecure_channel(f"127.0.0.1:{port}")) as channel:
        known = channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)
        unknown = channel.unary_unary("/no.Such/Method", encode, decode)
        assert known("a", timeout=10) == "a"
        with pytest.raises(grpc.RpcError) as failure:
            unknown("a", timeout=10)
    server.stop(None).wait()
    pool.shutdown()

    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
