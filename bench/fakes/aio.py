"""The asyncio half: a channel, its calls, and a servicer context. Nothing here ever suspends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Self

import grpc
import grpc.aio

from bench.fakes import MESSAGES, REPLY
from bench.fakes.sync import Codec


class FakeCall(grpc.aio.Call):
    """A call that runs until it is asked how it went, and then has gone well."""

    def __init__(self) -> None:
        self._ended = False
        self._callbacks: list[Callable[[Any], None]] = []

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for callback in self._callbacks:
            callback(self)

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return self._ended

    def time_remaining(self) -> Any:
        return None

    def cancel(self) -> bool:
        return False

    def add_done_callback(self, callback: Any) -> None:
        if self._ended:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> Any:
        return ()

    async def trailing_metadata(self) -> Any:
        self._end()
        return ()

    async def code(self) -> grpc.StatusCode:
        self._end()
        return grpc.StatusCode.OK

    async def details(self) -> str:
        self._end()
        return ""

    async def wait_for_connection(self) -> None:
        """It is always connected."""


class FakeUnaryUnaryCall(FakeCall, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """Answers when awaited, without suspending."""

    def __await__(self) -> Generator[Any, None, Any]:
        self._end()
        yield from ()  # what makes this function a generator
        return REPLY


class FakeUnaryStreamCall(FakeCall, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """A response stream; it ends when its last message was read."""

    def __init__(self, deserialize: Codec) -> None:
        super().__init__()
        self._deserialize = deserialize
        self._source: Iterator[Any] = iter(MESSAGES)

    async def read(self) -> Any:
        for message in self._source:
            return message if self._deserialize is None else self._deserialize(message)
        self._end()
        return grpc.aio.EOF

    async def _messages(self) -> AsyncIterator[Any]:
        # One coroutine and one generator step per message, as in grpc.aio.
        message = await self.read()
        while message is not grpc.aio.EOF:
            yield message
            message = await self.read()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()


class FakeStreamUnaryCall(FakeCall, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Reads all requests when awaited, then answers. Requests may be written, too."""

    def __init__(self, requests: Any, serialize: Codec) -> None:
        super().__init__()
        self._requests = requests
        self._serialize = serialize

    async def write(self, request: Any) -> None:
        if self._serialize is not None:
            self._serialize(request)

    async def done_writing(self) -> None:
        """There is nobody to tell."""

    async def _read(self) -> Any:
        if hasattr(self._requests, "__aiter__"):
            async for message in self._requests:
                await self.write(message)
        elif self._requests is not None:
            for message in self._requests:
                await self.write(message)
        self._end()
        return REPLY

    def __await__(self) -> Generator[Any, None, Any]:
        return self._read().__await__()


class FakeUnaryUnary(grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """Answers at once."""

    def __call__(self, request: Any, *args: Any, **options: Any) -> Any:
        return FakeUnaryUnaryCall()


class FakeUnaryStream(grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """Answers with a stream."""

    def __init__(self, deserialize: Codec) -> None:
        self._deserialize = deserialize

    def __call__(self, request: Any, *args: Any, **options: Any) -> Any:
        return FakeUnaryStreamCall(self._deserialize)


class FakeStreamUnary(grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """Reads all requests, then answers."""

    def __init__(self, serialize: Codec) -> None:
        self._serialize = serialize

    def __call__(self, request_iterator: Any = None, *args: Any, **options: Any) -> Any:
        return FakeStreamUnaryCall(request_iterator, self._serialize)


class FakeChannel(grpc.aio.Channel):
    """Makes the multi-callables that are measured."""

    def unary_unary(
        self,
        method: Any,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        return FakeUnaryUnary()

    def unary_stream(
        self,
        method: Any,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        return FakeUnaryStream(response_deserializer)

    def stream_unary(
        self,
        method: Any,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        return FakeStreamUnary(request_serializer)

    def stream_stream(
        self,
        method: Any,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        raise NotImplementedError("streams both ways are not measured; see unary_stream and stream_unary")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def close(self, grace: float | None = None) -> None:
        """Nothing is open."""

    def get_state(self, *args: Any, **options: Any) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Nothing will ever change."""

    async def channel_ready(self) -> None:
        """It is."""


class Terminal(grpc.aio.UnaryUnaryClientInterceptor):
    """The innermost native interceptor of a unary call: answers itself, so that no network is touched."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return FakeUnaryUnaryCall()


class TerminalUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    """The same for a response stream."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return FakeUnaryStreamCall(bytes)


class TerminalStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    """The same for a request stream."""

    async def intercept_stream_unary(self, continuation: Any, details: Any, request_iterator: Any) -> Any:
        return FakeStreamUnaryCall(request_iterator, bytes)


def dial(interceptors: Any) -> grpc.aio.Channel:
    """The fake channel; with native interceptors a real one that never sends, since only that runs them."""
    if not interceptors:
        return FakeChannel()
    terminals = [Terminal(), TerminalUnaryStream(), TerminalStreamUnary()]
    return grpc.aio.insecure_channel("unix:/nowhere", interceptors=[*interceptors, *terminals])


class FakeContext(grpc.aio.ServicerContext):  # type: ignore[type-arg]
    """The server's view of a call without metadata, without deadline, that goes well."""

    async def read(self) -> Any:
        """What comes behind the requests, over which the handlers of the benchmark iterate: nothing."""
        return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        raise NotImplementedError("the handlers of the benchmark yield their responses")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Nobody reads it."""

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        raise RuntimeError(f"nothing should fail here, yet: {code} {details}")

    async def abort_with_status(self, status: Any) -> Any:
        raise RuntimeError(f"nothing should fail here, yet: {status}")

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Nobody reads it."""

    def trailing_metadata(self) -> Any:
        return ()

    def invocation_metadata(self) -> Any:
        return ()

    def set_code(self, code: Any) -> None:
        """Nobody reads it."""

    def set_details(self, details: str) -> None:
        """Nobody reads it."""

    def code(self) -> Any:
        return 0

    def details(self) -> Any:
        return ""

    def set_compression(self, compression: Any) -> None:
        """Nothing is sent."""

    def disable_next_message_compression(self) -> None:
        """Nothing is sent."""

    def peer(self) -> str:
        return "unix:"

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def auth_context(self) -> Any:
        return {}

    def time_remaining(self) -> Any:
        return None

    def add_done_callback(self, callback: Any) -> None:
        """It never ends."""

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False
