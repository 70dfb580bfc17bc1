"""HTTP statuses that no gRPC server sent: the table of docs/deployment.md, and what a stack makes of them."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import grpc
import grpc.aio
import pytest

from interpose import Kind
from interpose.interceptors import AccessLog, CircuitBreaker, Retry
from interpose.testing.echo import Stub
from tests.conformance.a6.callers import Way
from tests.conformance.a6.wire import answering, http
from tests.support.patience import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
ROW = re.compile(r"^\| (?P<status>\d{3}) \| (?P<code>[A-Z_]+) \|", re.MULTILINE)
TABLE = {int(row["status"]): grpc.StatusCode[row["code"]] for row in ROW.finditer(PAGE.read_text("utf-8"))}

EACH = pytest.mark.parametrize("status", TABLE)
WAYS = pytest.mark.parametrize("way", [Way("blocking", Kind.UNARY_UNARY), Way("asyncio", Kind.STREAM_STREAM)], ids=str)


def test_the_table_is_read() -> None:
    """All of them that gRPC has a rule for (http-grpc-status-mapping.md), and some for which it has none."""
    assert {400, 401, 403, 404, 429, 502, 503, 504} < TABLE.keys()


@EACH
def test_a_sync_client(status: int) -> None:
    """Reads the code of the table, and details that name the status."""
    with (
        answering(http(status)) as proxy,
        grpc.insecure_channel(proxy.target) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        Stub(channel).unary_unary("a", timeout=PATIENCE)

    assert caught.value.code() is TABLE[status]
    assert caught.value.details() == f"Received http2 header with status: {status}"


@EACH
def test_an_asyncio_client(status: int) -> None:
    """Reads the same."""

    async def call(target: str) -> grpc.aio.AioRpcError:
        async with grpc.aio.insecure_channel(target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).unary_unary("a", timeout=PATIENCE)
        return caught.value

    with answering(http(status)) as proxy:
        error = asyncio.run(call(proxy.target))

    assert error.code() is TABLE[status]
    assert error.details() == f"Received http2 header with status: {status}"


@EACH
@WAYS
@pytest.mark.parametrize("safe", [None, True])
def test_a_retry(safe: bool | None, way: Way, status: int) -> None:
    """A write is sent once; a read again where the code is UNAVAILABLE."""
    retry = Retry(2, safe=safe, backoff=lambda _: 0.0)
    with answering(http(status)) as proxy, way.client(proxy.target, retry) as client:
        client.call()

    assert proxy.streams == (2 if safe and TABLE[status] is grpc.StatusCode.UNAVAILABLE else 1)


@EACH
@WAYS
def test_a_breaker(way: Way, status: int) -> None:
    """Counts what stands for a server that is not well; 4xx but for 429 are answers."""
    breaker = CircuitBreaker(minimum=2)
    with answering(http(status)) as proxy, way.client(proxy.target, breaker) as client:
        client.call()

    [state] = breaker.snapshot().values()
    assert state.failures == (TABLE[status] in COUNTED)


COUNTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}


@EACH
def test_an_access_log(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """The client's has the code, and the HTTP status as the text of the error."""
    caplog.set_level(logging.DEBUG, "interpose.access")
    way = Way("blocking", Kind.UNARY_UNARY)
    with answering(http(status)) as proxy, way.client(proxy.target, AccessLog()) as client:
        client.call()

    [record] = caplog.records
    fields = vars(record)
    assert fields["grpc.code"] == TABLE[status].name
    assert fields["grpc.error"] == f"Received http2 header with status: {status}"
