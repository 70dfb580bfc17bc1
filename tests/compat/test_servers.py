"""The differential suite of servers: the same user code against the published package and ours, in every order."""

import asyncio
from itertools import permutations
from typing import Any

import pytest

from tests.compat.apis import ORIGINAL, OURS
from tests.compat.interceptors import NAMES
from tests.compat.observing import aobserve, observe
from tests.compat.services import KINDS

ALONE = [(), *((name,) for name in NAMES)]
STACKS = [("own rules", "status", "gate"), ("status", "rewrite", "watch"), ("watch", "unknown is internal", "gate")]
STACKS += [("watch", "watch", "watch"), ("rewrite", "gate", "rewrite"), ("status", "unknown is internal", "own rules")]

AIO_SHAPES = (*KINDS, "stream_unary_written", "unary_stream_written", "stream_stream_written")


def beginning_with(outermost: str, shape: str) -> list[tuple[str, ...]]:
    """The stacks for a shape. Those of two and three are dealt: each runs on one sync server, and one or two of asyncio."""
    hand = AIO_SHAPES.index(shape) % len(KINDS)
    dealt = [*permutations(NAMES, 2), *STACKS][hand :: len(KINDS)]
    return [stack for stack in [*ALONE, *dealt] if "".join(stack[:1]) == outermost]


@pytest.mark.parametrize("outermost", ["", *NAMES])
@pytest.mark.parametrize("shape", KINDS)
def test_a_sync_server_is_the_same(shape: str, outermost: str) -> None:
    """Client, handler and interceptors see the same, whatever the handler does and in whatever order they stand."""
    for stack in beginning_with(outermost, shape):
        ours, original = observe(OURS, shape, stack), observe(ORIGINAL, shape, stack)

        assert ours == original, stack


@pytest.mark.parametrize("outermost", ["", *NAMES])
@pytest.mark.parametrize("shape", AIO_SHAPES)
def test_an_asyncio_server_is_the_same(shape: str, outermost: str) -> None:
    """The same on asyncio, with generators and with read and write."""
    for stack in beginning_with(outermost, shape):
        if shape.endswith("_written") and "rewrite" in stack:
            continue  # an intended difference: interceptors see what such handlers read and write

        ours, original = asyncio.run(aobserve(OURS, shape, stack)), asyncio.run(aobserve(ORIGINAL, shape, stack))

        if shape.endswith("stream_written") and len(stack) > 1:  # another: all of them see how such a handler ends
            ours, original = told(ours), told(original)
        assert ours == original, stack


def told(seen: dict[str, Any]) -> dict[str, Any]:
    """What clients see, and handlers."""
    return {act: (client, [e for e in book or () if e[0] == "handler"]) for act, (client, book) in seen.items()}
