"""Async handlers on a bad day: one that writes too late, and one that fails when it is closed."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from interpose import Call, Flow
from interpose.testing import FakeClock
from tests.facts.serving import Watch, serving


def test_what_is_written_after_the_time_is_up_is_not_sent() -> None:
    """`write` raises DEADLINE_EXCEEDED once the time that an interceptor allows has passed; what came before was sent."""
    clock = FakeClock()

    def limits(call: Call) -> Flow:
        yield call.with_timeout(5)

    async def handler(request: str, context: Any) -> None:
        await context.write("in time")
        clock.advance(6)
        await context.write("late")

    with serving("async", {"unary_stream": handler}, limits, clock=clock) as client:
        reply = client.call(kind="unary_stream")

    assert reply.messages == ["in time"]
    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reply.details == "the handler took longer than an interceptor allows"


def test_a_generator_that_fails_when_it_is_closed() -> None:
    """A response that an interceptor refuses closes the handler; what it raises then is the outcome, being the later."""
    watch = Watch()

    def refuse(message: str) -> str:
        raise ValueError("not this one")

    def refuses(call: Call) -> Flow:
        yield call.map(responses=refuse)

    async def handler(request: str, context: Any) -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            raise LookupError("no way to clean up")

    with serving("async", {"unary_stream": handler}, watch, refuses) as client:
        reply = client.call(kind="unary_stream")

    assert (reply.messages, reply.code) == ([], grpc.StatusCode.UNKNOWN)
    assert isinstance(watch.outcomes[0].error, LookupError)
