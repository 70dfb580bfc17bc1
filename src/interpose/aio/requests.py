"""Request streams on their way out, on a loop, and what an application writes itself."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from interpose._call import Call
from interpose._shell import uploads
from interpose._shell.codec import Encoded, encoded
from interpose._shell.replay import ASK, Kept, Need, Packing, Reader, Replay

FINISHED = "RPC already finished."  # grpcio's words, both
HALF_CLOSED = 'RPC is half closed after calling "done_writing".'


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
        """What is written will not be taken."""
        self._closed = error
        waiting = [self._in_hand]
        while not self._messages.empty():
            item = self._messages.get_nowait()
            waiting.append(item and item[1])
        for taken in waiting:
            if taken is not None and not taken.done():
                taken.set_exception(error)


class Source(uploads.Source):
    """A task of its own asks the application for the next message: a cancelled attempt takes none with it."""

    def __init__(self, messages: AsyncIterator[Any], replay: Replay) -> None:
        super().__init__(messages, replay)
        self._asking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def leave(self, reader: Reader) -> bool:
        self._changed.set()  # for those that wait: they look again
        return self.replay.leave(reader)

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


class Upload(uploads.Upload):
    """The request stream of one attempt: iterate it once."""

    __slots__ = ()

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Encoded]:
        """The messages as they are sent. One frame: each further one costs a message more than all that is done in it."""


class UploadOnce(uploads.Once, Upload):
    """One whose messages are not kept."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[Encoded]:
        hook, encode = self._hook, self._encode
        if not self._begin():
            return
        with self.noting():
            async for message in self._messages:
                made = encoded(message if hook is None else hook(message), encode)
                self.sent += 1
                yield made


class UploadKept(uploads.Again, Upload):
    """One whose messages are kept."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[Encoded]:
        with self.noting():
            while (kept := await self._source.next_for(self._reader, self._packing)) is not None:
                message = self._packing.packed(kept)
                self._source.replay.measured(kept, len(message.data))
                self.sent += 1
                yield message


class Requests(uploads.Requests):
    """The request stream of an RPC: the application's iterator, or its `write()`s."""

    __slots__ = ("half_closed", "written", "written_by_hand")

    once, kept = UploadOnce, UploadKept

    def __init__(self, messages: AsyncIterable[Any] | Iterable[Any] | None, encode: Callable[[Any], bytes]) -> None:
        super().__init__(aiter(messages) if isinstance(messages, AsyncIterable) else _each(messages or ()), encode)
        self.written_by_hand = messages is None
        self.half_closed = False  # by `done_writing`
        self.written: Written | None = None  # what takes the application's writes, where they have to be kept

    def upload(self, call: Call) -> Any:
        """None if the application writes straight to the native call."""
        kept = self._source is not None or call._asks.buffer is not None
        return None if self.written_by_hand and not (kept or self.half_closed) else super().upload(call)

    def _keep(self, replay: Replay) -> Source:
        messages = self._messages
        if self.written_by_hand:
            self.written = Written()
            messages = self.written.read()
        return Source(messages, replay)

    def stop(self, error: BaseException) -> None:
        """The RPC is over: take nothing more. error: what those that wait to write get."""
        if self._source is not None:
            self._source.stop()
        if self.written is not None:
            self.written.end(error)


async def _each(messages: Iterable[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message
