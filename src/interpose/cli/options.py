"""Options that several commands share: a command names a group of them, and is given one value made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])


def group(
    options: Sequence[Callable[[Any], Any]], name: str, make: Callable[..., Any], *names: str
) -> Callable[[Command], Command]:
    """A decorator that gives a command these options, and of them the one argument `name`.

    make: called with the options' values, whose names are `names`.
    """

    def decorate(command: Command) -> Command:
        def called(**values: Any) -> Any:
            values[name] = make(**{each: values.pop(each) for each in names})
            return command(**values)

        made: Any = called
        made.__doc__, made.__click_params__ = command.__doc__, getattr(command, "__click_params__", [])
        for option in reversed(options):
            made = option(made)
        result: Command = made
        return result

    return decorate
