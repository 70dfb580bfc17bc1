"""A torn upload is not a finished one: the end of a request stream is believed only when the core has confirmed it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose._clock import SYSTEM
from interpose.aio import context as aio_context
from interpose.aio import server as aio_server
from interpose.sync import server as sync_server


class TornOnAsyncio:
    """grpc.aio's context of an upload whose client has gone: the stream seems to end, and the news comes just after."""

    def __init__(self) -> None:
        self._answers: list[Any] = [b"part", grpc.aio.EOF]

    async def read(self) -> Any:
        if self._answers:
            return self._answers.pop(0)
        raise asyncio.CancelledError

    async def messages(self) -> AsyncIterator[bytes]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


async def test_an_async_loop_over_a_torn_upload_raises() -> None:
    """`async for` gives what came, and then CancelledError instead of an end."""
    native, came = TornOnAsyncio(), []

    with pytest.raises(asyncio.CancelledError):
        async for message in aio_server._incoming(native.messages(), aio_context.ServicerContext(native, SYSTEM)):
            came.append(message)  # noqa: PERF401  what came before the end counts

    assert came == [b"part"]


async def test_reading_a_torn_upload_raises() -> None:
    """`context.read()` gives what came, and then CancelledError instead of EOF."""
    context = aio_context.ServicerContext(TornOnAsyncio(), SYSTEM)

    assert await context.read() == b"part"
    with pytest.raises(asyncio.CancelledError):
        await context.read()


class TornOnSync:
    """grpc's request iterator of an upload whose client has gone: it seems to end, and asked again it raises."""

    def __init__(self) -> None:
        self._answers: list[Any] = [b"part", StopIteration(), grpc.RpcError()]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)


def test_a_loop_over_a_torn_upload_raises() -> None:
    """A sync handler's loop gives what came, and then grpc's error instead of an end."""
    context: Any = type("Context", (), {"received": 0})()
    messages = sync_server._incoming(TornOnSync(), context, None)

    assert next(messages) == b"part"
    with pytest.raises(grpc.RpcError):
        next(messages)
