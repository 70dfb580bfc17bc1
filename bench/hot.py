"""The hot loops of the isolated measurement, one for each place and kind of RPC.

Each function sets something up and returns a loop: call it with how often to repeat, and it
returns the nanoseconds of this thread's CPU time which that took.
"""

from __future__ import annotations

import asyncio
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from time import thread_time_ns
from typing import Any

import grpc

from bench.fakes import CODEC, MESSAGES, METHOD, REPLY, REQUEST, aio, sync

Loop = Callable[[int], int]
AioLoop = Callable[[int], Awaitable[int]]


class Details(namedtuple("Details", ["method", "invocation_metadata"]), grpc.HandlerCallDetails):  # noqa: PYI024
    """What a server interceptor is told about a call, shaped as grpcio does it."""


# Sync


def client_unary(channel: Any) -> Loop:
    """Calls."""
    say = channel.unary_unary(METHOD, None, None, _registered_method=True)

    def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            say(REQUEST)
        return thread_time_ns() - start

    return loop


def client_responses(channel: Any) -> Loop:
    """Streams of responses, read to their end."""
    say = channel.unary_stream(METHOD, CODEC, CODEC, _registered_method=True)

    def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            for _ in say(REQUEST):
                pass
        return thread_time_ns() - start

    return loop


def client_requests(channel: Any) -> Loop:
    """Streams of requests."""
    say = channel.stream_unary(METHOD, CODEC, CODEC, _registered_method=True)

    def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            say(iter(MESSAGES))
        return thread_time_ns() - start

    return loop


def _echo(request: Any, context: Any) -> Any:
    return REPLY


def _responses(request: Any, context: Any) -> Iterator[Any]:
    yield from MESSAGES


def _requests(requests: Any, context: Any) -> Any:
    for _ in requests:
        pass
    return REPLY


def received(deserialize: Callable[[bytes], Any]) -> Iterator[Any]:
    """The requests of a stream, as the server's core hands them out."""
    for message in MESSAGES:
        yield deserialize(message)


def pipeline(handler: Any, interceptors: Sequence[Any]) -> Callable[[Any], Any]:
    """Looks up the handler of an RPC through the interceptors: grpcio does all this again for each RPC."""

    def continuation(index: int) -> Callable[[Any], Any]:
        return lambda details: intercept(index, details)

    def intercept(index: int, details: Any) -> Any:
        if index < len(interceptors):
            return interceptors[index].intercept_service(continuation(index + 1), details)
        return handler

    return partial(intercept, 0)


def server_unary(interceptors: Sequence[Any]) -> Loop:
    """RPCs: the handler looked up, then run."""
    find = pipeline(grpc.unary_unary_rpc_method_handler(_echo), interceptors)
    context = sync.FakeContext()

    def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            find(Details(METHOD, ())).unary_unary(REQUEST, context)
        return thread_time_ns() - start

    return loop


def server_responses(interceptors: Sequence[Any]) -> Loop:
    """Streams of responses, serialized one by one."""
    find = pipeline(grpc.unary_stream_rpc_method_handler(_responses, CODEC, CODEC), interceptors)
    context = sync.FakeContext()

    def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            handler = find(Details(METHOD, ()))
            serialize = handler.response_serializer
            for message in handler.unary_stream(REQUEST, context):
                serialize(message)
        return thread_time_ns() - start

    return loop


def server_requests(interceptors: Sequence[Any]) -> Loop:
    """Streams of requests, deserialized one by one."""
    find = pipeline(grpc.stream_unary_rpc_method_handler(_requests, CODEC, CODEC), interceptors)
    context = sync.FakeContext()

    def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            handler = find(Details(METHOD, ()))
            handler.stream_unary(received(handler.request_deserializer), context)
        return thread_time_ns() - start

    return loop


# Asyncio


def aio_client_unary(channel: Any) -> AioLoop:
    """Calls."""
    say = channel.unary_unary(METHOD, None, None, _registered_method=True)

    async def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            await say(REQUEST)
        return thread_time_ns() - start

    return loop


