"""Hooks on messages, composed: what a shell calls for each message, or nothing if there is no hook."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from interpose import errors
from interpose._call import Call, Hook
from interpose._flow import name_of
from interpose._metadata import Metadata

_log = logging.getLogger("interpose")

Pass: TypeAlias = Callable[[Any], Any]


def compose(hooks: tuple[Hook, ...]) -> Pass | None:
    """Several taps and maps as one function of a message; None if there are none.

    What one of them raises becomes a status: its own if it is a StatusError, else INTERNAL. A map that makes None of a
    message is at fault too: grpc takes None for the end of a stream, or for an empty message.
    """
    if not hooks:
        return None
    if len(hooks) == 1:
        return _mapped(hooks[0]) if hooks[0].changes else _tapped(hooks[0])
    if not changing(hooks):
        return _all_tapped(hooks)
    return _all(hooks)


def changing(hooks: tuple[Hook, ...]) -> bool:
    """Is there a map among them?"""
    return any(hook.changes for hook in hooks)


# Four shapes, and the try in each, so that a message costs no more frames than it has hooks and one.


def _mapped(hook: Hook) -> Pass:
    change = hook.function

    def pass_on(message: Any) -> Any:
        try:
            changed = change(message)
        except BaseException as error:
            _fail(hook, error)
        if changed is None and message is not None:
            _forgot(hook)
        return changed

    return pass_on


def _tapped(hook: Hook) -> Pass:
    tap = hook.function

    def pass_on(message: Any) -> Any:
        try:
            tap(message)
        except BaseException as error:
            _fail(hook, error)
        return message

    return pass_on


def _all_tapped(hooks: tuple[Hook, ...]) -> Pass:
    def pass_on(message: Any) -> Any:
        hook: Any = None
        try:
            for hook in hooks:
                hook.function(message)
        except BaseException as error:
            _fail(hook, error)
        return message

    return pass_on


def _all(hooks: tuple[Hook, ...]) -> Pass:
    def pass_on(message: Any) -> Any:
        hook: Any = None
        try:
            for hook in hooks:
                answer = hook.function(message)
                if hook.changes:
                    if answer is None and message is not None:
                        _forgot(hook)
                    message = answer
        except BaseException as error:
            _fail(hook, error)
        return message

    return pass_on


def _fail(hook: Hook, error: BaseException) -> NoReturn:
    if isinstance(error, errors.StatusError):
        raise error
    blame = f"{_named(hook)} raised {type(error).__name__}"
    _log.error("%s", blame, exc_info=error)
    raise errors.Internal(blame, local=True) from error


def _forgot(hook: Hook) -> NoReturn:
    raise errors.Internal(f"{_named(hook)} mapped a message to None: return the message", local=True)


def _named(hook: Hook) -> str:
    """The interceptor and its function."""
    function = name_of(hook.function)
    return function if hook.asker is None else f"interceptor {name_of(hook.asker)}: {function}"


def request_of(call: Call) -> Any:
    """The unary request message, as the hooks leave it."""
    hook = compose(call._asks.requests)
    return call._request if hook is None else hook(call._request)


def show_initial_metadata(call: Call, metadata: Any) -> None:
    """Let taps see what the server sent in front of the response."""
    for hook in call._asks.on_initial_metadata:
        _tapped(hook)(Metadata.trusted(metadata))
