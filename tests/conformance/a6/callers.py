"""One RPC, done step by step as an application would, by a blocking call, a future or stream, or on asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio

from interpose import Interceptor, Kind, Metadata, intercept_channel
from interpose._clock import SYSTEM, Clock
from interpose.testing.echo import Stub
from tests.support.patience import PATIENCE

OPTIONS = [("grpc.enable_retries", 0)]


@dataclass(frozen=True)
class Way:
    """How an RPC is made, and of which kind it is. form: "blocking", "sync" (a future or a stream) or "asyncio"."""

    form: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.form}-{self.kind.value}"

    @property
    def tells_headers(self) -> bool:
        """Does grpc tell what came in front of a response before the end?"""
        return self.form != "blocking" and self.kind is not Kind.UNARY_UNARY

    @contextmanager
    def client(
        self, target: str, *interceptors: Interceptor, clock: Clock = SYSTEM, options: Any = None
    ) -> Iterator[Client]:
        """A channel with these interceptors."""
        make = _Aio if self.form == "asyncio" else _Sync
        client = make(self, target, interceptors, clock, OPTIONS if options is None else options)
        try:
            yield client
        finally:
            client.close()


# A blocking call with a response stream is the same as one that does not block.
WAYS = [Way("blocking", kind) for kind in Kind if not kind.response_streaming]
WAYS += [Way(form, kind) for form in ("sync", "asyncio") for kind in Kind]

IN_STEPS = [way for way in WAYS if way.form != "blocking"]  # ways in which something can be done meanwhile
UPLOADS = [way for way in WAYS if way.kind.request_streaming]
DOWNLOADS = [way for way in IN_STEPS if way.kind.response_streaming]
BIDI = [way for way in IN_STEPS if way.kind is Kind.STREAM_STREAM]


# At times grpc.aio loses what came in front of a failure, if that comes right behind it; bare channels as well.
LOSES_HEADERS = Way("asyncio", Kind.UNARY_STREAM)


@dataclass
class Reply:
    """How an RPC ended for its caller."""

    messages: list[str]
    code: grpc.StatusCode
    details: str
    trailing: Metadata

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK


class Client:
    """A channel of one stack, and a way to make calls on it."""

    def call(self, *requests: str, timeout: float | None = PATIENCE, metadata: Any = None) -> Reply:
        """Perform one RPC to its end. Without requests it sends "a"; where they do not stream, one is sent."""
        rpc = self.start(timeout=timeout, metadata=metadata, say=requests or ("a",))
        rpc.finish()
        reply: Reply = rpc.end()
        return reply

    def start(self, *, timeout: float | None = PATIENCE, metadata: Any = None, say: tuple[str, ...] = ("a",)) -> Any:
        """Start an RPC: a unary request is `say[0]`; a request stream begins with all of them and goes on."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the channel."""
        raise NotImplementedError


# --- sync -------------------------------------------------------------------------------------------------------------


class _Sync(Client):
    def __init__(self, way: Way, target: str, interceptors: Any, clock: Clock, options: Any) -> None:
        self._way = way
        self._channel = grpc.insecure_channel(target, options)
        self.channel: Any = intercept_channel(self._channel, *interceptors, clock=clock)
        self._stub = getattr(Stub(self.channel), way.kind.value)
        self._started: list[_SyncRpc] = []

    def start(self, *, timeout: float | None = PATIENCE, metadata: Any = None, say: tuple[str, ...] = ("a",)) -> Any:
        rpc = _SyncRpc(self._way, self._stub, say, {"timeout": timeout, "metadata": metadata})
        self._started.append(rpc)
        return rpc

    def close(self) -> None:
        for rpc in self._started:
            rpc.finish()
        self.channel.close()


