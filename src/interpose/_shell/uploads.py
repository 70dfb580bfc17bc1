"""Request streams on their way out: counted, shown to hooks, and kept where they may have to be sent again.

A shell adds how messages are waited for: it iterates what an upload gives as outgoing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ClassVar

from interpose import errors
from interpose._call import Call
from interpose._messages import compose
from interpose._shell.replay import Packing, Reader, Replay


class Source(ABC):
    """The application's messages, and those that are kept of them, for several attempts to read."""

    def __init__(self, messages: Any, replay: Replay) -> None:
        self._messages = messages
        self.replay = replay

    @abstractmethod
    def leave(self, reader: Reader) -> bool:
        """The reader's attempt is over, and it waits no more. Is everything that was read still here?"""


class Requests(ABC):
    """The request stream of an RPC: what its application sends, from which each attempt makes its upload."""

    __slots__ = ("_encode", "_messages", "_sources")

    once: ClassVar[type[Once]]  # the uploads of the shell
    kept: ClassVar[type[Again]]

    def __init__(self, messages: Any, encode: Callable[[Any], bytes]) -> None:
        self._messages = messages
        self._encode = encode
        self._sources: list[Any] = []  # of those that are there the first counts

    @property
    def _source(self) -> Any:
        """Where messages are read that are kept; None as long as none are."""
        return self._sources[0] if self._sources else None

    def upload(self, call: Call) -> Any:
        """The stream for one attempt; from its start if the call is buffered, else from where it is."""
        if call._asks.buffer is not None and not self._sources:
            # Two copies may begin at once, on two threads. Then both make a source, and read the one that came first: from two
            # sources each would be given a part of the messages.
            self._sources.append(self._keep(Replay(call._asks.buffer)))
        source = self._source
        if source is None:
            return self.once(self._messages, call, self._encode)
        return self.kept(source, Packing(call, self._encode))

    @abstractmethod
    def _keep(self, replay: Replay) -> Any:
        """From here on messages are kept: where they are read from."""

    @property
    def repeatable(self) -> bool:
        """Can another attempt have all of it?"""
        source = self._source
        return source is None or bool(source.replay.replayable)


class Upload(ABC):
    """The request stream of one attempt: iterate it once."""

    __slots__ = ("error", "sent")

    def __init__(self) -> None:
        self.sent = 0
        # What broke it; grpc itself only says, or shows, that something did.
        self.error: errors.StatusError | None = None

    def broken_by(self, error: BaseException) -> errors.StatusError:
        """What the attempt fails with, since this was raised while its messages were made."""
        if not isinstance(error, errors.StatusError):
            cause, error = error, errors.Unknown("Exception iterating requests!", local=True)  # sync grpcio's words
            error.__cause__ = cause
        self.error = error
        return error

    @contextmanager
    def noting(self) -> Generator[None]:
        """What is raised in here broke it."""
        try:
            yield
        except Exception as error:
            self.broken_by(error)
            raise

    @abstractmethod
    def close(self) -> bool:
        """The attempt has ended. Could its requests be sent again?"""


class Once(Upload):
    """One whose messages are not kept: they come straight from the application."""

    __slots__ = ("_begun", "_encode", "_hook", "_messages", "_over")

    def __init__(self, messages: Any, call: Call, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._messages = messages
        self._hook = compose(call._asks.requests)
        self._encode = encode
        self._over = False
        self._begun = False

    def _begin(self) -> bool:
        """Take messages from the application; False for one that comes too late: they belong to the next attempt."""
        self._begun = True  # before the look: `close` does the two in the other order, and one of both sees the other
        return not self._over

    def close(self) -> bool:
        self._over = True
        return not self._begun  # once begun it may hold a message that it has not sent


class Again(Upload):
    """One whose messages are kept."""

    __slots__ = ("_packing", "_reader", "_source")

    def __init__(self, source: Any, packing: Packing) -> None:
        super().__init__()
        self._source = source
        self._packing = packing
        self._reader = Reader()

    def close(self) -> bool:
        again: bool = self._source.leave(self._reader)
        return again
