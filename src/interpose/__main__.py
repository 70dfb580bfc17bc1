"""The command `interpose`, also `python -m interpose`: each of its words is a module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

# What runs each word, "module:function", and what it is for. Those of `interpose.cli` need its extra.
COMMANDS = {
    "serve": ("module:app", "serve gRPC, and stop without losing a call"),
    "call": ("TARGET METHOD", "call a method, with JSON in and JSON out"),
    "list": ("TARGET", "the services of a server, or the methods of one"),
    "describe": ("TARGET NAME", "what a service, a method or a message is"),
    "health": ("TARGET", "is a server well? The exit status says so"),
    "top": ("TARGET", "what the RPCs of a process do, as its page /rpcz knows it"),
    "bench": ("TARGET METHOD", "how many calls a server bears, and how long they take"),
}

USAGE = "\n".join(
    [
        "usage: interpose COMMAND …",
        "",
        *(f"  {f'{name} {arguments}':<20}  {what}" for name, (arguments, what) in COMMANDS.items()),
        "",
        "`interpose COMMAND --help` shows the options.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit status, 2 for one that is not there."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in ([], ["--help"], ["-h"]):
        print(USAGE)  # noqa: T201
        return 0 if given else 2
    word, *others = given
    if word not in COMMANDS:
        print(f"interpose: there is no command {word!r}\n\n{USAGE}", file=sys.stderr)  # noqa: T201
        return 2
    return _command(word)(others)


def _command(word: str) -> Callable[[Sequence[str]], int]:
    """The function that runs it."""
    if word == "serve":
        serve: Callable[[Sequence[str]], int] = import_module("interpose.serving.command").main
        return serve
    return partial(import_module("interpose.cli").main, word)


if __name__ == "__main__":
    sys.exit(main())
