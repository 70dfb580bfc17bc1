"""The end of a sync call may be told before what came in front of it."""

import threading
from types import SimpleNamespace
from typing import Any

from interpose import Call, Kind, Method
from interpose._clock import SYSTEM
from interpose.sync.attempt import Attempt


def test_the_channel_thread_does_not_wait_for_itself() -> None:
    """grpc tells the end, then the initial metadata, both on one thread: it is let go, and told when both are there."""
    told = threading.Event()
    exchange: Any = SimpleNamespace(route=SimpleNamespace(clock=SYSTEM), over=lambda attempt: told.set())
    attempt = Attempt(exchange, Call(Method("/pay.v1.Cards/Charge", Kind.UNARY_UNARY)))
    attempt.native = SimpleNamespace(_state=SimpleNamespace(initial_metadata=None))

    attempt._when_native_is_over()
    too_early = told.is_set()
    attempt.native._state.initial_metadata = ()

    assert not too_early
    assert told.wait(10)
