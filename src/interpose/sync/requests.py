"""Request streams on their way out: counted, shown to hooks, and kept where they may have to be sent again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import Any

from interpose import errors
from interpose._call import Call
from interpose._codec import Encoded, encoded
from interpose._messages import compose


class Requests:
    """The request stream of an RPC: the application's iterator, from which each attempt makes its upload."""

    __slots__ = ("_context", "_encode", "_messages", "_replay")

    def __init__(self, messages: Iterable[Any], encode: Callable[[Any], bytes]) -> None:
        self._messages = iter(messages)
        self._encode = encode
        self._replay: Replay | None = None
        self._context = copy_context()

    def run(self, start: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a native call in the application's context: grpc reads the stream in it, whoever's thread this is."""
        return self._context.copy().run(start, *args, **kwargs)

    def upload(self, call: Call) -> Upload:
        """The stream for one attempt; from its start if the call is buffered, else from where it stands."""
        if call._asks.buffer is not None and self._replay is None:
            self._replay = Replay(self._messages, self._encode, call._asks.buffer)
        return Upload(self._messages, self._replay, call)

    @property
    def repeatable(self) -> bool:
        """Can another attempt have all of it?"""
        return self._replay is None or self._replay.replayable


class Upload:
    """The request stream of one attempt: iterate it once, on whatever thread grpc gives it."""

    __slots__ = ("_begun", "_hook", "_messages", "_replay", "error", "over", "sent")

    def __init__(self, messages: Iterator[Any], replay: Replay | None, call: Call) -> None:
        self._messages = messages
        self._replay = replay
        self._hook = compose(call._asks.requests)
        self.sent = 0
        self.error: errors.StatusError | None = None  # what broke it; grpc itself only says that something did
        self.over = False
        self._begun = False

    def __iter__(self) -> Iterator[Any]:
        hook, closed = self._hook, False
        self._begun = True
        if self.over:  # a thread that comes too late: the messages belong to the next attempt
            return
        try:
            for message in self._messages if self._replay is None else self._replay.read(self):
                if hook is not None:
                    message = hook(message.message if type(message) is Encoded else message)
                self.sent += 1
                closed = True
                yield message
                closed = False
        except errors.StatusError as error:
            self.error = error
            raise
        except BaseException as error:
            if closed:  # not the application's: grpc wants no more
                raise
            self.error = errors.Unknown("Exception iterating requests!", local=True)  # grpcio's words
            self.error.__cause__ = error
            raise self.error from error  # grpc's thread bears an Exception only

    def close(self) -> bool:
        """The attempt has ended. Could its requests be sent again?"""
        if self._replay is not None:
            return self._replay.leave(self)
        self.over = True
        return not self._begun  # once begun it may hold a message that it has not sent


class Replay:
    """A request stream that can be read several times, as long as what was read fits in `limit` bytes.

    Each attempt reads it from the start. One of them at a time asks the application for the next message, on the
    thread that grpc gave it, and the others wait. Past the limit nothing is kept.
    """

    def __init__(self, messages: Iterable[Any], encode: Callable[[Any], bytes], limit: int) -> None:
        self._messages = iter(messages)
        self._encode = encode
        self._room = limit
        self._kept: list[Encoded] | None = []
        self._read = 0  # messages taken from the application
        self._ended = False
        self._error: BaseException | None = None
        self._asking = False
        self._changed = threading.Condition()

    @property
    def replayable(self) -> bool:
        """Is everything that was read still here?"""
        return self._kept is not None

    def _lost(self) -> errors.StatusError:
        # Never an end of the stream: the server would take a part for the whole.
        return errors.ResourceExhausted("the requests outgrew their buffer, and cannot be sent again", local=True)

    def read(self, upload: Upload) -> Iterator[Encoded]:
        """The stream from its start, for as long as the upload goes on."""
        position = 0
        while (message := self._at(position, upload)) is not None:
            yield message
            position += 1

    def leave(self, upload: Upload) -> bool:
        """An upload is over, also for a reader of it that waits. Is everything that was read still here?"""
        with self._changed:
            upload.over = True
            self._changed.notify_all()
            return self.replayable

    def _at(self, position: int, upload: Upload) -> Encoded | None:
        with self._changed:
            while self._asking and position == self._read and not upload.over:
                self._changed.wait()
            if upload.over:
                return None
            if position < self._read:
                if self._kept is None:
                    raise self._lost()
                message = self._kept[position]
                if self._room < 0 and position == self._read - 1:
                    self._kept = (
                        None  # it came between two attempts, and is more than may be kept: this one is the last
                    )
                return message
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._asking = True
        return self._ask(upload)

    def _ask(self, upload: Upload) -> Encoded | None:
        """Take one message from the application; no lock is held while it makes up its mind."""
        message, error = None, None
        try:
            taken = next(self._messages)
            message = encoded(taken, self._encode)
        except StopIteration:
            pass
        except BaseException as raised:
            error = raised
        with self._changed:
            self._asking = False
            self._changed.notify_all()
            if message is None:
                self._ended, self._error = True, error
            else:
                self._keep(message, upload)
        if error is not None:
            raise error
        return message

    def _keep(self, message: Encoded, upload: Upload) -> None:
        self._read += 1
        self._room -= len(message.data)
        if self._room < 0 and not upload.over:  # what comes after an attempt has ended is for the next one: see `_at`
            self._kept = None
        elif self._kept is not None:
            self._kept.append(message)
