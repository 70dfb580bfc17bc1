"""`python -m bench.stack_instructions`: what a stack takes, in instructions, client and server in one process under valgrind.

The rows of `bench.stacks`, and what of them is the SDK's own: a raw RPC beside which a span of each side begins and ends.

`python -m bench.stack_instructions sync` makes the RPCs of one mode, stack after stack; valgrind counts from outside.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from bench import full, stacks
from bench.about import about
from bench.instructions import CODEC, WARM, can_count
from bench.marks import amarked, counted, marked
from bench.places import MODES, Mode
from bench.processes import pin
from bench.serve import METHOD
from bench.stacks import Stack

LOOPS = 60
"""Three times over; repeats within some 5,000 instructions of 600,000 and more."""

SPANS = {"SDK span alone, not sampled": 0.0, "SDK span alone, sampled": 1.0}
"""A span of the client and one of the server, below it, and nothing else."""


# --- in the process that is counted -----------------------------------------------------------------------------------


def perform(mode: Mode, name: str, loops: int) -> None:
    """Make that many RPCs, and count them."""
    with tempfile.TemporaryDirectory() as directory:
        target = f"unix:{directory}/s"
        if mode == "sync":
            _perform_sync(_stack(mode, name), target, loops, _beside(name))
        else:
            asyncio.run(_perform_aio(_stack(mode, name), target, loops, _beside(name)))


def _stack(mode: Mode, name: str) -> Stack:
    if name in SPANS:
        return Stack(name, mode)
    return next(stack for stack in stacks.stacks(mode) if stack.name == name)


def _beside(name: str) -> Callable[[], object]:
    """What is done beside each RPC."""
    return spans(SPANS[name]) if name in SPANS else lambda: None


def spans(share: float) -> Callable[[], object]:
    """The spans that an RPC has at least, with the same attributes. share: of the traces, how many are sampled."""
    from opentelemetry.context import Context  # noqa: PLC0415  the others do without
    from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415

    tracer = full.provider(share).get_tracer("bench")
    name = METHOD.removeprefix("/")
    known, ended = {"rpc.system.name": "grpc", "rpc.method": name}, ("rpc.status_code", "OK")

    def both() -> None:
        outer = tracer.start_span(name, Context(), SpanKind.CLIENT, known)
        inner = tracer.start_span(name, set_span_in_context(outer, Context()), SpanKind.SERVER, known)
        for span in (inner, outer):
            if span.is_recording():
                span.set_attribute(*ended)  # which is half as dear as `set_attributes`
                span.end()

    return both


def _perform_sync(stack: Stack, target: str, loops: int, beside: Callable[[], object]) -> None:
    server = stacks.sync_server(stack, target)
    channel: Any = stacks.sync_channel(stack, target)
    call = channel.unary_unary(METHOD, *CODEC, _registered_method=True)
    message = StringValue(value="x" * 32)

    def play() -> None:
        call(message)
        beside()

    for _ in range(WARM):
        play()
    gc.collect()
    gc.freeze()
    marked(stack.name, play, loops)
    channel.close()
    server.stop(None).wait()


async def _perform_aio(stack: Stack, target: str, loops: int, beside: Callable[[], object]) -> None:
    server = await stacks.aio_server(stack, target)
    channel: Any = stacks.aio_channel(stack, target)
    call = channel.unary_unary(METHOD, *CODEC, _registered_method=True)
    message = StringValue(value="x" * 32)

    async def play() -> None:
        await call(message)
        beside()

    for _ in range(WARM):
        await play()
    gc.collect()
    gc.freeze()
    await amarked(stack.name, play, loops)
    await channel.close()
    await server.stop(None)


# --- from outside -----------------------------------------------------------------------------------------------------


def names(mode: Mode) -> Iterator[str]:
    """All that can be counted here, raw first."""
    yield from (stack.name for stack in stacks.stacks(mode) if stack.name != stacks.AGAIN)
    yield from SPANS


def table(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Markdown, a line per stack: what it adds to raw, and how much that is of raw."""
    yield "| instructions of an RPC, client and server | sync | aio |"
    yield "| --- | ---: | ---: |"
    for name in dict.fromkeys(name for counts in found.values() for name in counts):
        yield f"| {name} | {' | '.join(_cell(found[mode], name) for mode in MODES)} |"


def _cell(counts: Mapping[str, float], name: str) -> str:
    if name not in counts:
        return "–"
    count, raw = counts[name], counts[stacks.RAW]
    return f"{count / 1000:.0f} k" if name == stacks.RAW else f"{(count - raw) / 1000:+.0f} k, ×{count / raw:.2f}"


def main() -> None:
    """Count, and print."""
    if not can_count():
        raise SystemExit("it takes valgrind: apt-get install valgrind")
    found = {mode: counted(LOOPS, "bench.stack_instructions", mode) for mode in MODES}
    print("\n".join([*(f"- {what}: {value}" for what, value in about().items()), "", *table(found)]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [("sync" | "aio") as mode]:
            pin()
            for name in names(mode):
                perform(mode, name, LOOPS)
        case _:
            main()