def aio_client_responses(channel: Any) -> AioLoop:
    """Streams of responses, read to their end."""
    say = channel.unary_stream(METHOD, CODEC, CODEC, _registered_method=True)

    async def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            async for _ in say(REQUEST):
                pass
        return thread_time_ns() - start

    return loop


async def _aiter_messages() -> AsyncIterator[Any]:
    for message in MESSAGES:
        yield message


def aio_client_requests(channel: Any) -> AioLoop:
    """Streams of requests, from an async generator."""
    say = channel.stream_unary(METHOD, CODEC, CODEC, _registered_method=True)

    async def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            await say(_aiter_messages())
        return thread_time_ns() - start

    return loop


async def _aecho(request: Any, context: Any) -> Any:
    return REPLY


async def _aresponses(request: Any, context: Any) -> AsyncIterator[Any]:
    for message in MESSAGES:
        yield message


async def _arequests(requests: Any, context: Any) -> Any:
    async for _ in requests:
        pass
    return REPLY


async def areceived(deserialize: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    """The requests of a stream, as the server's core hands them out."""
    for message in MESSAGES:
        yield deserialize(message)


def aio_pipeline(handler: Any, interceptors: Sequence[Any]) -> Callable[[Any], Awaitable[Any]]:
    """Looks up the handler of an RPC through the interceptors: grpcio does all this again for each RPC."""

    async def intercept(rest: Iterator[Any], details: Any) -> Any:
        interceptor = next(rest, None)
        if interceptor is None:
            return handler
        return await interceptor.intercept_service(partial(intercept, rest), details)

    return lambda details: intercept(iter(interceptors), details)


def aio_server_unary(interceptors: Sequence[Any]) -> AioLoop:
    """RPCs: the handler looked up, then run."""
    find = aio_pipeline(grpc.unary_unary_rpc_method_handler(_aecho), interceptors)
    context = aio.FakeContext()

    async def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            handler = await find(Details(METHOD, ()))
            await handler.unary_unary(REQUEST, context)
        return thread_time_ns() - start

    return loop


def aio_server_responses(interceptors: Sequence[Any]) -> AioLoop:
    """Streams of responses, serialized one by one."""
    find = aio_pipeline(grpc.unary_stream_rpc_method_handler(_aresponses, CODEC, CODEC), interceptors)
    context = aio.FakeContext()

    async def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            handler = await find(Details(METHOD, ()))
            serialize = handler.response_serializer
            async for message in handler.unary_stream(REQUEST, context):
                serialize(message)
        return thread_time_ns() - start

    return loop


def aio_server_requests(interceptors: Sequence[Any]) -> AioLoop:
    """Streams of requests, deserialized one by one."""
    find = aio_pipeline(grpc.stream_unary_rpc_method_handler(_arequests, CODEC, CODEC), interceptors)
    context = aio.FakeContext()

    async def loop(times: int) -> int:
        start = thread_time_ns()
        for _ in range(times):
            handler = await find(Details(METHOD, ()))
            await handler.stream_unary(areceived(handler.request_deserializer), context)
        return thread_time_ns() - start

    return loop


SYNC: dict[tuple[str, str], Callable[[Any], Loop]] = {
    ("client", "unary"): client_unary,
    ("client", "responses"): client_responses,
    ("client", "requests"): client_requests,
    ("server", "unary"): server_unary,
    ("server", "responses"): server_responses,
    ("server", "requests"): server_requests,
}
"""By side and by what streams; given a channel on the client, interceptors on the server."""

AIO: dict[tuple[str, str], Callable[[Any], AioLoop]] = {
    ("client", "unary"): aio_client_unary,
    ("client", "responses"): aio_client_responses,
    ("client", "requests"): aio_client_requests,
    ("server", "unary"): aio_server_unary,
    ("server", "responses"): aio_server_responses,
    ("server", "requests"): aio_server_requests,
}


def on_event_loop(make: Callable[[], AioLoop], events: asyncio.AbstractEventLoop) -> Loop:
    """An asyncio loop to be called like a sync one. `make` runs on the event loop, too: channels want one."""

    async def made() -> AioLoop:
        return make()

    loop = events.run_until_complete(made())

    async def timed(times: int) -> int:
        return await loop(times)

    return lambda times: events.run_until_complete(timed(times))
