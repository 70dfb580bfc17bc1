"""The messages that a call sends: of its argument, or of the standard input as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from interpose.cli.messages import BadMessage, message_of, values

EMPTY = "{}"


class Requests:
    """The requests of one call. lines: of JSON. ready: are all lines there? Then all are read before anything is sent."""

    def __init__(self, method: Any, pool: Any, lines: Iterable[str], *, ready: bool) -> None:
        kind = method.input_type
        messages = (message_of(value, kind, pool) for value in values(lines))
        self._method = method
        self._messages: Iterable[Any] = list(messages) if ready else messages
        self._begun = threading.Event()
        self._cancel: Callable[[], object] | None = None
        self.fault: BadMessage | None = None

    def one(self) -> Any:
        """The single request of a method that takes one. BadMessage if there are more, or none."""
        messages = list(self._messages)
        if len(messages) != 1:
            raise BadMessage(f"{self._method.full_name} takes one message, not {len(messages)}")
        return messages[0]

    def stream(self) -> Iterator[Any]:
        """The requests of a stream. One that is bad cancels the call: its end would look like that of a whole stream."""
        try:
            yield from self._messages
        except BadMessage as fault:
            self.fault = fault
            self._begun.wait()
            assert self._cancel is not None
            self._cancel()

    def begun(self, cancel: Callable[[], object]) -> None:
        """The call is under way, and this cancels it."""
        self._cancel = cancel
        self._begun.set()
