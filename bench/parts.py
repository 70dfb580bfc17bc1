"""`python -m bench.parts`: what each part of a stack takes on both sides, in instructions and without a network.

Client and server are played: the call of a sync stub that is answered at once, and a handler that is given what that stub
sent. It repeats within some hundred instructions, whatever else the machine does.

`python -m bench.parts Tracing` counts those that have this in their name; `python -m bench.parts play Tracing` plays them,
and valgrind counts from outside.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from functools import partial
from typing import Any

import grpc

from bench import full
from bench.about import about
from bench.fakes import METHOD, REPLY, REQUEST
from bench.fakes.sync import FakeChannel, FakeContext, FakeUnaryUnary
from bench.families.ours import noop
from bench.hot import Details
from bench.instructions import can_count
from bench.marks import counted, marked
from bench.stack_instructions import SPANS, spans
from interpose import Interceptor, intercept_channel, server_interceptor

NOTHING = "a flow that does nothing"
RECORD = "`logging` alone, with two records and lines that are ready"

LOOPS = 50
WARM = 100
"""RPCs before the first that counts: chains are compiled, and Python has specialized its code."""

Play = Callable[[], object]


# --- in the process that is counted -----------------------------------------------------------------------------------


def parts() -> dict[str, Play]:
    """What is played, each part further in than a flow that does nothing."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from interpose.contrib.opentelemetry import OtelMetrics, Tracing  # noqa: PLC0415
    from interpose.contrib.prometheus import PrometheusMetrics  # noqa: PLC0415
    from interpose.interceptors import AccessLog, ExceptionToStatus, RequestId  # noqa: PLC0415

    batteries: dict[str, tuple[Interceptor, ...]] = {
        NOTHING: (),
        "`RequestId`": (RequestId(),),
        "`PrometheusMetrics`, histogram": (PrometheusMetrics(registry=CollectorRegistry(), histogram=True),),
        "`OtelMetrics`": (OtelMetrics(full.meters()),),
        "`ExceptionToStatus`": (ExceptionToStatus(),),
        "`AccessLog` into a stream": (AccessLog(full.lines()),),
        "`AccessLog` through `logging`, with `JsonFormatter`": (AccessLog(full.logger()),),
        "`Tracing`, not sampled": (Tracing(full.provider(0.0)),),
        "`Tracing`, sampled": (Tracing(full.provider(1.0)),),
        "all, no tracing": full.ours(None),
        "all, not sampled": full.ours(0.0),
        "all, sampled": full.ours(1.0),
    }
    return {name: played(stack) for name, stack in batteries.items()} | {name: make() for name, make in ALONE.items()}


def played(stack: tuple[Interceptor, ...]) -> Play:
    """One RPC through a client and a server that both have this stack."""
    sent: list[Any] = [()]

    class Stub(FakeUnaryUnary):
        def with_call(self, request: Any, timeout: Any = None, metadata: Any = (), *_: Any, **__: Any) -> Any:
            sent[0] = tuple(metadata or ())
            return super().with_call(request)

    class Channel(FakeChannel):
        def unary_unary(self, *_: Any, **__: Any) -> Any:
            return Stub()

    class Given(FakeContext):
        def invocation_metadata(self) -> Any:
            return sent[0]

    say: Any = intercept_channel(Channel(), noop, *stack).unary_unary(METHOD, None, None)
    native: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: REPLY)
    handler: Any = server_interceptor(noop, *stack).intercept_service(lambda _: native, Details(METHOD, ()))
    handle, given = handler.unary_unary, Given()

    def play() -> None:
        say(REQUEST)
        Context().run(handle, REQUEST, given)  # grpc gives each RPC of a server a context of its own

    return play


def records() -> Play:
    """What `logging` does with a record for each side, from the logger to the stream, if nothing is left to be formatted."""
    logger = full.logger()
    logger.handlers[0].setFormatter(_Ready())
    record = logging.makeLogRecord({"msg": "x" * 400, "levelno": logging.INFO})

    def both() -> None:
        logger.handle(record)
        logger.handle(record)

    return both


class _Ready(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg)


ALONE: dict[str, Callable[[], Play]] = {name: partial(spans, share) for name, share in SPANS.items()} | {
    RECORD: records
}
"""What is counted without an RPC around it."""


def play_all(wanted: str) -> None:
    """Play the parts that have this in their name, and the one to compare with."""
    for name, play in parts().items():
        if wanted in name or name == NOTHING:
            for _ in range(WARM):
                play()
            gc.collect()
            gc.freeze()
            marked(name, play, LOOPS)


# --- from outside -----------------------------------------------------------------------------------------------------


def table(counts: Mapping[str, float]) -> Iterator[str]:
    """Markdown, a line per part, in thousands."""
    nothing = counts[NOTHING]
    yield "| what both sides take together, in thousands of instructions | |"
    yield "| --- | ---: |"
    for name, count in counts.items():
        beside = 0 if name in ALONE or name == NOTHING else nothing
        yield f"| {name} | {(count - beside) / 1000:.1f} k |"


def main(wanted: str = "") -> None:
    """Count, and print."""
    if not can_count():
        raise SystemExit("it takes valgrind: apt-get install valgrind")
    print(
        "\n".join(
            [
                *(f"- {what}: {value}" for what, value in about().items()),
                "",
                *table(counted(LOOPS, "bench.parts", "play", wanted)),
            ]
        )
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["play", wanted]:
            play_all(wanted)
        case given:
            main(*given)
