"""Channels and servers with interceptors, as users make them: checked, never run."""

from concurrent import futures
from typing import assert_type

import grpc
import grpc.aio

from interpose import AsyncFlow, Call, Flow, chain, intercept_channel, intercept_server, server_interceptor, when


def passes(call: Call) -> Flow:
    yield call


async def passes_async(call: Call) -> AsyncFlow:
    yield call


def sync_client() -> None:
    """A channel keeps its type, so stubs take it."""
    channel = intercept_channel(grpc.insecure_channel("localhost:50051"), passes, chain(passes))
    assert_type(channel, grpc.Channel)
    with intercept_channel(grpc.secure_channel("localhost:50051", grpc.ssl_channel_credentials()), passes) as secure:
        secure.unary_unary("/a/b")
    assert_type(intercept_channel(channel, passes), grpc.Channel)


async def asyncio_client() -> None:
    """The same function, the same stack."""
    channel = intercept_channel(grpc.aio.insecure_channel("localhost:50051"), passes, passes_async)
    assert_type(channel, grpc.aio.Channel)
    async with channel:
        channel.unary_stream("/a/b")


def sync_server() -> None:
    """The object is one of grpc's own interceptors."""
    interceptor = server_interceptor(passes, when("/a/*", passes))
    grpc.server(futures.ThreadPoolExecutor(8), interceptors=[interceptor])
    grpc.server(futures.ThreadPoolExecutor(8), interceptors=[server_interceptor(passes)])
    server = intercept_server(grpc.server(futures.ThreadPoolExecutor(8)), passes, when("/a/*", passes))
    assert_type(server, grpc.Server)
    server.add_generic_rpc_handlers(())


def asyncio_server() -> None:
    """And it is one for asyncio servers."""
    interceptor = server_interceptor(passes, passes_async)
    grpc.aio.server(interceptors=[interceptor])
    grpc.aio.server(interceptors=[server_interceptor(passes)])
    assert_type(intercept_server(grpc.aio.server(), passes, passes_async), grpc.aio.Server)
