"""Request streams on their way out: counted, shown to hooks, and kept where they may have to be sent again."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import Any

from interpose import errors
from interpose._call import Call
from interpose._messages import compose
from interpose._shell import uploads
from interpose._shell.replay import WAIT, Kept, Need, Packing, Reader, Replay


class Requests:
    """The request stream of an RPC: the application's iterator, from which each attempt makes its upload."""

    __slots__ = ("_changed", "_context", "_encode", "_messages", "_replay")

    def __init__(self, messages: Iterable[Any], encode: Callable[[Any], bytes]) -> None:
        self._messages = iter(messages)
        self._encode = encode
        self._replay: Replay | None = None
        self._changed: Any = None  # the condition around it
        self._context = copy_context()

    def run(self, start: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a native call in the application's context: grpc reads the stream in it, whoever's thread this is."""
        return self._context.copy().run(start, *args, **kwargs)

    def upload(self, call: Call) -> Upload:
        """The stream for one attempt; from its start if the call is buffered, else from where it stands."""
        if call._asks.buffer is not None and self._replay is None:
            self._replay, self._changed = Replay(call._asks.buffer), threading.Condition()
        if self._replay is None:
            return UploadOnce(self._messages, call)
        return UploadKept(self._messages, self._replay, self._changed, Packing(call, self._encode))

    @property
    def repeatable(self) -> bool:
        """Can another attempt have all of it?"""
        return self._replay is None or self._replay.replayable


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
            raise self.broken_by(error) from error  # grpc's thread bears an Exception only

    @abstractmethod
    def _outgoing(self) -> Iterator[Any]:
        """The messages as they are sent."""


class UploadOnce(uploads.Once, Upload):
    """One whose messages are not kept: they come straight from the application."""

    __slots__ = ("_hook", "_messages")

    def __init__(self, messages: Iterator[Any], call: Call) -> None:
        super().__init__()
        self._messages = messages
        self._hook = compose(call._asks.requests)

    def _outgoing(self) -> Iterator[Any]:
        if not self._begin():
            return iter(())
        return self._messages if self._hook is None else map(self._hook, self._messages)


class UploadKept(Upload):
    """One whose messages are kept. The thread that comes first asks the application, and the others wait."""

    __slots__ = ("_changed", "_messages", "_packing", "_reader", "_replay")

    def __init__(self, messages: Iterator[Any], replay: Replay, changed: threading.Condition, packing: Packing) -> None:
        super().__init__()
        self._messages = messages
        self._replay = replay
        self._changed = changed
        self._packing = packing
        self._reader = Reader()

    def _outgoing(self) -> Iterator[Any]:
        while (kept := self._next()) is not None:
            message = self._packing.packed(kept)
            if kept.size is None:
                with self._changed:
                    self._replay.measured(kept, len(message.data))
            yield message

    def _next(self) -> Kept | None:
        while True:
            with self._changed:
                while (found := self._replay.next_for(self._reader)) is WAIT:
                    self._changed.wait()
            if not isinstance(found, Need):
                return found
            self._ask()  # it is not WAIT

    def _ask(self) -> None:
        """Take one message from the application; no lock is held while it makes up its mind."""
        kept, failed = None, None
        try:
            kept = self._packing.kept(next(self._messages))
        except StopIteration:
            pass
        except BaseException as error:
            failed = error
        with self._changed:
            if kept is None:
                self._replay.finish(failed)
            else:
                self._replay.came(kept)
            self._changed.notify_all()

    def close(self) -> bool:
        with self._changed:
            self._changed.notify_all()  # also a thread of it that waits
            return self._replay.leave(self._reader)
