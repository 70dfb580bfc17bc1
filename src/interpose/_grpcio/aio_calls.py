"""Calls of grpc.aio that have ended: asked without waiting, and what they failed with, typed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from interpose import errors
from interpose._metadata import Metadata
from interpose._shell.native import locally_cancelled

AioRpcError = grpc.aio.AioRpcError


def typed(native: BaseException) -> BaseException:
    """What a native call raised, as a flow and the application should see it."""
    if isinstance(native, errors.StatusError):
        return native
    if isinstance(native, AioRpcError):
        kind = errors.native_class(errors.of(native.code()), AioRpcError)
        return kind(
            native.details() or "",
            trailing_metadata=Metadata.trusted(native.trailing_metadata()),
            initial_metadata=native.initial_metadata(),
            debug_error_string=native.debug_error_string() or "",
        )
    if isinstance(native, asyncio.CancelledError):
        return locally_cancelled()
    return native


def at_once(coroutine: Any) -> Any:
    """What a coroutine gives that need not wait: those of a native call that has ended."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    return None


def if_known(coroutine: Any) -> Any:
    """The same, or None where a native interceptor below raised: it does so again, whatever is asked."""
    try:
        return at_once(coroutine)
    except Exception:
        return None


class Ended:
    """A native call that has ended, asked without waiting."""

    __slots__ = ("_native", "_trailing")

    def __init__(self, native: Any, trailing: Any = None) -> None:
        self._native = native
        self._trailing = trailing

    def initial_metadata(self) -> Any:
        return if_known(self._native.initial_metadata())

    def trailing_metadata(self) -> Any:
        return if_known(self._native.trailing_metadata()) if self._trailing is None else self._trailing
