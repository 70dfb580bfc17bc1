"""Clients that leave the response streams of plain handlers cost an asyncio server no thread."""

import threading
from collections.abc import Iterator
from typing import Any

from interpose import Call, Flow
from tests.facts.serving import serving
from tests.support.patience import PATIENCE


def test_clients_that_leave_cost_no_thread() -> None:
    """More clients leave than the pool has threads, and the next one is served."""
    begun = threading.Semaphore(0)

    def endless(request: str, context: Any) -> Iterator[str]:
        if request == "short":
            yield "answer"
            return
        begun.release()
        for number in range(1_000_000):
            yield f"{number}" * 1000

    def passing(call: Call) -> Flow:
        yield call

    with serving("plain", {"unary_stream": endless}, passing, workers=2) as client:
        for _ in range(6):
            call = client.stub("unary_stream")("long")
            assert begun.acquire(timeout=PATIENCE)
            next(call)
            call.cancel()
        reply = client.call("short", kind="unary_stream", timeout=PATIENCE)

    assert reply.messages == ["answer"]
