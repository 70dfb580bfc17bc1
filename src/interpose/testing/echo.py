"""An echo service for the four kinds of RPC, scripted per attempt, as plain and as async handlers.

It speaks text without protobuf. A unary response joins the requests with ","; a response stream repeats a unary request
three times, or echoes each message of a request stream.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from interpose._method import Kind

SERVICE = "interpose.testing.Echo"
REPEATS = 3  # responses to a unary request with a response stream


def path(kind: Kind) -> str:
    """The full method name that serves a kind: "/interpose.testing.Echo/unary_unary" …"""
    return f"/{SERVICE}/{kind.value}"


def encode(message: str | bytes) -> bytes:
    """Text as bytes; asyncio servers encode text themselves before they ask."""
    return message.encode() if isinstance(message, str) else message


def decode(data: bytes) -> str:
    """Bytes as text."""
    return data.decode()


@dataclass(frozen=True)
class Act:
    """What the service does in one attempt.

    code, details, trailing: how it ends. after: how many responses it sends before a failure.
    delay: seconds before it answers. hang: it answers only when the service is closed.
    unread: it fails before it reads any request of a stream.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    after: int = 0
    delay: float = 0.0
    hang: bool = False
    unread: bool = False
    trailing: tuple[tuple[str, str | bytes], ...] = ()


def ok(**more: Any) -> Act:
    """It answers."""
    return Act(**more)


def failed(code: grpc.StatusCode, details: str = "as scripted", **more: Any) -> Act:
    """It fails with this code: `failed(grpc.StatusCode.UNAVAILABLE, after=2)` breaks a stream after two messages."""
    return Act(code=code, details=details, **more)


@dataclass
class Attempt:
    """One attempt as the server saw it."""

    kind: Kind
    metadata: tuple[tuple[str, str | bytes], ...]
    time_remaining: float | None
    requests: list[str] = field(default_factory=list)
    ended: bool = False

    def values(self, key: str) -> list[str | bytes]:
        """All values of a metadata key."""
        return [value for name, value in self.metadata if name == key]


class Echo:
    """The service: `handlers(asyncio=…)` for a server, and what it saw.

    script: an act per attempt; when it has run out, the service answers.
    """

    def __init__(self, script: Iterable[Act] = ()) -> None:
        self._script = list(script)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.attempts: list[Attempt] = []

    def close(self) -> None:
        """Let the attempts that hang end."""
        self._closed.set()

    def handlers(self, *, asyncio: bool, plain: bool = False) -> grpc.GenericRpcHandler:
        """The four methods: async handlers for an asyncio server (or plain ones, if asked), plain ones otherwise."""
        service = _Async(self) if asyncio and not plain else _Sync(self)
        make = {
            Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
            Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
            Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
            Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
        }
        methods = {kind.value: make[kind](getattr(service, kind.value), decode, encode) for kind in Kind}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def begin(self, kind: Kind, context: Any) -> tuple[Attempt, Act]:
        """An attempt begins."""
        left = context.time_remaining()
        attempt = Attempt(kind, tuple(context.invocation_metadata()), None if left is None or left > 1e8 else left)
        with self._lock:
            self.attempts.append(attempt)
            act = self._script.pop(0) if self._script else Act()
        return attempt, act

    def responses(self, requests: list[str], kind: Kind) -> list[str]:
        """The full answer."""
        if not kind.response_streaming:
            return [",".join(requests)]
        return requests if kind.request_streaming else requests * REPEATS


class _Sync:
    """The plain handlers."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def unary_unary(self, request: str, context: Any) -> str:
        return next(self._answer(Kind.UNARY_UNARY, [request], context))

    def stream_unary(self, requests: Iterator[str], context: Any) -> str:
        return next(self._answer(Kind.STREAM_UNARY, requests, context))

    def unary_stream(self, request: str, context: Any) -> Iterator[str]:
        yield from self._answer(Kind.UNARY_STREAM, [request], context)

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        yield from self._answer(Kind.STREAM_STREAM, requests, context)

    def _answer(self, kind: Kind, requests: Iterable[str], context: Any) -> Iterator[str]:
        attempt, act = self._echo.begin(kind, context)
        try:
            if not act.unread:
                for request in requests:
                    attempt.requests.append(request)
            if act.delay or act.hang:
                self._echo._closed.wait(None if act.hang else act.delay)
            if act.trailing:
                context.set_trailing_metadata(act.trailing)
            responses = self._echo.responses(attempt.requests, kind)
            if act.code is not grpc.StatusCode.OK:
                if kind.response_streaming:
                    yield from responses[: act.after]
                context.abort(act.code, act.details)
            yield from responses
        finally:
            attempt.ended = True


class _Async:
    """The async handlers: generators where responses stream."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    async def unary_unary(self, request: str, context: Any) -> str:
        return await anext(self._answer(Kind.UNARY_UNARY, _each([request]), context))

    async def stream_unary(self, requests: AsyncIterator[str], context: Any) -> str:
        return await anext(self._answer(Kind.STREAM_UNARY, requests, context))

    async def unary_stream(self, request: str, context: Any) -> AsyncIterator[str]:
        async for response in self._answer(Kind.UNARY_STREAM, _each([request]), context):
            yield response

    async def stream_stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        async for response in self._answer(Kind.STREAM_STREAM, requests, context):
            yield response

    async def _answer(self, kind: Kind, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        attempt, act = self._echo.begin(kind, context)
        try:
            if not act.unread:
                async for request in requests:
                    attempt.requests.append(request)
            if act.delay or act.hang:
                await self._pause(act)
            if act.trailing:
                context.set_trailing_metadata(act.trailing)
            responses = self._echo.responses(attempt.requests, kind)
            if act.code is not grpc.StatusCode.OK:
                if kind.response_streaming:
                    for response in responses[: act.after]:
                        yield response
                await context.abort(act.code, act.details)
            for response in responses:
                yield response
        finally:
            attempt.ended = True

    async def _pause(self, act: Act) -> None:
        while act.hang and not self._echo._closed.is_set():  # noqa: ASYNC110  closed from another thread
            await asyncio.sleep(0.005)
        await asyncio.sleep(act.delay)


async def _each(messages: Iterable[str]) -> AsyncIterator[str]:
    for message in messages:
        yield message
