"""The command `interpose`, also `python -m interpose`: each of its words is a module."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMPLETE = "_INTERPOSE_COMPLETE"  # click's name for it: a shell sets it, when it wants words to complete

# What each word takes, and what it is for.
COMMANDS = {
    "serve": ("module:app", "serve gRPC, and stop without losing a call"),
    "check": ("FILE", "say what is wrong with a policy file, line by line"),
    "call": ("TARGET METHOD", "call a method, with JSON in and JSON out"),
    "list": ("TARGET", "the services of a server, or the methods of one"),
    "describe": ("TARGET NAME", "what a service, a method or a message is"),
    "health": ("TARGET", "is a server well? The exit status says so"),
    "top": ("TARGET", "what the RPCs of a process do, as its page /rpcz knows it"),
    "bench": ("TARGET METHOD", "how many calls a server can take, and how long they take"),
}
# Those that need no extra, each with a function `main(arguments)` that gives the exit status. All others are `interpose.cli`.
PLAIN = {"serve": "interpose.serving.command", "check": "interpose.policy.command"}

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
    if COMPLETE in os.environ:
        return _run("completion", given)
    if given[:1] in ([], ["--help"], ["-h"]):
        print(USAGE)  # noqa: T201
        return 0 if given else 2
    word, *others = given
    if word not in COMMANDS:
        print(f"interpose: there is no command {word!r}\n\n{USAGE}", file=sys.stderr)  # noqa: T201
        return 2
    return _run(word, others)


def _run(word: str, arguments: Sequence[str]) -> int:
    status: int
    if word in PLAIN:
        status = import_module(PLAIN[word]).main(arguments)
    else:
        status = import_module("interpose.cli").main(word, arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