class _SyncRpc:
    def __init__(self, way: Way, stub: Any, say: tuple[str, ...], options: dict[str, Any]) -> None:
        self._way = way
        self._said: SimpleQueue[str | None] = SimpleQueue()
        self._read: list[str] = []
        request = iter(self._said.get, None) if way.kind.request_streaming else say[0]
        if way.kind.request_streaming:
            self.say(*say)
        self.native: Any = None
        if way.form == "blocking":
            self._running = futures.Future[Any]()
            self._thread = threading.Thread(target=self._block, args=(stub, request, options))
            self._thread.start()
        else:
            self.native = (stub if way.kind.response_streaming else stub.future)(request, **options)

    def _block(self, stub: Any, request: Any, options: dict[str, Any]) -> None:
        try:
            self._running.set_result(stub.with_call(request, **options))
        except grpc.RpcError as error:
            self._running.set_result((None, error))

    def say(self, *messages: str) -> None:
        """Go on with the request stream."""
        for message in messages:
            self._said.put(message)

    def finish(self) -> None:
        """End the request stream."""
        self._said.put(None)

    def next(self) -> str:
        """The next response of a stream."""
        message: str = next(self.native)
        self._read.append(message)
        return message

    def headers(self) -> Metadata:
        """What came in front of the response."""
        return Metadata.trusted(self.native.initial_metadata())

    def wait_for_headers(self) -> None:
        """Block until they have come, where grpc tells of them before the end."""
        if self._way.tells_headers:
            self.headers()

    def cancel(self) -> None:
        """Cancel it."""
        self.native.cancel()

    def drop(self) -> None:
        """Keep nothing of it, as an application that has lost interest."""
        self.native = None
        gc.collect()

    def end(self) -> Reply:
        """How it ended; waits for it."""
        if self._way.form == "blocking":
            response, call = self._running.result(PATIENCE)
            self._thread.join()
            self._read += [] if response is None else [response]
        else:
            call = self.native
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                self._read += call if self._way.kind.response_streaming else [call.result(PATIENCE)]
        return Reply(self._read, call.code(), call.details() or "", Metadata.trusted(call.trailing_metadata()))


# --- asyncio ----------------------------------------------------------------------------------------------------------


class _Aio(Client):
    def __init__(self, way: Way, target: str, interceptors: Any, clock: Clock, options: Any) -> None:
        self._way = way
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="caller", daemon=True)
        self._thread.start()
        self._started: list[_AioRpc] = []
        self.run(self._open(target, interceptors, clock, options))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do it on the loop, and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _open(self, target: str, interceptors: Any, clock: Clock, options: Any) -> None:
        channel: Any = grpc.aio.insecure_channel(target, options)
        self.channel: Any = intercept_channel(channel, *interceptors, clock=clock)
        self._stub = getattr(Stub(self.channel), self._way.kind.value)

    def start(self, *, timeout: float | None = PATIENCE, metadata: Any = None, say: tuple[str, ...] = ("a",)) -> Any:
        rpc = _AioRpc(self, self._way, self._stub, say, {"timeout": timeout, "metadata": metadata})
        self._started.append(rpc)
        return rpc

    def close(self) -> None:
        for rpc in self._started:
            rpc.finish()
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self.channel.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=PATIENCE)


class _AioRpc:
    def __init__(self, client: _Aio, way: Way, stub: Any, say: tuple[str, ...], options: dict[str, Any]) -> None:
        self._client = client
        self._way = way
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        self._read: list[str] = []
        client.run(self._start(stub, say, options))

    async def _start(self, stub: Any, say: tuple[str, ...], options: dict[str, Any]) -> None:
        streaming = self._way.kind.request_streaming
        for message in say if streaming else ():
            self._said.put_nowait(message)
        self.native: Any = stub(self._requests() if streaming else say[0], **options)

    async def _requests(self) -> AsyncIterator[str]:
        while (message := await self._said.get()) is not None:
            yield message

    def say(self, *messages: str) -> None:
        """Go on with the request stream."""
        for message in messages:
            self._client._loop.call_soon_threadsafe(self._said.put_nowait, message)

    def finish(self) -> None:
        """End the request stream."""
        self._client._loop.call_soon_threadsafe(self._said.put_nowait, None)

    def next(self) -> str:
        """The next response of a stream."""

        async def read() -> str:
            message: str = await self.native.read()
            return message

        self._read.append(self._client.run(read()))
        return self._read[-1]

    def headers(self) -> Metadata:
        """What came in front of the response."""

        async def ask() -> Metadata:
            return Metadata.trusted(await self.native.initial_metadata())

        found: Metadata = self._client.run(ask())
        return found

    def wait_for_headers(self) -> None:
        """Block until they have come, where grpc tells of them before the end."""
        if self._way.tells_headers:
            self.headers()

    def cancel(self) -> None:
        """Cancel it."""

        async def do() -> None:
            self.native.cancel()

        self._client.run(do())

    def drop(self) -> None:
        """Keep nothing of it, as an application that has lost interest."""

        async def do() -> None:
            self.native = None
            gc.collect()

        self._client.run(do())

    def end(self) -> Reply:
        """How it ended; waits for it."""
        reply: Reply = self._client.run(self._end())
        return reply

    async def _end(self) -> Reply:
        call = self.native
        with suppress(grpc.RpcError, asyncio.CancelledError):
            if self._way.kind.response_streaming:
                while (message := await call.read()) is not grpc.aio.EOF:
                    self._read.append(message)
            else:
                self._read.append(await call)
        return Reply(
            self._read, await call.code(), await call.details() or "", Metadata.trusted(await call.trailing_metadata())
        )
