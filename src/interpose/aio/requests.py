"""Request streams on their way out: counted, shown to hooks, and kept where they may have to be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from interpose import errors
from interpose._call import Call
from interpose._codec import Encoded, encoded
from interpose._messages import compose

FINISHED = "RPC already finished."  # grpcio's words, both
HALF_CLOSED = 'RPC is half closed after calling "done_writing".'


class Requests:
    """The request stream of an RPC: the application's iterator or its `write()`s, from which each attempt makes its upload."""

    __slots__ = ("_encode", "_messages", "_replay", "half_closed", "written", "written_by_hand")

    def __init__(self, messages: AsyncIterable[Any] | Iterable[Any] | None, encode: Callable[[Any], bytes]) -> None:
        self.written_by_hand = messages is None
        self.half_closed = False  # by `done_writing`
        self.written: Written | None = None  # what takes the application's writes, where they have to be kept
        self._messages = aiter(messages) if isinstance(messages, AsyncIterable) else _each(messages or ())
        self._encode = encode
        self._replay: Replay | None = None

    def upload(self, call: Call) -> Upload | None:
        """The stream for one attempt; None if the application writes straight to the native call."""
        if call._asks.buffer is not None and self._replay is None:
            messages = self._messages
            if self.written_by_hand:
                self.written = Written()
                messages = self.written.read()
            self._replay = Replay(messages, self._encode, call._asks.buffer)
        if self.written_by_hand and self._replay is None and not self.half_closed:
            return None
        return Upload(self._messages, self._replay, call, self._encode)

    def stop(self, error: BaseException) -> None:
        """The RPC is over: take nothing more. error: what to tell those who wait to write."""
        if self._replay is not None:
            self._replay.stop()
        if self.written is not None:
            self.written.end(error)

    @property
    def repeatable(self) -> bool:
        """Can another attempt have all of it?"""
        return self._replay is None or self._replay.replayable


async def _each(messages: Iterable[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


class Written:
    """What an application writes to a call that may have to be sent again: `write` waits until it was taken."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[tuple[Any, asyncio.Future[None]] | None] = asyncio.Queue()
        self._in_hand: asyncio.Future[None] | None = None
        self._closed: BaseException | None = None  # why nothing more can be written

    async def write(self, message: Any) -> None:
        if self._closed is not None:
            raise self._closed
        taken = asyncio.get_running_loop().create_future()
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


class Upload:
    """The request stream of one attempt: iterate it once."""

    __slots__ = ("_encode", "_hook", "_messages", "_replay", "error", "over", "sent")

    def __init__(
        self, messages: AsyncIterator[Any], replay: Replay | None, call: Call, encode: Callable[[Any], bytes]
    ) -> None:
        self._messages = messages
        self._encode = encode
        self._replay = replay
        self._hook = compose(call._asks.requests)
        self.sent = 0
        self.error: errors.StatusError | None = None  # what broke it; grpc itself only cancels
        self.over = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        hook = self._hook
        try:
            async for message in self._messages if self._replay is None else self._replay.read(self):
                if hook is not None:
                    message = hook(message.message if type(message) is Encoded else message)
                self.sent += 1
                yield message if type(message) is Encoded else encoded(message, self._encode)
        except errors.StatusError as error:
            self.error = error
            raise
        except Exception as error:
            self.error = errors.Unknown("Exception iterating requests!", local=True)  # sync grpcio's words
            self.error.__cause__ = error
            raise

    def close(self) -> bool:
        """The attempt has ended. Could its requests be sent again?"""
        self.over = True
        if self._replay is None:
            return not self.sent
        self._replay.wake()
        return self._replay.replayable


class Replay:
    """A request stream that can be read several times, as long as what was read fits in `limit` bytes.

    Each attempt reads it from the start; a task of its own asks the application for the next message, so that an
    attempt that is cancelled meanwhile takes no message with it. Past the limit nothing is kept.
    """

    def __init__(self, messages: AsyncIterator[Any], encode: Callable[[Any], bytes], limit: int) -> None:
        self._messages = messages
        self._encode = encode
        self._room = limit
        self._kept: list[Encoded] | None = []
        self._last: Encoded | None = None
        self._read = 0  # messages taken from the application
        self._ended = False
        self._error: BaseException | None = None
        self._asking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def replayable(self) -> bool:
        """Is everything that was read still here?"""
        return self._kept is not None

    def _lost(self) -> errors.StatusError:
        # Never an end of the stream: the server would take a part for the whole.
        return errors.ResourceExhausted("the requests outgrew their buffer, and cannot be sent again", local=True)

    async def read(self, upload: Upload) -> AsyncIterator[Encoded]:
        """The stream from its start, for as long as the upload goes on."""
        position = 0
        while (message := await self._at(position, upload)) is not None:
            yield message
            position += 1

    def wake(self) -> None:
        """Let a reader that waits see that it is over."""
        self._changed.set()

    def stop(self) -> None:
        """The RPC is over: ask the application for nothing more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _at(self, position: int, upload: Upload) -> Encoded | None:
        while not upload.over:
            if position < self._read:
                if self._kept is not None:
                    self._last = self._kept[position]
                    if self._room < 0 and position == self._read - 1:
                        self._kept = None  # more than may be kept: the attempt that takes it is the last
                    return self._last
                if position == self._read - 1:
                    return self._last
                raise self._lost()
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            if self._asking is None:
                self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._changed.clear()
            await self._changed.wait()
        return None

    async def _ask(self) -> None:
        """Take one message from the application."""
        try:
            taken = await anext(self._messages)
            self._keep(encoded(taken, self._encode))
        except StopAsyncIteration:
            self._ended = True
        except asyncio.CancelledError:
            self._ended = True
        except BaseException as error:
            self._ended, self._error = True, error
        finally:
            self._asking = None
            self._changed.set()

    def _keep(self, message: Encoded) -> None:
        self._read += 1
        self._room -= len(message.data)
        if self._kept is not None:
            self._kept.append(message)  # and past the limit until it is taken: the attempt before may be over
        else:
            self._last = message
