"""Mistakes that are easily made when a stack is put somewhere: each is said at once, with the remedy."""

import grpc
import grpc.aio
import pytest

from interpose import AsyncFlow, Call, Flow, chain, intercept_channel, server_interceptor
from tests.facts.serving import serving


def passes(call: Call) -> Flow:
    yield call


async def passes_async(call: Call) -> AsyncFlow:
    yield call


async def test_swapped_arguments() -> None:
    """The channel comes first; on both stacks."""
    for native in (grpc.insecure_channel("localhost:1"), grpc.aio.insecure_channel("localhost:1")):
        with pytest.raises(
            TypeError, match=r"no channel: intercept_channel\(channel, \*interceptors\) begins with what"
        ):
            intercept_channel(passes, native)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="is a channel: it comes first"):
            chain(passes, native)  # type: ignore[arg-type]


def test_a_list_of_interceptors() -> None:
    """With what to write."""
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(TypeError, match=r"in front: \*stack"):
        intercept_channel(channel, [passes])  # type: ignore[arg-type]


def test_an_object_for_servers_on_a_channel() -> None:
    """It is named as what it is."""
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(TypeError, match="is an object for servers"):
        intercept_channel(channel, server_interceptor(passes))  # type: ignore[arg-type]


def test_an_async_generator_on_a_sync_server(caplog: pytest.LogCaptureFixture) -> None:
    """The kind of server is known at the first RPC: the log says it then, once, and each RPC names the interceptor."""
    with serving("sync", {"unary_unary": lambda request, context: "ok"}, passes, passes_async) as client:
        replies = [client.call(), client.call()]

    said = [
        record.getMessage() for record in caplog.records if "this server is a sync one: write" in record.getMessage()
    ]
    assert {reply.code for reply in replies} == {grpc.StatusCode.INTERNAL}
    assert "passes_async" in replies[0].details
    assert len(said) == 1 and "write it as a plain generator" in said[0]
    assert "async_generator_asend" not in caplog.text
