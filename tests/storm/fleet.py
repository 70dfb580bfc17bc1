"""The clients of a storm: threads on a sync channel and tasks on an asyncio one, which call until they are told to stop."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from interpose import Interceptor, Kind, intercept_channel
from interpose.testing.echo import decode, encode
from tests.storm.book import HANG, Book, Entry
from tests.storm.server import ID, SERVICES, asked
from tests.support.patience import PATIENCE

OPTIONS = [
    ("grpc.enable_retries", 0),  # the core's own would multiply with ours
    ("grpc.use_local_subchannel_pool", 1),
    # A server that comes back is found soon: the storm is about calls, not about how grpc reconnects.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
]


class Fleet:
    """A sync and an asyncio channel with the same interceptors, and their callers.

    threads, tasks: callers. pace: seconds between the beginnings of a caller's calls; 0: one after the other.
    """

    def __init__(self, target: str, *stack: Interceptor, threads: int = 4, tasks: int = 12, pace: float = 0.0) -> None:
        self._target = target
        self._stack = stack
        self._threads, self._tasks, self._pace = threads, tasks, pace
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="storm-loop", daemon=True)

    def __enter__(self) -> Fleet:
        self._thread.start()
        self._channel = intercept_channel(grpc.insecure_channel(self._target, OPTIONS), *self._stack)
        self._aio_channel = self._run(self._dial())
        self._stubs, self._aio_stubs = _stubs(self._channel), _stubs(self._aio_channel)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._run(self._aio_channel.close())
        self._run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _dial(self) -> grpc.aio.Channel:
        return intercept_channel(grpc.aio.insecure_channel(self._target, OPTIONS), *self._stack)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    # - at sea -

    def call(self, book: Book, calls: int) -> None:
        """Make that many calls, and wait for their ends."""
        with self.calling(book, calls):
            pass

    @contextmanager
    def calling(self, book: Book, calls: int | None = None) -> Iterator[None]:
        """Make calls, those many or until the block is left; then wait for their ends."""
        left: Iterator[int] = itertools.count() if calls is None else iter(range(calls))
        stopping = threading.Event()
        callers = [
            threading.Thread(target=self._sail, args=(book, left, stopping, caller), daemon=True)
            for caller in range(self._threads)
        ]
        for caller in callers:
            caller.start()
        tasks = asyncio.run_coroutine_threadsafe(self._sail_together(book, left, stopping), self.loop)
        try:
            yield
        finally:
            if calls is None:
                stopping.set()
            for caller in callers:
                # Whoever hangs is not waited for: the book shows that the end of the call is missing.
                while caller.is_alive() and not book.is_stuck():
                    caller.join(0.5)
            tasks.result()
            book.settle()

    # - sync callers -

    def _offset(self, caller: int) -> float:
        """Seconds by which a caller begins later than the first: so that not all call at the same moments."""
        return self._pace * caller / (self._threads + self._tasks)

    def _sail(self, book: Book, left: Iterator[int], stopping: threading.Event, caller: int) -> None:
        stopping.wait(self._offset(caller))
        while not stopping.is_set() and next(left, None) is not None:
            with book.call() as entry:
                self._perform(book, entry)
            stopping.wait(max(self._pace - entry.took, 0))

    def _perform(self, book: Book, entry: Entry) -> None:
        """One call, in one of the ways in which a stub can be called."""
        stub = self._stubs[entry.service, entry.kind]
        messages = asked(str(entry.number), entry.kind)
        request = iter(messages) if entry.kind.request_streaming else messages[0]
        metadata = ((ID, str(entry.number)),)
        if entry.kind.response_streaming:
            stream = stub(request, metadata=metadata)
            stream.add_done_callback(lambda _: book.told(entry))
            for message in stream:
                entry.messages.append(message)
        elif entry.number % 8 < 4:
            future = stub.future(request, metadata=metadata)
            future.add_done_callback(lambda _: book.told(entry))
            entry.messages.append(future.result())
        else:
            try:
                entry.messages.append(stub(request, metadata=metadata))
            finally:
                book.told(entry)

    # - asyncio callers -

    async def _sail_together(self, book: Book, left: Iterator[int], stopping: threading.Event) -> None:
        callers = [asyncio.ensure_future(self._sail_aio(book, left, stopping, caller)) for caller in range(self._tasks)]
        if callers:
            await asyncio.wait(callers)
            for caller in callers:
                caller.result()

    async def _sail_aio(self, book: Book, left: Iterator[int], stopping: threading.Event, caller: int) -> None:
        await asyncio.sleep(self._offset(self._threads + caller))
        while not stopping.is_set() and next(left, None) is not None:
            with book.call() as entry:
                await asyncio.wait_for(self._perform_aio(book, entry), entry.limit + HANG)
            await asyncio.sleep(max(self._pace - entry.took, 0))

    async def _perform_aio(self, book: Book, entry: Entry) -> None:
        stub = self._aio_stubs[entry.service, entry.kind]
        messages = asked(str(entry.number), entry.kind)
        request = _each(messages) if entry.kind.request_streaming else messages[0]
        call = stub(request, metadata=((ID, str(entry.number)),))
        call.add_done_callback(lambda _: book.told(entry))
        if not entry.kind.response_streaming:
            entry.messages.append(await call)
        elif entry.number % 8 < 4:
            while (message := await call.read()) is not grpc.aio.EOF:
                entry.messages.append(message)
        else:
            async for message in call:
                entry.messages.append(message)


def _stubs(channel: Any) -> dict[tuple[str, Kind], Any]:
    return {
        (service, kind): getattr(channel, kind.value)(f"/{service}/{kind.value}", encode, decode)
        for service in SERVICES
        for kind in Kind
    }


async def _each(messages: list[str]) -> AsyncIterator[str]:
    for message in messages:
        yield message
