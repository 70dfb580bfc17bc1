"""Handlers of every shape, which do what a call's metadata says, and write down what they see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from tests.compat.apis import Api

ACTS = (
    "answer",  # three messages, or one
    "nothing",  # an empty stream, or an empty message
    "bug",  # raise ValueError
    "grpc",  # raise a GrpcException
    "custom",  # raise one with details and a code of its own
    "abort",
    "code",  # set_code, and return
    "code and bug",
    "late bug",  # after the first message
    "late grpc",
    "late abort",
    "refused",  # by an interceptor
    "refused grpc",
    "cached",  # answered by an interceptor
)

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Log = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Text:
    """A message. Not a `str`, which the published package takes for a stream, since it can be iterated."""

    text: str

    @staticmethod
    def read(sent: bytes) -> Text:
        return Text(sent.decode())

    def write(self) -> bytes:
        return self.text.encode()


def act_of(context: Any) -> str:
    return str(dict(context.invocation_metadata())["act"])


class Book:
    """What was seen, an entry per call."""

    def __init__(self) -> None:
        self.calls: dict[str, Log] = {}

    def add(self, context: Any, *entry: Any) -> None:
        self.calls.setdefault(act_of(context), []).append(entry)


class Service:
    """Handlers for a sync server."""

    def __init__(self, api: Api, book: Book) -> None:
        self._exceptions = api.exceptions
        self._book = book

    def handler(self, shape: str) -> Any:
        """A handler whose function has the name of the shape."""
        kind = shape.removesuffix("_written")
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(getattr(self, shape), Text.read, Text.write)

    def problem(self, act: str) -> Exception | None:
        found = {
            "bug": ValueError("a bug"),
            "grpc": self._exceptions.NotFound(),
            "custom": self._exceptions.GrpcException("quite full", grpc.StatusCode.RESOURCE_EXHAUSTED),
        }
        return found.get(act)

    def begin(self, requests: list[Text], context: Any) -> list[Text]:
        """What comes before the first message; gives the messages."""
        act = act_of(context)
        self._book.add(context, "handler", [request.text for request in requests])
        context.set_trailing_metadata((("x-handler", act.replace(" ", "-")),))
        if act.startswith("code"):
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("half of it")
        problem = self.problem(act.removeprefix("code and "))
        if problem is not None:
            raise problem
        return [] if act == "nothing" else [Text(f"{request.text}!") for request in requests]

    def unary_unary(self, request: Text, context: Any) -> Text:
        return self._unary([request], context)

    def stream_unary(self, requests: Iterator[Text], context: Any) -> Text:
        return self._unary(list(requests), context)

    def unary_stream(self, request: Text, context: Any) -> Iterator[Text]:
        return self._stream([request, Text("b"), Text("c")], context)

    def stream_stream(self, requests: Iterator[Text], context: Any) -> Iterator[Text]:
        yield from self._stream(list(requests), context)

    def _unary(self, requests: list[Text], context: Any) -> Text:
        messages = self.begin(requests, context)
        self._late(context)
        return Text("".join(message.text for message in messages))

    def _stream(self, requests: list[Text], context: Any) -> Iterator[Text]:
        try:
            for message in self.begin(requests, context):
                yield message
                self._late(context)
        finally:
            self._book.add(context, "handler is over")

    def _late(self, context: Any) -> None:
        act = act_of(context)
        if act in {"abort", "late abort"}:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
        problem = self.problem(act.removeprefix("late "))
        if problem is not None:
            raise problem


class AsyncService(Service):
    """Handlers for an asyncio server; those that are `…_written` read from their context and write to it."""

    async def unary_unary(self, request: Text, context: Any) -> str:
        return await self._answer([request], context)

    async def stream_unary(self, requests: AsyncIterator[Text], context: Any) -> str:
        return await self._answer([request async for request in requests], context)

    async def stream_unary_written(self, requests: Any, context: Any) -> Text:
        return await self._answer(await self._read(context), context)

    async def unary_stream(self, request: Text, context: Any) -> AsyncIterator[Text]:
        async for message in self._messages([request, Text("b"), Text("c")], context):
            yield message

    async def stream_stream(self, requests: AsyncIterator[Text], context: Any) -> AsyncIterator[Text]:
        async for message in self._messages([request async for request in requests], context):
            yield message

    async def unary_stream_written(self, request: Text, context: Any) -> None:
        async for message in self._messages([request, Text("b"), Text("c")], context):
            await context.write(message)

    async def stream_stream_written(self, requests: Any, context: Any) -> None:
        async for message in self._messages(await self._read(context), context):
            await context.write(message)

    async def _read(self, context: Any) -> list[Text]:
        read = []
        while (request := await context.read()) is not grpc.aio.EOF:
            read.append(request)
        return read

    async def _answer(self, requests: list[Text], context: Any) -> Text:
        messages = self.begin(requests, context)
        await self._alate(context)
        return Text("".join(message.text for message in messages))

    async def _messages(self, requests: list[Text], context: Any) -> AsyncIterator[Text]:
        for message in self.begin(requests, context):
            yield message
            await self._alate(context)

    async def _alate(self, context: Any) -> None:
        if act_of(context) in {"abort", "late abort"}:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
        self._late(context)
