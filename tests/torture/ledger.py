"""The ledger: many RPCs over all places, and what began beside what ended. Nothing may be missing, nothing be there twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

from interpose import Kind
from tests.torture.book import ACTS, FLAT, TALL, Plan
from tests.torture.field import Field
from tests.torture.quiet import quiet, tell

LONG = 20_000  # RPCs
ROUND = 500  # RPCs after which all has to be settled
SPAN = 0.03  # seconds within which callers leave
PLACES = [
    (client, server, kind) for client in ("sync", "aio") for server in ("sync", "async", "plain") for kind in Kind
]


def plans(seed: int, count: int) -> list[Plan]:
    """The RPCs of a run; the same for the same seed."""
    chance = random.Random(seed)
    return [_plan(chance, number) for number in range(count)]


def _plan(chance: random.Random, number: int) -> Plan:
    client, server, kind = PLACES[number % len(PLACES)]
    return Plan(
        number,
        client,
        server,
        kind,
        chance.choice((FLAT, TALL)),
        chance.choices(tuple(ACTS), (8, 1, 1, 1, 1, 2, 1))[0],
        chance.choice((0, 0, 0.001, chance.uniform(0, SPAN))),
        chance.randint(0, 4),
        chance.randint(1, 4),
        chance.choice((0, 0, 0.001, 0.005)),
        chance.random() < 0.5,
        chance.choices(("wait", "cancel", "deadline", "drop"), (50, 20, 20, 10))[0],
        chance.uniform(0.0005, SPAN),
        chance.randint(0, 2),
    )


def rounds(planned: Sequence[Plan], size: int = ROUND) -> list[Sequence[Plan]]:
    """The plans in groups that are performed together."""
    return [planned[start : start + size] for start in range(0, len(planned), size)]


def differences(seed: int, count: int) -> list[str]:
    """Perform a run; gives what does not add up, a line each with the plan of the RPC."""
    planned = plans(seed, count)
    found: list[str] = []
    with quiet() as complaints, Field(planned) as field:
        for group in rounds(planned):
            found += field.perform(group)
    found += field.book.settle(0)  # the servers have stopped: nothing comes any more
    return [f"seed {seed}: {line}" for line in [*found, *complaints.lines]]


def table_rows(count: int = LONG, seed: int = 1) -> list[tuple[str, str, int]]:
    """The long form, for the table of `make torture`."""
    found = differences(seed, count)
    tell("ledger", found)
    return [("ledger: all that begins ends, once", f"{count:,} RPCs", len(found))]
