"""`interpose check FILE`: what is wrong with a policy, a line for each fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from interpose.mechanisms.arguments import Arguments
from interpose.policy.policy import check

WRONG = 2  # exit status for a file with faults, or one that cannot be read


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files; gives the exit status: 0 if all are good, 2 if one is not."""
    given = parser().parse_args(arguments)
    return max([_checked(file, given.allow, given.env) for file in given.files])


def _checked(file: str, allow: Sequence[str], env: Sequence[str]) -> int:
    try:
        faults = check(file, allow=allow, env=env)
    except OSError as error:
        print(f"interpose check: {file} cannot be read: {error.strerror}", file=sys.stderr)  # noqa: T201  a command
        return WRONG
    for fault in faults:
        print(fault)  # noqa: T201
    return WRONG if faults else 0


def parser() -> Arguments:
    """The options, with the words of `load`."""
    parser = Arguments(prog="interpose check", description="Say what is wrong with policy files.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a policy, .json or .toml")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="module:name", help="the file may import this; again for more"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="the file may read this variable; again for more"
    )
    return parser
