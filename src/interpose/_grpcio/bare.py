"""Response streams that are no calls: native interceptors below ours may answer with a bare iterator.

OpenTelemetry's and py-grpc-prometheus's do. Such a stream has no code, no metadata, no callbacks and no cancel (C-9 in
docs/design/grpc-facts.md); its end is known when it has been read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from interpose._outcome import OK
from interpose._shell.native import LOCALLY_CANCELLED


def as_call(native: Any) -> Any:
    """A native response stream as the shell needs it: itself, unless it is a bare iterator."""
    return native if hasattr(native, "add_callback") else Bare(native)


class Bare:
    """A bare iterator, with as much of a call as can be known of it."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._failure: Any = None  # an error that is a call as well, and knows its trailers

    def __next__(self) -> Any:
        try:
            return next(self._messages)
        except StopIteration:
            self._code = self._code or OK
            raise
        except grpc.RpcError as error:
            self._failure = error
            self._code = self._code or error.code()
            self._details = error.details() or ""
            raise

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Only the reader learns of the end, so nothing is ever called."""
        return True

    def is_active(self) -> bool:
        return self._code is None

    def cancel(self) -> bool:
        """Close the iterator, if it can be: a generator lets its own call go."""
        if self._code is not None:
            return False
        self._code, self._details = grpc.StatusCode.CANCELLED, LOCALLY_CANCELLED
        close = getattr(self._messages, "close", None)
        if close is not None:
            with contextlib.suppress(ValueError):  # another thread is reading: it finds the RPC over
                close()
        return True

    def code(self) -> grpc.StatusCode:
        return self._code or grpc.StatusCode.UNKNOWN

    def exception(self) -> Any:
        return self._failure

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> Any:
        return () if self._failure is None else self._failure.initial_metadata()

    def trailing_metadata(self) -> Any:
        return () if self._failure is None else self._failure.trailing_metadata()

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED
