"""A handler's StatusError is its status also where no interceptor applies to the method."""

from typing import Any

import grpc
import pytest

from interpose import Call, Flow, errors, server_interceptor, when
from tests.facts.serving import serving


def idle(call: Call) -> Flow:
    yield call


@pytest.mark.parametrize(
    "stack", [(), (when("/another.Service/*", idle),)], ids=["no interceptor", "none that applies"]
)
@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_raised_status_is_the_status(sort: str, stack: Any) -> None:
    """The client is told NOT_FOUND and its details, not UNKNOWN and the text of an exception."""

    def plain(request: str, context: Any) -> str:
        raise errors.NotFound("no such book")

    async def asynchronous(request: str, context: Any) -> str:
        raise errors.NotFound("no such book")

    handlers = {"unary_unary": asynchronous if sort == "async" else plain}
    with serving(sort, handlers, interceptors=[server_interceptor(*stack)]) as client:
        reply = client.call("a")

    assert (reply.code, reply.details) == (grpc.StatusCode.NOT_FOUND, "no such book")
