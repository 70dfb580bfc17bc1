"""Observations: what a caller can see of a value or an exception, without what no two RPCs have in common."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from interpose import errors

Seen = dict[str, Any]  # what is looked at → what is there
Sight = tuple[str, Seen]  # a step, and what was seen

KIN: dict[str, type] = {
    "grpc.RpcError": grpc.RpcError,
    "grpc.RpcContext": grpc.RpcContext,
    "grpc.Call": grpc.Call,
    "grpc.Future": grpc.Future,
    "grpc.FutureTimeoutError": grpc.FutureTimeoutError,
    "grpc.FutureCancelledError": grpc.FutureCancelledError,
    "grpc.aio.RpcContext": grpc.aio.RpcContext,
    "grpc.aio.Call": grpc.aio.Call,
    "grpc.aio.UnaryUnaryCall": grpc.aio.UnaryUnaryCall,
    "grpc.aio.UnaryStreamCall": grpc.aio.UnaryStreamCall,
    "grpc.aio.StreamUnaryCall": grpc.aio.StreamUnaryCall,
    "grpc.aio.StreamStreamCall": grpc.aio.StreamStreamCall,
    "grpc.aio.AioRpcError": grpc.aio.AioRpcError,
    "grpc.aio.UsageError": grpc.aio.UsageError,
    "asyncio.CancelledError": asyncio.CancelledError,
    "asyncio.InvalidStateError": asyncio.InvalidStateError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "Exception": Exception,
    "errors.StatusError": errors.StatusError,
}

LOCALLY_CANCELLED = "Locally cancelled by application!"  # grpcio's words

OF_AN_ERROR = ("code", "details", "debug_error_string", "initial_metadata", "trailing_metadata")
OF_A_CALL = ("done", "running", "cancelled", "is_active", "time_remaining")


def of(value: Any, call: Any = None) -> Seen:
    """What can be seen of a value that an operation gave."""
    if value is grpc.aio.EOF:
        return {"value": "EOF"}
    if isinstance(value, grpc.StatusCode):
        return {"value": value.name}
    if isinstance(value, float | int) and not isinstance(value, bool):
        return {"value": "time is left" if value > 0 else "no time is left"}
    if isinstance(value, TracebackType):
        return {"value": "a traceback"}
    if isinstance(value, grpc.RpcError | grpc.RpcContext | grpc.aio.Call | BaseException):
        return of_a_failure(value, call)
    return {"value": value}


def kin(thing: Any) -> tuple[str, ...]:
    """The classes of grpc, and of Python, that it is an instance of."""
    return tuple(name for name, kind in KIN.items() if isinstance(thing, kind))


def of_metadata(metadata: Any) -> Seen:
    """Pairs without grpc's own, and how they can be got at."""
    pairs = [pair for pair in metadata if pair[0].startswith("x-")]
    return {
        "value": tuple(map(tuple, pairs)),
        "tuple": isinstance(metadata, tuple),
        "aio.Metadata": isinstance(metadata, grpc.aio.Metadata),
        "named": all(hasattr(pair, "key") and hasattr(pair, "value") for pair in pairs),
        "looked up": metadata["x-trailing"] if hasattr(metadata, "get_all") and "x-trailing" in metadata else None,
    }


def of_a_repr(thing: Any) -> Seen:
    """What its `repr` and `str` tell: never the same text, as it has addresses, times and names of classes."""
    texts = {"repr": repr(thing), "str": str(thing)}
    return {f"{name} tells {key}": value for name, text in texts.items() for key, value in of_a_text(text).items()}


def of_a_text(text: str) -> Seen:
    """What a text tells."""
    return {
        "the status": "StatusCode." in text,
        "the details": "as ordered" in text or "Locally cancelled" in text or "Deadline Exceeded" in text,
        "the core's text": re.search(r'debug_error_string = "(?!None")[^"]', text) is not None,
        "an address in memory": " at 0x" in text,
        "some name": len(text) > 10,
    }


def of_a_failure(error: Any, call: Any) -> Seen:
    """What can be seen of an exception: what it is, and all that it answers. call: from which it came."""
    seen: Seen = {"kin": kin(error), "it is the call": error is call}
    if not isinstance(error, grpc.RpcError | grpc.RpcContext):
        return seen | {"text": str(error)}
    # Asked is only what grpc answers (rows debug-text and metadata-behind-a-cancel); what came before the end is a race.
    asked = ("code", "details") if error.details() == LOCALLY_CANCELLED else OF_AN_ERROR
    for name in asked if isinstance(error, grpc.aio.AioRpcError) else (*asked, *OF_A_CALL):
        seen |= {f"{name}(): {key}": value for key, value in answer(lambda name=name: ask(error, name)).items()}
    return seen | of_a_repr(error)


def ask(thing: Any, name: str) -> Seen:
    """Ask one thing of an error or a call."""
    return shown(name, getattr(thing, name)(), thing)


def shown(name: str, value: Any, call: Any) -> Seen:
    """What an operation of that name gave."""
    if name == "details" and "Deadline Exceeded" in value:  # now and then the core puts words around it
        value = "Deadline Exceeded"
    if name.endswith("_metadata"):
        return of_metadata(value)
    if name == "debug_error_string":
        return {"value": "text" if value else "nothing"}
    return of(value, call)


def answer(operation: Callable[[], Seen]) -> Seen:
    """What an operation gives, or raises."""
    try:
        return operation()
    except Exception as error:
        return raised(error, None)


def raised(error: BaseException, call: Any) -> Seen:
    """What can be seen when an operation raises."""
    if isinstance(error, AssertionError | TimeoutError):  # of the test itself
        raise error
    if isinstance(error, NotImplementedError):
        return {"value": "NotImplementedError"}
    return {f"raises: {key}": value for key, value in of_a_failure(error, call).items()}
