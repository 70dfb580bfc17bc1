"""A `map` that forgets its `return` ends the RPC of a server with a status that names its interceptor, in every shape."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind
from tests.facts.serving import Reply, serving


def forgets(message: str) -> Any:
    """A map that changes some messages and forgets to return them."""
    if message != "2":
        return message
    message.upper()
    return None


def on_responses(call: Call) -> Flow:
    """The fault on the way back."""
    yield call.map(responses=forgets)


def on_requests(call: Call) -> Flow:
    """The fault on the way in."""
    yield call.map(requests=forgets)


def on_both_with_a_tap(call: Call) -> Flow:
    """With a tap beside it the hooks are composed otherwise."""
    yield call.tap(requests=lambda _: None, responses=lambda _: None).map(responses=forgets)


def says_so(reply: Reply, flow: Any) -> None:
    """INTERNAL, with the name of the interceptor and what to do."""
    assert reply.code is grpc.StatusCode.INTERNAL
    assert flow.__name__ in reply.details
    assert "return the message" in reply.details


def unary(argument: Any, context: Any) -> str:
    return argument if isinstance(argument, str) else list(argument)[-1]


def stream(argument: Any, context: Any) -> Iterator[str]:
    yield from ("1", argument, "3") if isinstance(argument, str) else argument


async def aunary(argument: Any, context: Any) -> str:
    return argument if isinstance(argument, str) else [message async for message in argument][-1]


async def astream(argument: Any, context: Any) -> AsyncIterator[str]:
    if isinstance(argument, str):
        for message in ("1", argument, "3"):
            yield message
        return
    async for message in argument:
        yield message


async def reads(argument: Any, context: Any) -> str:
    last = ""
    while (message := await context.read()) is not grpc.aio.EOF:
        last = message
    return last


async def writes(argument: Any, context: Any) -> None:
    for message in ("1", "2", "3"):
        await context.write(message)


async def reads_and_writes(argument: Any, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


PLAIN = {kind.value: stream if kind.response_streaming else unary for kind in Kind}
ASYNC = {kind.value: astream if kind.response_streaming else aunary for kind in Kind}
READING = {
    "unary_unary": aunary,
    "stream_unary": reads,
    "unary_stream": writes,
    "stream_stream": reads_and_writes,
}
SHAPES = [("sync", PLAIN), ("plain", PLAIN), ("async", ASYNC), ("async", READING)]


@pytest.mark.parametrize("flow", [on_requests, on_responses, on_both_with_a_tap])
@pytest.mark.parametrize(("sort", "handlers"), SHAPES, ids=["sync", "plain", "async", "async, read and write"])
def test_the_status_names_the_interceptor(sort: str, handlers: dict[str, Any], flow: Any) -> None:
    """Each kind of RPC ends with the status, after the messages that had passed; none is taken for a whole."""
    with serving(sort, handlers, flow) as client:
        for kind in Kind:
            reply = client.call(*(("1", "2") if kind.request_streaming else ("2",)), kind=kind.value)
            says_so(reply, flow)
            assert reply.messages in ([], ["1"])


def test_a_handler_that_returns_and_sends_through_a_callback() -> None:
    """It is not given the exception, which would reach whatever calls it: its RPC ends, and what it sends is dropped."""
    sent: list[str] = []

    def handler(request: str, context: Any, send: Any) -> None:
        for message in ("1", "2", "3", None):
            send(message)
            sent.append(message or "end")

    handler.experimental_non_blocking = True  # type: ignore[attr-defined]

    with serving("sync", {"unary_stream": handler}, on_responses) as client:
        reply = client.call(kind="unary_stream")

    says_so(reply, on_responses)
    assert reply.messages == ["1"]
    assert sent == ["1", "2", "3", "end"]


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_handler_that_gives_none_is_not_taken_for_the_map(sort: str) -> None:
    """The map that only passes on what it was given is not blamed for a handler without an answer."""

    def answers_nothing(request: str, context: Any) -> Any:
        return None

    async def aanswers_nothing(request: str, context: Any) -> Any:
        await asyncio.sleep(0)

    def passing(call: Call) -> Flow:
        yield call.map(responses=lambda message: message)

    with serving(sort, {"unary_unary": aanswers_nothing if sort == "async" else answers_nothing}, passing) as client:
        reply = client.call()

    assert "return the message" not in reply.details
