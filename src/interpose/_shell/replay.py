"""Request messages that are kept, so that several attempts can each send the whole stream.

Pure: a shell asks `next_for` on behalf of a reader, asks the application when it says so, and hands in what came. On sync
it holds a lock around each of these calls.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from interpose._call import Call, Overflowed
from interpose._messages import changing, compose
from interpose._shell.codec import Encoded, encoded


class Need(Enum):
    """What a reader has to do before it gets its next message."""

    ASK = "ask the application for a message, then hand it in"
    WAIT = "wait until something changes"


ASK, WAIT = Need.ASK, Need.WAIT


class Kept:
    """A message as the application gave it; its bytes and their number as far as they are known."""

    __slots__ = ("encoded", "message", "size")

    def __init__(self, message: Any, encoded: Encoded | None) -> None:
        self.message = message
        self.encoded = encoded
        self.size = None if encoded is None else len(encoded.data)


class Packing:
    """How one attempt makes bytes of the messages that it keeps and sends."""

    __slots__ = ("_changes", "_encode", "_hook")

    def __init__(self, call: Call, encode: Callable[[Any], bytes]) -> None:
        self._hook = compose(call._asks.requests)
        self._changes = changing(call._asks.requests)
        self._encode = encode

    def kept(self, message: Any) -> Kept:
        """To be kept: serialized at once, unless a map has still to make of it what the serializer takes."""
        return Kept(message, None if self._changes else encoded(message, self._encode))

    def packed(self, kept: Kept) -> Encoded:
        """To be sent: as taps and maps leave it."""
        message = kept.message if self._hook is None else self._hook(kept.message)
        if kept.encoded is not None and not self._changes:
            return kept.encoded
        return encoded(message, self._encode)


class Reader:
    """Where one attempt is in the stream."""

    __slots__ = ("handed", "over", "position")

    def __init__(self) -> None:
        self.position = 0
        self.handed: Kept | None = None  # what came while it waited: its own, whatever becomes of the buffer
        self.over = False


class Replay:
    """A request stream that can be read several times, as long as what was read fits in `limit` bytes.

    One reader at a time asks the application for the next message. Past the limit only the last message is kept: the
    readers that have had it or come to it go on; one that is further behind has lost what it needs.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._kept: list[Kept] | None = []
        self._last: Kept | None = None
        self._read = 0  # messages taken from the application
        self._ended = False
        self._error: BaseException | None = None
        self._asking = False
        self._waiting: list[Reader] = []  # in front, for the next message

    @property
    def replayable(self) -> bool:
        """Is everything that was read still here?"""
        return self._kept is not None

    def next_for(self, reader: Reader) -> Kept | Need | None:
        """The reader's next message, what it has to do for one, or None at the end; raises what the stream failed with."""
        if reader.over:
            return None
        if reader.handed is not None:
            kept, reader.handed = reader.handed, None
        elif reader.position < self._read:
            kept = self._at(reader.position)
        else:
            return self._in_front(reader)
        reader.position += 1
        return kept

    def _at(self, position: int) -> Kept:
        if self._kept is None:
            if self._last is not None and position == self._read - 1:
                return self._last
            # Never an end of the stream: the server would take a part for the whole.
            raise Overflowed("the requests outgrew their buffer, and cannot be sent again", local=True)
        kept = self._kept[position]
        if self._room < 0 and position == self._read - 1:
            self._kept = None  # it came between two attempts, and is more than may be kept: this one is the last
        return kept

    def _in_front(self, reader: Reader) -> Need | None:
        if self._error is not None:
            raise self._error
        if self._ended:
            return None
        if reader not in self._waiting:
            self._waiting.append(reader)
        if self._asking:
            return WAIT
        self._asking = True
        return ASK

    def came(self, kept: Kept) -> None:
        """The application gave this message."""
        self._asking = False
        self._read += 1
        self._last = kept
        if self._kept is not None:
            self._kept.append(kept)
        taken = False
        for reader in self._waiting:
            if not reader.over:
                reader.handed, taken = kept, True
        self._waiting.clear()
        self._room -= kept.size or 0
        if self._room < 0 and taken:  # what comes after an attempt has ended is for the next one: see `_at`
            self._kept = None

    def finish(self, error: BaseException | None = None) -> None:
        """The stream has ended, or broke with `error`; only the first of these counts."""
        self._asking = False
        if not self._ended:
            self._ended, self._error = True, error

    def measured(self, kept: Kept, size: int) -> None:
        """A reader has sent a message whose bytes were not known before."""
        if kept.size is None:
            kept.size = size
            self._room -= size
            if self._room < 0:
                self._kept = None

    def leave(self, reader: Reader) -> bool:
        """The reader's attempt is over. Is everything that was read still here?"""
        reader.over = True
        return self.replayable
