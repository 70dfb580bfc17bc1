"""The command `interpose`, also `python -m interpose`: each of its words is a module."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {  # each with a function `main(arguments)` that gives the exit status
    "serve": "interpose.serving.command",
    "check": "interpose.policy.command",
}

USAGE = """usage: interpose COMMAND …

  serve module:app    serve gRPC, and stop without losing a call
  check FILE          say what is wrong with a policy file, line by line

`interpose COMMAND --help` shows the options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit status, 2 for one that is not there."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in ([], ["--help"], ["-h"]):
        print(USAGE)  # noqa: T201
        return 0 if given else 2
    module = COMMANDS.get(given[0])
    if module is None:
        print(f"interpose: there is no command {given[0]!r}\n\n{USAGE}", file=sys.stderr)  # noqa: T201
        return 2
    status: int = import_module(module).main(given[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
