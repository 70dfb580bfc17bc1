"""The sixteen places: sync and asyncio × client and server × the four kinds of RPC, behind one way to call.

with PLACES[0].open(my_interceptor, script=[failed(UNAVAILABLE), ok()]) as rpc:
    reply = rpc.call("hello")
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol

import grpc
import grpc.aio

from interpose._attach import intercept_channel
from interpose._clock import SYSTEM, Clock
from interpose._flow import Interceptor
from interpose._metadata import Metadata
from interpose._method import Kind, Side
from interpose.testing.acts import Act
from interpose.testing.clock import HANG_TIMEOUT
from interpose.testing.echo import Attempt, Echo, Stub

NO_RETRIES = [("grpc.enable_retries", 0)]  # an attempt is an attempt: the core's own would multiply with ours


@dataclass
class Reply:
    """How an RPC ended for its caller."""

    messages: list[Any]
    code: grpc.StatusCode
    details: str
    error: BaseException | None
    initial_metadata: Metadata
    trailing_metadata: Metadata

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK


class Rpc(Protocol):
    """A running echo service and a client to it, in one place."""

    @property
    def echo(self) -> Echo:
        """The service."""
        ...

    @property
    def attempts(self) -> list[Attempt]:
        """What the server saw, an entry per attempt."""
        ...

    @property
    def channel(self) -> Any:
        """The client's channel."""
        ...

    def call(
        self, *requests: Any, timeout: float | None = None, metadata: Any = None, wait_for_ready: bool | None = None
    ) -> Reply:
        """Perform one RPC to its end; never raises what the RPC failed with. Without requests it sends "hello".

        requests: texts or messages of google's protobuf; interceptors on both sides see them as they are. timeout: seconds.
        """
        ...


@dataclass(frozen=True)
class Place:
    """Where an interceptor can run."""

    asyncio: bool
    side: Side
    kind: Kind

    def __str__(self) -> str:
        return f"{'aio' if self.asyncio else 'sync'}-{self.side.value}-{self.kind.value}"

    @contextmanager
    def open(
        self,
        *interceptors: Interceptor,
        script: Iterable[Act | EllipsisType] = (),
        clock: Clock = SYSTEM,
        plain: bool = False,
    ) -> Generator[Rpc]:
        """Serve the echo service with the interceptors in this place, and give what calls it.

        plain: on an asyncio server, use plain (not async) handlers.
        """
        echo = Echo(script)
        opened = (
            _AioRpc(self, echo, interceptors, clock, plain)
            if self.asyncio
            else _SyncRpc(self, echo, interceptors, clock)
        )
        try:
            yield opened
        finally:
            opened.close()


PLACES = [Place(asyncio, side, kind) for asyncio in (False, True) for side in Side for kind in Kind]


class _SyncRpc:
    def __init__(self, place: Place, echo: Echo, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._kind = place.kind
        self.echo = echo
        here = place.side is Side.SERVER
        self._serving = echo.serve(*(interceptors if here else ()), clock=clock)
        self.channel: Any = grpc.insecure_channel(self._serving.__enter__(), NO_RETRIES)
        if not here:
            self.channel = intercept_channel(self.channel, *interceptors, clock=clock)
        self._stub = getattr(Stub(self.channel), self._kind.value)

    @property
    def attempts(self) -> list[Attempt]:
        return self.echo.attempts

    def call(
        self, *requests: Any, timeout: float | None = None, metadata: Any = None, wait_for_ready: bool | None = None
    ) -> Reply:
        request = _request(self._kind, requests)
        options = {"timeout": timeout, "metadata": metadata, "wait_for_ready": wait_for_ready}
        messages: list[Any] = []
        try:
            if self._kind.response_streaming:
                call = self._stub(request, **options)
                for message in call:
                    messages.append(message)  # noqa: PERF402  what came before a failure counts
            else:
                response, call = self._stub.with_call(request, **options)
                messages.append(response)
        except grpc.RpcError as error:
            return _failed(error, messages)
        except BaseException as error:
            return _raised(error, messages)
        return Reply(
            messages,
            call.code(),
            call.details() or "",
            None,
            Metadata.trusted(call.initial_metadata()),
            Metadata.trusted(call.trailing_metadata()),
        )

    def close(self) -> None:
        self.echo.close()
        self.channel.close()
        self._serving.__exit__(None, None, None)


class _AioRpc:
    def __init__(
        self, place: Place, echo: Echo, interceptors: tuple[Interceptor, ...], clock: Clock, plain: bool
    ) -> None:
        self._kind = place.kind
        self.echo = echo
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="place", daemon=True)
        self._thread.start()
        here = place.side is Side.SERVER
        self._serving = echo.serve_aio(*(interceptors if here else ()), clock=clock, plain=plain)
        self._run(self._open(() if here else interceptors, clock))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(HANG_TIMEOUT)

    async def _open(self, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        channel: Any = grpc.aio.insecure_channel(await self._serving.__aenter__(), NO_RETRIES)
        # For a server's sake too: a bare client that still sends when the status comes reports INTERNAL at times.
        self.channel = intercept_channel(channel, *interceptors, clock=clock)
        self._stub = getattr(Stub(self.channel), self._kind.value)

    @property
    def attempts(self) -> list[Attempt]:
        return self.echo.attempts

    def call(
        self, *requests: Any, timeout: float | None = None, metadata: Any = None, wait_for_ready: bool | None = None
    ) -> Reply:
        options = {"timeout": timeout, "metadata": metadata, "wait_for_ready": wait_for_ready}
        reply: Reply = self._run(self._call(requests, options))
        return reply

    async def _call(self, requests: tuple[Any, ...], options: dict[str, Any]) -> Reply:
        messages: list[Any] = []
        try:
            call = self._stub(_request(self._kind, requests), **options)
            if self._kind.response_streaming:
                async for message in call:
                    messages.append(message)  # noqa: PERF401  what came before a failure counts
            else:
                messages.append(await call)
        except grpc.RpcError as error:
            return _failed(error, messages)
        except BaseException as error:
            return _raised(error, messages)
        return Reply(
            messages,
            await call.code(),
            await call.details() or "",
            None,
            Metadata.trusted(await call.initial_metadata()),
            Metadata.trusted(await call.trailing_metadata()),
        )

    def close(self) -> None:
        self.echo.close()
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self.channel.close()
        await self._serving.__aexit__(None, None, None)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=HANG_TIMEOUT)


def _request(kind: Kind, requests: tuple[Any, ...]) -> Any:
    messages = requests or ("hello",)
    return iter(messages) if kind.request_streaming else messages[0]


def _failed(error: Any, messages: list[Any]) -> Reply:
    return Reply(
        messages,
        error.code(),
        error.details() or "",
        error,
        Metadata.trusted(error.initial_metadata()),
        Metadata.trusted(error.trailing_metadata()),
    )


def _raised(error: BaseException, messages: list[Any]) -> Reply:
    return Reply(messages, grpc.StatusCode.UNKNOWN, str(error), error, Metadata(), Metadata())
