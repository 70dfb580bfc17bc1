"""Request streams on their way out, on threads: grpc reads each upload on one of its own."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import Any

from interpose import errors
from interpose._shell import uploads
from interpose._shell.replay import WAIT, Kept, Need, Packing, Reader, Replay


class Source(uploads.Source):
    """The thread that comes first asks the application for the next message, and the others wait."""

    def __init__(self, messages: Iterator[Any], replay: Replay) -> None:
        super().__init__(messages, replay)
        self._changed = threading.Condition()

    def next_for(self, reader: Reader, packing: Packing) -> Kept | None:
        """The reader's next message, or None at the end."""
        while True:
            with self._changed:
                while (found := self.replay.next_for(reader)) is WAIT:
                    self._changed.wait()
            if not isinstance(found, Need):
                return found
            self._ask(packing)  # it is not WAIT

    def _ask(self, packing: Packing) -> None:
        """Take one message from the application; no lock is held while it makes up its mind."""
        kept, failed = None, None
        try:
            kept = packing.kept(next(self._messages))
        except StopIteration:
            pass
        except BaseException as error:
            failed = error
        with self._changed:
            if kept is None:
                self.replay.finish(failed)
            else:
                self.replay.came(kept)
            self._changed.notify_all()

    def measured(self, kept: Kept, size: int) -> None:
        """A reader has made bytes of a message; how many is mostly known."""
        if kept.size is None:
            with self._changed:
                self.replay.measured(kept, size)

    def leave(self, reader: Reader) -> bool:
        with self._changed:
            self._changed.notify_all()  # also a thread of it that waits
            return self.replay.leave(reader)


class Upload(uploads.Upload):
    """The request stream of one attempt: iterate it once, on whatever thread grpc gives it."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        closed = False
        try:
            for message in self._outgoing():
                self.sent += 1
                closed = True
                yield message
                closed = False
        except errors.StatusError as error:
            raise self.broken_by(error)  # noqa: B904  it is the same
        except BaseException as error:
            if closed:  # not the application's: grpc wants no more
                raise
            raise self.broken_by(error) from error  # grpc's thread handles an Exception only

    @abstractmethod
    def _outgoing(self) -> Iterator[Any]:
        """The messages as they are sent."""


class UploadOnce(uploads.Once, Upload):
    """One whose messages are not kept."""

    __slots__ = ()

    def _outgoing(self) -> Iterator[Any]:
        if not self._begin():
            return iter(())
        messages: Iterator[Any] = self._messages
        return messages if self._hook is None else map(self._hook, messages)


class UploadKept(uploads.Again, Upload):
    """One whose messages are kept."""

    __slots__ = ()

    def _outgoing(self) -> Iterator[Any]:
        while (kept := self._source.next_for(self._reader, self._packing)) is not None:
            message = self._packing.packed(kept)
            self._source.measured(kept, len(message.data))
            yield message


class Requests(uploads.Requests):
    """The request stream of an RPC: the application's iterator."""

    __slots__ = ("_context",)

    once, kept = UploadOnce, UploadKept

    def __init__(self, messages: Iterable[Any], encode: Callable[[Any], bytes]) -> None:
        super().__init__(iter(messages), encode)
        self._context = copy_context()

    def run(self, start: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a native call in the application's context: grpc reads the stream in it, on any thread."""
        return self._context.copy().run(start, *args, **kwargs)

    def _keep(self, replay: Replay) -> Source:
        return Source(self._messages, replay)
