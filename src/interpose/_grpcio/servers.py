"""Whether the client of an RPC on a sync server has gone, as grpcio keeps it."""

from __future__ import annotations

import importlib
from typing import Any


def privates(module: str = "grpc._server") -> tuple[Any, Any]:
    """grpc's context on a sync server, and what its private state says of a client that has gone.

    To read that is a tenth of what `is_active()` costs, which takes a lock. None twice in a version that keeps it in
    another way: then `is_active()` is asked.
    """
    try:
        server: Any = importlib.import_module(module)
        sets_state = "_state" in server._Context.__init__.__code__.co_names
        sets_client = "client" in server._RPCState.__init__.__code__.co_names
        return (server._Context, server._CANCELLED) if sets_state and sets_client else (None, None)
    except (ImportError, AttributeError):
        return None, None


NATIVE, GONE = privates()
