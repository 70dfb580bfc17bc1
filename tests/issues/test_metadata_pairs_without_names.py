"""Pairs that a flow adds have `.key` and `.value`, as those that grpc itself gives to handlers and interceptors."""

import copy
import pickle
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Metadata, intercept_channel
from interpose.testing import Echo
from interpose.testing.echo import Stub
from tests.facts.serving import serving

ADDED = ("x-flow", "1")


def adding(call: Call) -> Flow:
    """A flow that adds a pair to the request, and one behind the response."""
    outcome = yield call.with_metadata(ADDED).without_metadata("x-unwanted")
    return outcome.with_trailing_metadata(ADDED)


def named(pairs: Any) -> list[tuple[str, Any]]:
    """The pairs, read by their names."""
    return [(pair.key, pair.value) for pair in pairs if pair.key.startswith("x-")]


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_handler_reads_them_by_name(sort: str) -> None:
    """What the client sent and what a flow added look alike, and so does what the handler has set itself."""
    seen: list[Any] = []

    def handler(request: str, context: Any) -> str:
        context.set_trailing_metadata((("x-handler", "2"),))
        seen.append(named(context.invocation_metadata()))
        seen.append(named(context.trailing_metadata()))
        return request

    async def ahandler(request: str, context: Any) -> str:
        return handler(request, context)

    with serving(sort, {"unary_unary": ahandler if sort == "async" else handler}, adding) as client:
        reply = client.call(metadata=(("x-client", "0"), ("x-unwanted", "0")))

    assert seen == [[("x-client", "0"), ADDED], [("x-handler", "2")]]
    assert named(reply.trailing) == [("x-handler", "2"), ADDED]


class Reading(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """A native interceptor, inside of the flows."""

    def __init__(self) -> None:
        self.seen: Any = None

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen = named(details.metadata)
        return continuation(details, request)


def test_a_native_interceptor_of_a_sync_channel_reads_them_by_name() -> None:
    """As do the interceptors beneath ours, which libraries bring along. (grpc.aio makes plain tuples of all pairs.)"""
    reading = Reading()

    with Echo().serve() as target, grpc.insecure_channel(target) as channel:
        Stub(intercept_channel(grpc.intercept_channel(channel, reading), adding)).unary_unary("hello")

    assert reading.seen == [ADDED]


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda metadata: pickle.loads(pickle.dumps(metadata))])
def test_a_copy_keeps_the_names(twin: Any) -> None:
    """Pickled or copied, they keep their names."""
    metadata = twin(Metadata([ADDED]))

    assert named(metadata) == [ADDED]
