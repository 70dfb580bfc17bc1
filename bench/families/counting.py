"""How a layer sees each message where the framework offers no tap: by wrapping the stream."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any


def see(message: object) -> None:
    """What every arm does with a message: the cheapest call there is."""


def seen(messages: Iterable[Any]) -> Iterator[Any]:
    """The same messages, each shown to `see`."""
    for message in messages:
        see(message)
        yield message


async def aseen(messages: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """The same messages, each shown to `see`. grpc.aio insists on an async generator here."""
    async for message in messages:
        see(message)
        yield message


class SeenCall:
    """A response stream that is still a call: a bare generator would lose code() and cancel()."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> SeenCall:
        return self

    def __next__(self) -> Any:
        message = next(self._call)
        see(message)
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
