"""A response stream that was dropped is cancelled, also if its first attempt had failed and it was sent again."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from interpose import Call, Flow, intercept_channel
from interpose.testing.echo import decode, encode
from tests.facts.serving import SERVICE, serving
from tests.support.patience import PATIENCE


def test_a_stream_dropped_in_its_second_attempt_is_cancelled() -> None:
    """The second attempt was started by the end of the first; its end is told to the flows as that of any other."""
    codes: list[grpc.StatusCode] = []
    attempts: list[Any] = []
    told = threading.Event()

    def fails_once(requests: Iterator[str], context: Any) -> Iterator[str]:
        attempts.append(list(requests))
        if len(attempts) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "once")
        while context.is_active():
            yield "again"

    def again(call: Call) -> Flow:
        outcome = yield call.buffered()
        codes.append(outcome.code)
        outcome = yield call.buffered()
        codes.append(outcome.code)
        told.set()

    with serving("sync", {"stream_stream": fails_once}) as client:
        channel = intercept_channel(client.channel, again)
        call = channel.stream_stream(f"/{SERVICE}/stream_stream", encode, decode)(iter(["a"]))
        next(call)
        del call
        gc.collect()
        ended = told.wait(PATIENCE / 2)

    assert ended
    assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
