"""Calls of sync grpcio that have ended: what they failed with, typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import grpc

from interpose import errors
from interpose._grpcio.blocking import text
from interpose._metadata import Metadata


class InactiveCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # not generic at run time
    """The part of a raised error that is grpc's: a call that has ended."""

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def add_callback(self, callback: Callable[[], object]) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Any:
        raise self  # type: ignore[misc]  # always mixed into a StatusError

    def exception(self, timeout: float | None = None) -> Any:
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        return traceback_of(self)  # type: ignore[arg-type]

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        fn(self)


def traceback_of(error: BaseException) -> Any:
    try:
        raise error  # noqa: TRY301  that gives it one
    except BaseException:
        return sys.exc_info()[2]


def failed(native: Any) -> BaseException:
    """What a native call failed with: typed if it has a status; the bug of a native interceptor below as it is."""
    error = None if native.cancelled() else native.exception()
    return typed(native) if error is None or isinstance(error, grpc.RpcError) else error


def typed(native: Any) -> errors.StatusError:
    """The typed error of a native call that has failed."""
    kind = errors.native_class(errors.of(native.code()), InactiveCall)
    # Not by asking it: not every call has a text of the core's (threads that asked stood still with grpcio 1.85.1).
    state = getattr(native, "_state", None)
    described = text(getattr(state, "debug_error_string", None))
    return kind(
        native.details() or "",
        trailing_metadata=Metadata.trusted(native.trailing_metadata()),
        initial_metadata=native.initial_metadata(),
        debug_error_string=described,
        local=state is not None and not described,  # the core describes every status that a server sent
    )


def known(error: BaseException, local: bool = False) -> BaseException:
    """What grpc raised: typed if it has a status, as it is otherwise. local: no server was asked."""
    if isinstance(error, grpc.RpcError) and not isinstance(error, errors.StatusError):
        error = typed(error)
        error.local |= local
    return error


def single_threaded(native: Any) -> bool:
    """Is it a stream that has no thread of grpc's (an experimental channel option)?"""
    return "SingleThreaded" in type(native).__name__
