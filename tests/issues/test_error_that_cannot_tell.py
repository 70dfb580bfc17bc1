"""An application's own error whose code, text or metadata cannot be had: its RPC is one outcome all the same."""

from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Outcome, errors
from tests.facts.serving import serving


class Templated(errors.NotFound):
    """Its text is made when it is asked for, and that fails."""

    def details(self) -> str:
        raise KeyError("secret")


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_the_flow_is_told(sort: str, kind: str) -> None:
    """The interceptor around the handler is given an outcome, and the peer a status without the text of the failure."""
    outcomes: list[Outcome] = []

    def plain(request: str, context: Any) -> str:
        raise Templated

    def stream(request: str, context: Any) -> Any:
        yield plain(request, context)

    async def later(request: str, context: Any) -> str:
        return plain(request, context)

    async def stream_later(request: str, context: Any) -> Any:
        yield plain(request, context)

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    handlers = {
        ("async", "unary_unary"): later,
        ("async", "unary_stream"): stream_later,
    }
    handler = handlers.get((sort, kind), stream if kind == "unary_stream" else plain)
    with serving(sort, {kind: handler}, watch) as client:
        reply = client.call(kind=kind)

    assert len(outcomes) == 1
    assert reply.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN)
    assert "secret" not in reply.details
