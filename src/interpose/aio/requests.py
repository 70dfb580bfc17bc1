"""Request streams on their way out: counted, shown to hooks, and kept where they may have to be sent again."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from interpose._call import Call
from interpose._messages import compose
from interpose._shell import uploads
from interpose._shell.codec import Encoded, encoded
from interpose._shell.replay import ASK, Kept, Need, Packing, Reader, Replay

FINISHED = "RPC already finished."  # grpcio's words, both
HALF_CLOSED = 'RPC is half closed after calling "done_writing".'


class Requests:
    """The request stream of an RPC: the application's iterator or its `write()`s, from which each attempt makes its upload."""

    __slots__ = ("_encode", "_messages", "_source", "half_closed", "written", "written_by_hand")

    def __init__(self, messages: AsyncIterable[Any] | Iterable[Any] | None, encode: Callable[[Any], bytes]) -> None:
        self.written_by_hand = messages is None
        self.half_closed = False  # by `done_writing`
        self.written: Written | None = None  # what takes the application's writes, where they have to be kept
        self._messages = aiter(messages) if isinstance(messages, AsyncIterable) else _each(messages or ())
        self._encode = encode
        self._source: Source | None = None

    def upload(self, call: Call) -> Upload | None:
        """The stream for one attempt; None if the application writes straight to the native call."""
        if call._asks.buffer is not None and self._source is None:
            messages = self._messages
            if self.written_by_hand:
                self.written = Written()
                messages = self.written.read()
            self._source = Source(messages, Replay(call._asks.buffer))
        if self._source is not None:
            return UploadKept(self._source, Packing(call, self._encode))
        if self.written_by_hand and not self.half_closed:
            return None
        return UploadOnce(self._messages, call, self._encode)

    def stop(self, error: BaseException) -> None:
        """The RPC is over: take nothing more. error: what to tell those who wait to write."""
        if self._source is not None:
            self._source.stop()
        if self.written is not None:
            self.written.end(error)

    @property
    def repeatable(self) -> bool:
        """Can another attempt have all of it?"""
        return self._source is None or self._source.replay.replayable


async def _each(messages: Iterable[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


class Written:
    """What an application writes to a call that may have to be sent again: `write` waits until it was taken."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[tuple[Any, asyncio.Future[None]] | None] = asyncio.Queue()
        self._in_hand: asyncio.Future[None] | None = None
        self._closed: BaseException | None = None  # why nothing more can be written

    async def write(self, message: Any, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed is not None:
            raise self._closed
        taken = loop.create_future()
        self._messages.put_nowait((message, taken))
        await taken

    def done(self) -> None:
        self._closed = asyncio.InvalidStateError(HALF_CLOSED)
        self._messages.put_nowait(None)

    async def read(self) -> AsyncIterator[Any]:
        while (item := await self._messages.get()) is not None:
            message, self._in_hand = item
            yield message
            if not self._in_hand.done():
                self._in_hand.set_result(None)

    def end(self, error: BaseException) -> None:
        """Nobody will take what is written."""
        self._closed = error
        waiting = [self._in_hand]
        while not self._messages.empty():
            item = self._messages.get_nowait()
            waiting.append(item and item[1])
        for taken in waiting:
            if taken is not None and not taken.done():
                taken.set_exception(error)


class Upload(uploads.Upload):
    """The request stream of one attempt: iterate it once."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._outgoing():
                self.sent += 1
                yield message
        except Exception as error:
            self.broken_by(error)
            raise

    @abstractmethod
    def _outgoing(self) -> AsyncIterator[Encoded]:
        """The messages as they are sent."""


class UploadOnce(uploads.Once, Upload):
    """One whose messages are not kept: they come straight from the application."""

    __slots__ = ("_encode", "_hook", "_messages")

    def __init__(self, messages: AsyncIterator[Any], call: Call, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._messages = messages
        self._encode = encode
        self._hook = compose(call._asks.requests)

    async def _outgoing(self) -> AsyncIterator[Encoded]:
        if not self._begin():
            return
        async for message in self._messages:
            yield encoded(message if self._hook is None else self._hook(message), self._encode)


class UploadKept(Upload):
    """One whose messages are kept."""

    __slots__ = ("_packing", "_reader", "_source")

    def __init__(self, source: Source, packing: Packing) -> None:
        super().__init__()
        self._source = source
        self._packing = packing
        self._reader = Reader()

    async def _outgoing(self) -> AsyncIterator[Encoded]:
        while (kept := await self._source.next_for(self._reader, self._packing)) is not None:
            message = self._packing.packed(kept)
            self._source.replay.measured(kept, len(message.data))
            yield message

    def close(self) -> bool:
        again = self._source.replay.leave(self._reader)
        self._source.wake()
        return again


class Source:
    """The application's messages, and those that are kept.

    A task of its own asks the application for the next one, so that an attempt that is cancelled meanwhile takes no
    message with it.
    """

    def __init__(self, messages: AsyncIterator[Any], replay: Replay) -> None:
        self._messages = messages
        self.replay = replay
        self._asking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Let the readers that wait look again."""
        self._changed.set()

    def stop(self) -> None:
        """The RPC is over: ask the application for nothing more."""
        self.replay.finish()
        if self._asking is not None:
            self._asking.cancel()

    async def next_for(self, reader: Reader, packing: Packing) -> Kept | None:
        """The reader's next message, or None at the end."""
        while isinstance(found := self.replay.next_for(reader), Need):
            if found is ASK:
                self._asking = asyncio.get_running_loop().create_task(self._ask(packing))
            self._changed.clear()
            await self._changed.wait()
        return found

    async def _ask(self, packing: Packing) -> None:
        """Take one message from the application."""
        try:
            self.replay.came(packing.kept(await anext(self._messages)))
        except StopAsyncIteration:
            self.replay.finish()
        except BaseException as error:
            # CancelledError too, unless it is `stop` that cancels: who awaits something that was cancelled is not done.
            self.replay.finish(error)
        finally:
            self._asking = None
            self._changed.set()
