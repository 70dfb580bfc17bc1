"""What one may say on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEED = 1
CALLS = 40
MOST_CALLS = 500  # of each kind on each leg: 16 000 calls in all


@dataclass(frozen=True)
class Options:
    """What was asked for.

    seed:  decides the load and the faults.
    calls: of each kind, from each client to each server, without the stack and again with it.
    json:  print one document rather than a report.
    serve: keep the services at work afterwards, and show them on a page.
    """

    seed: int = SEED
    calls: int = CALLS
    json: bool = False
    serve: bool = False


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line; exits with status 2 and says why if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m interpose.demo",
        description="Two services behind a sync and an asyncio server, called by a sync and an asyncio "
        "client while three attempts in ten are refused: without the interceptor stack, then with it. Then orders that "
        "pass three services, one that is refused, calls that meet an outage, and clients that guards keep out.",
    )
    parser.add_argument(
        "--seed",
        type=_between(0, 2**63 - 1),
        default=SEED,
        help="decides load and faults (default: %(default)s)",
    )
    parser.add_argument(
        "--calls",
        type=_between(1, MOST_CALLS),
        default=CALLS,
        help=f"calls of each kind, from each client to each server: 1 to {MOST_CALLS} (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--serve", action="store_true", help="keep the services at work, and show them on a live page")
    given = parser.parse_args(arguments)
    return Options(seed=given.seed, calls=given.calls, json=given.json, serve=given.serve)


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return number
