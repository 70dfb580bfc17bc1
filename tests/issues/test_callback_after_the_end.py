"""`add_callback` of a plain handler means what it returns: False, and the callback is never called."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from interpose import Call, Flow
from tests.facts.serving import serving
from tests.support.patience import PATIENCE


@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_add_callback_after_the_end_keeps_its_word(sort: str) -> None:
    """A callback that comes too late is refused or called, not both: whoever is refused cleans up at once."""
    begun, over = threading.Event(), threading.Event()
    accepted: list[bool] = []
    called: list[bool] = []

    def handler(request: str, context: Any) -> Iterator[str]:
        gone = threading.Event()
        assert context.add_callback(gone.set)
        begun.set()
        assert gone.wait(PATIENCE)
        accepted.append(context.add_callback(lambda: called.append(True)))
        over.set()
        yield "nobody reads it"

    def passing(call: Call) -> Flow:
        yield call

    with serving(sort, {"unary_stream": handler}, passing) as client:
        call = client.stub("unary_stream")("a")
        assert begun.wait(PATIENCE)
        call.cancel()
        assert over.wait(PATIENCE)

    assert len(called) == sum(accepted)
