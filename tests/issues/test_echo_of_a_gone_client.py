"""The echo service notices a client that has gone before the handler could ask to be told of it."""

import threading
from types import SimpleNamespace
from typing import Any

from interpose import Kind
from interpose.testing import Act, Echo
from interpose.testing.echo import path


def test_an_attempt_that_hangs_ends_with_its_rpc() -> None:
    """grpc takes no callback any more, since the RPC is over: the attempt ends, and counts as cancelled."""
    echo = Echo([Act(hang=True)])
    details = SimpleNamespace(method=path(Kind.UNARY_UNARY), invocation_metadata=())
    handler: Any = echo.handlers(asyncio=False).service(details)
    context = SimpleNamespace(
        time_remaining=lambda: None, invocation_metadata=lambda: (), add_callback=lambda callback: False
    )
    serving = threading.Thread(target=handler.unary_unary, args=("a", context))
    serving.start()
    serving.join(2)
    ended = [attempt.ended for attempt in echo.attempts]
    echo.close()  # lets one that still hangs go
    serving.join()

    assert ended == [True]
    assert [attempt.cancelled for attempt in echo.attempts] == [True]
