"""The sync half: a channel, its calls, and a servicer context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from bench.fakes import MESSAGES, REPLY

Codec = Callable[[Any], Any] | None


class FakeCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that has ended well."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Any) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        return REPLY

    def exception(self, timeout: float | None = None) -> Any:
        return None

    def traceback(self, timeout: float | None = None) -> Any:
        return None

    def add_done_callback(self, fn: Any) -> None:
        fn(self)


ENDED = FakeCall()


class FakeStream(FakeCall):
    """A response stream; it ends when its last message was read."""

    def __init__(self, deserialize: Codec) -> None:
        self._messages = iter(MESSAGES)
        self._deserialize = deserialize
        self._callbacks: list[Callable[[], Any]] = []
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for message in self._messages:
            return message if self._deserialize is None else self._deserialize(message)
        self._end()
        raise StopIteration

    def _end(self) -> None:
        self._ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def is_active(self) -> bool:
        return not self._ended

    def done(self) -> bool:
        return self._ended

    def running(self) -> bool:
        return not self._ended

    def add_callback(self, callback: Any) -> bool:
        if not self._ended:
            self._callbacks.append(callback)
        return not self._ended

    def add_done_callback(self, fn: Any) -> None:
        if not self.add_callback(lambda: fn(self)):
            fn(self)


class FakeUnaryUnary(grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """Answers at once."""

    def __call__(self, request: Any, *args: Any, **options: Any) -> Any:
        return REPLY

    def with_call(self, request: Any, *args: Any, **options: Any) -> Any:
        return REPLY, ENDED

    def future(self, request: Any, *args: Any, **options: Any) -> Any:
        return ENDED


class FakeUnaryStream(grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """Answers with a stream."""

    def __init__(self, deserialize: Codec) -> None:
        self._deserialize = deserialize

    def __call__(self, request: Any, *args: Any, **options: Any) -> Any:
        return FakeStream(self._deserialize)


class FakeStreamUnary(grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """Reads all requests, then answers."""

    def __init__(self, serialize: Codec) -> None:
        self._serialize = serialize

    def _read(self, requests: Iterator[Any]) -> None:
        for message in requests:
            if self._serialize is not None:
                self._serialize(message)

    def __call__(self, request_iterator: Any, *args: Any, **options: Any) -> Any:
        self._read(request_iterator)
        return REPLY

    def with_call(self, request_iterator: Any, *args: Any, **options: Any) -> Any:
        self._read(request_iterator)
        return REPLY, ENDED

    def future(self, request_iterator: Any, *args: Any, **options: Any) -> Any:
        self._read(request_iterator)
        return ENDED


class FakeChannel(grpc.Channel):
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

    def subscribe(self, callback: Any, *args: Any, **options: Any) -> None:
        """Nothing will ever change."""

    def unsubscribe(self, callback: Any) -> None:
        """Nothing was subscribed."""

    def close(self) -> None:
        """Nothing is open."""


class FakeContext(grpc.ServicerContext):
    """The server's view of a call without metadata, without deadline, that goes well."""

    def invocation_metadata(self) -> Any:
        return ()

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

    def is_active(self) -> bool:
        return True

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Any) -> bool:
        return True

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Nobody reads it."""

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Nobody reads it."""

    def trailing_metadata(self) -> Any:
        return ()

    def set_code(self, code: Any) -> None:
        """Nobody reads it."""

    def set_details(self, details: Any) -> None:
        """Nobody reads it."""

    def code(self) -> Any:
        return None

    def details(self) -> Any:
        return b""

    def abort(self, code: Any, details: Any) -> Any:
        raise RuntimeError(f"nothing should fail here, yet: {code} {details}")

    def abort_with_status(self, status: Any) -> Any:
        raise RuntimeError(f"nothing should fail here, yet: {status}")
