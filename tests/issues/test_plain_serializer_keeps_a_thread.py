"""A response that a plain handler's serializer refuses does not cost an asyncio server one of its threads."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow
from tests.facts.serving import serving


def passing(call: Call) -> Flow:
    yield call


def serialize(message: list[str]) -> bytes:  # no text: asyncio servers encode that themselves
    if message == ["bad"]:
        raise ValueError("bad")
    return message[0].encode()


def repeated(request: str, context: Any) -> Iterator[list[str]]:
    for _ in range(9):
        yield [request]


@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_a_refused_response_frees_its_thread(sort: str) -> None:
    """As many streams fail in the serializer as the pool has threads, and the next one is served."""
    handler = grpc.unary_stream_rpc_method_handler(repeated, bytes.decode, serialize)

    with serving(sort, {"unary_stream": handler}, passing, workers=2) as client:
        failed = [client.call("bad", kind="unary_stream", timeout=3) for _ in range(3)]
        served = client.call("good", kind="unary_stream", timeout=3)

    assert not any(reply.ok for reply in failed)
    assert served.ok
