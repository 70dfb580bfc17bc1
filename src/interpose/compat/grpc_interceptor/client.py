"""Client interceptors with one method to write: `intercept`."""

# The arguments have the names that they always had.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

# Under this key grpc.aio keeps the compression that a call asks for; in its details there is no field for it.
_COMPRESSION_KEY = "grpc-internal-encoding-request"
_COMPRESSION_NAMES = {
    grpc.Compression.NoCompression: "identity",
    grpc.Compression.Deflate: "deflate",
    grpc.Compression.Gzip: "gzip",
}
_COMPRESSIONS = {name: compression for compression, name in _COMPRESSION_NAMES.items()}


class _Fields(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class ClientCallDetails(_Fields, grpc.ClientCallDetails):  # type: ignore[misc]  # the stubs want metadata to be a tuple
    """An RPC that is to be sent; `_replace(metadata=…)` gives one that is changed."""


class ClientInterceptorReturnType(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # it takes none at run time
    """What `ClientInterceptor.intercept` returns: a call that is a future as well."""


class ClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
    metaclass=abc.ABCMeta,
):
    """An interceptor for `grpc.intercept_channel(channel, …)`: inherit, and write `intercept`."""

    @abc.abstractmethod
    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, call_details: grpc.ClientCallDetails
    ) -> ClientInterceptorReturnType:
        """Make one RPC, by calling `method(request_or_iterator, call_details)` or in its stead.

        method:              the next interceptor, or what sends the RPC.
        request_or_iterator: the request message; for a request stream an iterator of messages.
        call_details:        method, timeout, metadata and the rest; pass on a `ClientCallDetails` to change them.

        Return what `method` gives, or something like it: a call whose `result()` is the response. A call that failed
        is returned, not raised; for a response stream do not ask for `code()` or `result()` here, which wait for
        the end of the stream.
        """
        call: ClientInterceptorReturnType = method(request_or_iterator, call_details)
        return call

    def intercept_unary_unary(self, continuation: Any, call_details: Any, request: Any) -> Any:
        """What grpc calls for a unary RPC. Write `intercept` and leave this alone."""
        return self.intercept(lambda request, details: continuation(details, request), request, call_details)

    def intercept_unary_stream(self, continuation: Any, call_details: Any, request: Any) -> Any:
        """What grpc calls for a response stream. Write `intercept` and leave this alone."""
        return self.intercept(lambda request, details: continuation(details, request), request, call_details)

    def intercept_stream_unary(self, continuation: Any, call_details: Any, request_iterator: Any) -> Any:
        """What grpc calls for a request stream. Write `intercept` and leave this alone."""
        return self.intercept(lambda requests, details: continuation(details, requests), request_iterator, call_details)

    def intercept_stream_stream(self, continuation: Any, call_details: Any, request_iterator: Any) -> Any:
        """What grpc calls for streams both ways. Write `intercept` and leave this alone."""
        return self.intercept(lambda requests, details: continuation(details, requests), request_iterator, call_details)


class AsyncClientInterceptor(abc.ABC):
    """An interceptor for asyncio channels: inherit, and write `intercept`. Unpack it where the channel is made:

        grpc.aio.insecure_channel(target, interceptors=[*Auth(), *Retry()])

    grpc.aio registers an object for one kind of RPC only, so each gives four, one per kind. One that is not unpacked
    is refused by grpc.aio. The first is outermost.
    """

    @abc.abstractmethod
    async def intercept(
        self, method: Callable[..., Awaitable[Any]], request_or_iterator: Any, call_details: ClientCallDetails
    ) -> Any:
        """Make one RPC, by awaiting `method(request_or_iterator, call_details)` or in its stead.

        method:              the next interceptor, or what sends the RPC. Awaiting it gives the call, which has been
            sent and has not ended; it raises nothing of how the RPC ends.
        request_or_iterator: the request message; for a request stream an iterator of messages, async or not.
        call_details:        as on a sync client: method is a str, metadata a sequence of pairs or None.

        Return that call. For a unary response the response itself will do; awaiting the call gives it, or raises the
        `grpc.aio.AioRpcError`. For a response stream an async iterator of messages will do, made from the call.
        """
        return await method(request_or_iterator, call_details)

    def __iter__(self) -> Iterator[grpc.aio.ClientInterceptor]:
        """The interceptor as grpc.aio takes it: four objects, one per kind of RPC."""
        return iter([_UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)])


class _OneKind:
    """An interceptor for one kind of RPC."""

    def __init__(self, interceptor: AsyncClientInterceptor) -> None:
        self._interceptor = interceptor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._interceptor!r})"

    async def _intercept(self, continuation: Any, call_details: Any, request_or_iterator: Any) -> Any:
        async def method(request_or_iterator: Any, call_details: Any) -> Any:
            return await continuation(_native(call_details), request_or_iterator)

        return await self._interceptor.intercept(method, request_or_iterator, _legible(call_details))


class _UnaryUnary(_OneKind, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _UnaryStream(_OneKind, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _StreamUnary(_OneKind, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        answer = await self._intercept(continuation, client_call_details, request_iterator)
        # grpc.aio takes a bare response for unary requests only.
        return answer if isinstance(answer, grpc.aio.Call) else _Answered(answer)


class _StreamStream(_OneKind, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)


def _legible(details: Any) -> ClientCallDetails:
    """What grpc.aio says about a call, as on a sync channel."""
    method = details.method
    metadata: Any = details.metadata or ()
    compression = next((_COMPRESSIONS.get(value) for key, value in metadata if key == _COMPRESSION_KEY), None)
    return ClientCallDetails(
        method.decode() if isinstance(method, bytes) else method,
        details.timeout,
        tuple(pair for pair in metadata if pair[0] != _COMPRESSION_KEY) or None,
        details.credentials,
        details.wait_for_ready,
        compression,
    )


def _native(details: Any) -> grpc.aio.ClientCallDetails:
    """The same for grpc.aio, which wants bytes and its own class of metadata."""
    method = details.method
    metadata: list[tuple[str, Any]] = list(details.metadata or ())
    compression = getattr(details, "compression", None)
    if compression is not None:
        metadata.append((_COMPRESSION_KEY, _COMPRESSION_NAMES[compression]))
    return grpc.aio.ClientCallDetails(
        method if isinstance(method, bytes) else method.encode(),  # type: ignore[arg-type]  # grpc.aio insists on bytes
        getattr(details, "timeout", None),
        grpc.aio.Metadata(*metadata),
        getattr(details, "credentials", None),
        getattr(details, "wait_for_ready", None),
    )


class _Answered(grpc.aio.StreamUnaryCall[Any, Any]):
    """A call that an interceptor has answered with a response."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._response
        yield

    async def write(self, request: Any) -> None:
        raise grpc.aio.UsageError("RPC already finished.")

    async def done_writing(self) -> None:
        pass

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def wait_for_connection(self) -> None:
        pass

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        callback(self)
