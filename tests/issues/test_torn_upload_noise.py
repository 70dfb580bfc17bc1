"""A torn upload to a plain handler on an asyncio server leaves no traceback in asyncio's log."""

import gc
import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow
from tests.facts.serving import serving
from tests.support.patience import PATIENCE


def test_a_torn_upload_to_a_plain_handler_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What ends the handler's loop is nobody's error: asyncio has no "exception was never retrieved" to tell of."""
    begun, over, ended = threading.Event(), threading.Event(), threading.Event()

    def upload() -> Iterator[str]:
        yield "part"
        over.wait(PATIENCE)

    def handler(requests: Iterator[str], context: Any) -> Iterator[str]:
        try:
            for _ in requests:
                begun.set()
                yield "taken"
        finally:
            ended.set()

    def passing(call: Call) -> Flow:
        yield call

    with caplog.at_level(logging.ERROR, "asyncio"), serving("plain", {"stream_stream": handler}, passing) as client:
        for _ in range(10):
            call = client.stub("stream_stream")(upload())
            assert begun.wait(PATIENCE)
            next(call)
            call.cancel()
            over.set()
            assert ended.wait(PATIENCE)
            for event in (begun, over, ended):
                event.clear()
    gc.collect()

    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert not [error for error in logged if isinstance(error, grpc.RpcError)]  # others are of grpc's own threads
