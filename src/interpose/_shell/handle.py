"""What the call objects of both stacks answer alike, from their exchange."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from interpose._shell.native import debug_text


class Handle:
    """A call as an application holds it, over an exchange."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange  # that of the shell

    @property
    def _kind(self) -> str:
        return type(self).__name__

    def done(self) -> bool:
        """Has it ended, or is it about to since it was cancelled?"""
        # A cancelled one is done, as futures are, though its flows may still wait for the outcome or for something else.
        return bool(self._exchange.outcome is not None or self._exchange.cancelled)

    def time_remaining(self) -> Any:
        """Seconds until the deadline, or None without one."""
        exchange = self._exchange
        return None if exchange.deadline is None else max(exchange.deadline - exchange.route.clock.now(), 0.0)

    def cancel(self) -> bool:
        """Cancel it, whatever it is doing: sending, streaming, or waiting to be sent again. False if it has ended."""
        cancelled: bool = self._exchange.cancel()
        return cancelled

    def _at_end(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(self)` at the end; at once if that was before."""
        if not self._exchange.add_callback(partial(fn, self)):
            fn(self)

    def __repr__(self) -> str:
        outcome = self._exchange.outcome
        if outcome is None:
            return f"<{self._kind} of {self._exchange.route.method}, active>"
        described = "" if outcome.ok else f'\tdebug_error_string = "{debug_text(outcome)}"\n'
        return (
            f"<{self._kind} of RPC that terminated with:\n"
            f'\tstatus = {outcome.code}\n\tdetails = "{outcome.details}"\n{described}>'
        )


class Droppable:
    """One that is cancelled when its application drops it."""

    _exchange: Any

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.abandon()


class Stream(Droppable, Handle):
    """A response stream: dropped, it is cancelled, whatever callbacks wait for its end.

    They are then given another call object of the same RPC.
    """

    def _at_end(self, fn: Callable[[Any], object]) -> None:
        # Held by the exchange, a callback that held the stream would keep it from ever being dropped.
        exchange, kind, stream = self._exchange, type(self), weakref.ref(self)
        if not exchange.add_callback(lambda: fn(stream() or kind(exchange))):
            fn(self)
