"""Ending an RPC from outside of its handler, so that its client reads a status and not that a connection broke."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import suppress
from typing import Any

import grpc

from interpose._executed import MAY_HAVE_RUN
from interpose.mechanisms import pushback

DETAILS = "the server is stopping"
PUSHBACK = 1.0  # seconds; as ConcurrencyLimit asks for
TRAILING = (MAY_HAVE_RUN, pushback.pair(PUSHBACK))

_server: Any = importlib.import_module("grpc._server")
_cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")


def end(context: Any) -> bool:
    """End an RPC of a sync server; False if this version of grpcio does not let us.

    Nothing public sends a status but the end of the handler, which cannot be had from outside. So it is done as grpc
    does it there. For grpc the client has gone from then on: whatever the handler still sends is dropped, and it finds
    `is_active()` False.
    """
    try:
        state, call = context._state, context._rpc_event.call
        with state.condition:
            if state.client is _server._CANCELLED or state.statused:
                return True
            state.trailing_metadata = (*(state.trailing_metadata or ()), *TRAILING)
            state.code, state.details = None, DETAILS.encode()
            _server._abort(state, call, _cygrpc.StatusCode.unavailable, DETAILS.encode())
            state.client = _server._CANCELLED
            state.condition.notify_all()  # a handler that waits for a message, or for one to be sent
    except Exception:  # of grpc's private parts, in a version that we do not know
        return False
    return True


async def end_on_loop(context: Any, task: asyncio.Task[Any] | None, patience: float) -> None:
    """End an RPC of an asyncio server, and cancel the task of its handler. patience: seconds for the status to be sent."""
    with suppress(Exception):  # it always raises; and what has ended meanwhile needs nothing
        async with asyncio.timeout(patience):
            if hasattr(context, "read"):
                await context.abort(grpc.StatusCode.UNAVAILABLE, DETAILS, TRAILING)
            else:  # that of a plain handler, which waits for the loop
                await asyncio.to_thread(context.abort, grpc.StatusCode.UNAVAILABLE, DETAILS, TRAILING)
    if task is not None:
        task.cancel()
