"""Hooks on messages, composed: what a shell calls for each message, or nothing where nobody is interested."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from interpose import errors
from interpose._call import Call, Hook
from interpose._metadata import Metadata

_log = logging.getLogger("interpose")

Pass: TypeAlias = Callable[[Any], Any]


def compose(hooks: tuple[Hook, ...]) -> Pass | None:
    """Several taps and maps as one function of a message; None if there are none.

    What one of them raises becomes a status: its own if it is a StatusError, else INTERNAL.
    """
    if not hooks:
        return None
    if len(hooks) == 1:
        changes, hook = hooks[0]
        return _mapped(hook) if changes else _tapped(hook)
    if not any(changes for changes, _ in hooks):
        return _all_tapped(tuple(hook for _, hook in hooks))
    return _all(hooks)


# Four shapes, and the try in each, so that a message costs no more frames than it has hooks and one.


def _mapped(change: Pass) -> Pass:
    def pass_on(message: Any) -> Any:
        try:
            return change(message)
        except BaseException as error:
            _fail(change, error)

    return pass_on


def _tapped(tap: Callable[[Any], object]) -> Pass:
    def pass_on(message: Any) -> Any:
        try:
            tap(message)
        except BaseException as error:
            _fail(tap, error)
        return message

    return pass_on


def _all_tapped(taps: tuple[Callable[[Any], object], ...]) -> Pass:
    def pass_on(message: Any) -> Any:
        tap: Any = None
        try:
            for tap in taps:
                tap(message)
        except BaseException as error:
            _fail(tap, error)
        return message

    return pass_on


def _all(hooks: tuple[Hook, ...]) -> Pass:
    def pass_on(message: Any) -> Any:
        hook: Any = None
        try:
            for changes, hook in hooks:
                answer = hook(message)
                if changes:
                    message = answer
        except BaseException as error:
            _fail(hook, error)
        return message

    return pass_on


def _fail(hook: Any, error: BaseException) -> NoReturn:
    if isinstance(error, errors.StatusError):
        raise error
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    _log.error("%s, a tap or map, raised", name, exc_info=error)
    raise errors.Internal(f"{name} raised {type(error).__name__}", local=True) from error


def request_of(call: Call) -> Any:
    """The unary request message, as the hooks leave it."""
    hook = compose(call._asks.requests)
    return call._request if hook is None else hook(call._request)


def show_initial_metadata(call: Call, metadata: Any) -> None:
    """Let taps see what the server sent in front of the response."""
    for tap in call._asks.on_initial_metadata:
        _tapped(tap)(Metadata.trusted(metadata))
