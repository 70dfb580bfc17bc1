"""Hooks on messages, composed: what a shell calls for each message, or nothing where nobody is interested."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from interpose import errors
from interpose._call import Call, Hook

_log = logging.getLogger("interpose")

Pass: TypeAlias = Callable[[Any], Any]


def compose(hooks: tuple[Hook, ...]) -> Pass | None:
    """Several taps and maps as one function of a message; None if there are none."""
    if not hooks:
        return None
    if len(hooks) == 1:
        changes, hook = hooks[0]
        return hook if changes else _tapped(hook)
    if not any(changes for changes, _ in hooks):
        return _all_tapped(tuple(hook for _, hook in hooks))

    def pass_on(message: Any) -> Any:
        for changes, hook in hooks:
            if changes:
                message = hook(message)
            else:
                hook(message)
        return message

    return pass_on


def _tapped(tap: Callable[[Any], object]) -> Pass:
    def pass_on(message: Any) -> Any:
        tap(message)
        return message

    return pass_on


def _all_tapped(taps: tuple[Callable[[Any], object], ...]) -> Pass:
    def pass_on(message: Any) -> Any:
        for tap in taps:
            tap(message)
        return message

    return pass_on


def hooked(hook: Callable[[Any], Any], message: Any) -> Any:
    """Call a tap or map; what it raises becomes a status: its own, or INTERNAL."""
    try:
        return hook(message)
    except errors.StatusError:
        raise
    except BaseException as error:
        _log.exception("a tap or map failed")
        raise errors.Internal(f"{getattr(hook, '__qualname__', hook)} raised {type(error).__name__}", local=True) from error


def request_of(call: Call) -> Any:
    """The unary request message, as the hooks leave it."""
    request = call._request
    for changes, hook in call._asks.requests:
        answer = hooked(hook, request)
        request = answer if changes else request
    return request


class Encoded:
    """A request message that was serialized already, because it is kept to be sent again."""

    __slots__ = ("data", "message")

    def __init__(self, message: Any, data: bytes) -> None:
        self.message = message
        self.data = data


def encoder(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """A serializer that takes what was encoded before as it is."""

    def encode(message: Any) -> bytes:
        if type(message) is Encoded:
            return message.data
        return message if serialize is None else serialize(message)

    return encode
