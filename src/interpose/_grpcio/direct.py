"""Unary calls straight from grpcio's core: what `grpc.aio._call.UnaryUnaryCall` does, without its task.

grpcio makes a task for each call, which awaits one future of the core's. Here the attempt waits for that future itself:
a tenth of a small RPC less. This needs private parts of grpcio (docs/design/0006-privates.md), which are looked for once
per channel. Where one is missing the public way is taken, and both are held by the same tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from importlib import import_module
from typing import Any
from weakref import WeakSet

import grpc
import grpc.aio

from interpose._grpcio.parts import found, has_all
from interpose._outcome import OK
from interpose._shell.codec import Encoded
from interpose._shell.native import LOCALLY_CANCELLED


class _Parts:
    """grpcio's private parts: see `found`."""

    def __init__(self) -> None:
        core, call, channel = (
            import_module(f"grpc.{name}") for name in ("_cython.cygrpc", "aio._call", "aio._channel")
        )
        self.channel, self.stub = channel.Channel, channel.UnaryUnaryMultiCallable
        self.core = core.AioChannel
        self.observed: Callable[[], Any] = core.build_census_context
        self.failed: Callable[[Any, Any], grpc.aio.AioRpcError] = call._create_rpc_error
        for owner, names in ((self.core, _OF_A_CORE), (core._AioCall, _OF_A_CALL), (self.channel, _OF_A_CHANNEL)):
            for name in names.split():
                getattr(owner, name)


_OF_A_CORE = "call"
_OF_A_CALL = "unary_unary cancel is_locally_cancelled is_ok done status initial_metadata _status _initial_metadata"
_OF_A_CHANNEL = "_register_call"  # it keeps a register of its calls
_OF_A_STUB = "_channel _method _interceptors _registered_call_handle _response_deserializer _init_metadata"


PARTS = found(_Parts)


class InFlight(set["DirectCall"]):
    """The direct calls of a channel, which grpcio takes for one of its own as it closes that channel."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # grpcio keeps it in a set

    def done(self) -> bool:
        """Have all ended?"""
        return not self

    async def code(self) -> grpc.StatusCode:
        """Wait until all have ended."""
        while self:
            await asyncio.wait([call.waiting for call in self])
        return OK

    def cancel(self) -> bool:
        """Cancel all of them."""
        return sum(call.cancel() for call in list(self)) > 0  # all of them, so not `any`


def in_flight(native: grpc.aio.Channel) -> InFlight | None:
    """What keeps the direct calls of this channel; None if they have to go the public way."""
    if PARTS is None or type(native) is not PARTS.channel or type(getattr(native, "_channel", None)) is not PARTS.core:
        return None
    register = getattr(native, "_active_calls", None)
    if not isinstance(register, WeakSet):
        return None
    calls = InFlight()
    register.add(calls)
    return calls


def direct(native: Any, calls: InFlight | None) -> Any:
    """The direct way to call this native multi-callable, or itself."""
    if calls is None or PARTS is None or type(native) is not PARTS.stub:
        return native
    return Direct(native, calls) if has_all(native, _OF_A_STUB) else native


class Direct:
    """Calls a native multi-callable without a task."""

    def __init__(self, native: Any, calls: InFlight) -> None:
        self._native = native
        self._calls = calls
        self.interceptors = native._interceptors  # the channel's own list: libraries append to it later
        self._call = native._channel.call
        self._method = native._method
        self._handle = native._registered_call_handle
        self._deserialize = native._response_deserializer

    def __call__(
        self,
        request: Encoded,
        *,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
        compression: Any,
    ) -> Any:
        if not self.interceptors:
            return self.start(request.data, timeout, metadata, credentials, wait_for_ready, compression)
        return self._native(
            request,
            timeout=timeout,
            metadata=metadata,
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )

    def start(
        self, data: bytes, timeout: float | None, metadata: Any, credentials: Any, wait_for_ready: Any, compression: Any
    ) -> DirectCall:
        """Send this message; it has gone to the core when this returns."""
        pairs = tuple(self._native._init_metadata(metadata, compression)) if metadata or compression else ()
        deadline = None if timeout is None else time.time() + timeout
        call = DirectCall()
        call._core = core = self._call(self._method, deadline, credentials, wait_for_ready, self._handle)
        call._running = core.unary_unary(data, pairs, PARTS.observed())  # type: ignore[union-attr]
        call.waiting = waiting = call._running.send(None)
        waiting._asyncio_future_blocking = False  # the protocol of asyncio's own tasks: we have taken note
        call._deserialize = self._deserialize
        call._calls = calls = self._calls
        call.response = call.failure = call.when_done = None
        calls.add(call)
        waiting.add_done_callback(call._end)
        return call


class DirectCall:
    """One call of the core, with as much of the surface of grpcio's own as an attempt asks for."""

    __slots__ = ("_calls", "_core", "_deserialize", "_running", "failure", "response", "waiting", "when_done")

    # Set by `start`: each RPC comes here.
    _core: Any
    _running: Any
    _deserialize: Any
    _calls: InFlight
    waiting: asyncio.Future[None]  # the core completes it
    when_done: Callable[[DirectCall], object] | None  # called once it knows how it ended, in front of all who await it
    response: Any
    failure: BaseException | None

    def _end(self, _: Any) -> None:
        """Note how it ended: when the loop calls back, or before, if somebody asks for what is already known."""
        running, self._running = self._running, None
        if running is None:
            return
        self._calls.discard(self)
        core = self._core
        try:
            running.send(None)
        except StopIteration as end:
            if core.is_ok():
                self.response = end.value if self._deserialize is None else self._deserialize(end.value)
            elif core.is_locally_cancelled():
                self.failure = asyncio.CancelledError()
            else:
                self.failure = PARTS.failed(core._initial_metadata, core._status)  # type: ignore[union-attr]
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and not core.done():  # the task that awaits it was cancelled
                core.cancel(LOCALLY_CANCELLED)
            self.failure = error
        told, self.when_done = self.when_done, None
        if told is not None:
            told(self)

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for the end. Cancelling who awaits it cancels the call, as with grpcio's own."""
        if not self.waiting.done():
            try:
                yield from self.waiting
            except BaseException as error:
                if not self.failed_with(error):
                    raise
        self._end(None)

    def failed_with(self, error: BaseException) -> bool:
        """Is that how the core ended it, and not something that was thrown at who awaits it?"""
        waiting = self.waiting
        return waiting.done() and not waiting.cancelled() and waiting.exception() is error

    def cancel(self) -> bool:
        if self._core.done():
            return False
        self._core.cancel(LOCALLY_CANCELLED)
        self.waiting.cancel()
        return True

    def done(self) -> bool:
        return bool(self._core.done())

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata(*await self._core.initial_metadata())

    async def trailing_metadata(self) -> Any:
        return (await self._core.status()).trailing_metadata()

    async def wait_for_connection(self) -> None:
        await self
        if self.failure is not None:
            raise self.failure
