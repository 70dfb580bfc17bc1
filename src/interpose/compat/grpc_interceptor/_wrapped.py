"""Handlers as an interceptor has wrapped them: once per method, though grpc asks for it at every RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from interpose._shell.handlers import _MAKE, Compiled, function_of, kind_served

Wrap: TypeAlias = Callable[[Any, Any, str], Any]  # of interceptor, handler and method name: another handler

_KEPT = "_interpose_wrapped"


class Wrapped(Compiled):
    """What one interceptor has made of the handlers that it met."""

    def __init__(self, owner: Any, wrap: Wrap) -> None:
        super().__init__(lambda handler, name: wrap(owner, handler, name))
        self.owner = owner

    def handler(self, name: str) -> Any:
        """The handler that was last met under this name; None if there was none."""
        known = self._known.get(name)
        return None if known is None else known[0]

    def __reduce__(self) -> Any:
        # An interceptor that is copied or pickled leaves this behind: its copy makes its own.
        return type(None), ()


def wrapped(interceptor: Any, wrap: Wrap) -> Wrapped:
    """The interceptor's wrapped handlers. They are set on it from outside: users' classes do not call our `__init__`."""
    known: Wrapped | None = interceptor.__dict__.get(_KEPT)
    if known is None or known.owner is not interceptor:  # copy.copy takes it along
        known = Wrapped(interceptor, wrap)
        object.__setattr__(interceptor, _KEPT, known)  # a frozen dataclass may be an interceptor
    return known


def met(interceptor: Any, name: str) -> Any:
    """The handler that the interceptor last met under this name; None if it is called by hand."""
    known: Wrapped | None = interceptor.__dict__.get(_KEPT)
    return None if known is None else known.handler(name)


def behaviour(handler: Any) -> Any:
    """The handler's function, by the kind of RPC that it says it serves."""
    function = function_of(handler)
    if function is None:
        raise RuntimeError("RPC handler implementation does not exist")
    return function


def remade(handler: Any, behave: Any) -> Any:
    """The handler with another function, which runs in the thread pool that the old one asked for."""
    pool = getattr(function_of(handler), "experimental_thread_pool", None)
    if pool is not None:
        behave.experimental_thread_pool = pool
    return _MAKE[kind_served(handler)](behave, handler.request_deserializer, handler.response_serializer)
