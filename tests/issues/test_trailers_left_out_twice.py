"""What is left out of the trailers is told once."""

from typing import Any

import pytest

from interpose import Call, Flow, errors
from tests.facts.serving import serving


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_what_is_left_out_is_logged_once(sort: str, caplog: pytest.LogCaptureFixture) -> None:
    """One record for an RPC whose trailing metadata is too large."""

    def plain(request: str, context: Any) -> str:
        raise errors.NotFound("gone", trailing_metadata=[("x-large", "x" * 20_000)])

    async def later(request: str, context: Any) -> str:
        return plain(request, context)

    def watch(call: Call) -> Flow:
        yield call

    with serving(sort, {"unary_unary": later if sort == "async" else plain}, watch) as client:
        client.call()

    assert sum("left out" in record.getMessage() for record in caplog.records) == 1
