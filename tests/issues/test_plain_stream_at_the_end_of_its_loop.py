"""A plain stream whose loop has stopped does not give its thread back to grpc before that is closed or goes on."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from interpose.aio.plain import _Pulled


class Stopped:
    """A loop that has stopped: what is put on it is not run, unless it goes on."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.closed = False
        self.waiting: list[Callable[[], object]] = []

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.waiting.append(lambda: callback(*arguments))

    def is_closed(self) -> bool:
        self.asked.release()
        return self.closed


@pytest.mark.parametrize("closes", [True, False])
def test_the_thread_waits_for_its_loop(closes: bool) -> None:
    """grpc would wait for ever for a loop between its end and its closing, and the process with it."""
    loop: Any = Stopped()
    pulled = _Pulled(iter(()), copy_context(), loop)
    pulled._over = True  # the client has gone
    given: list[list[Any]] = []
    thread = threading.Thread(target=lambda: given.append(list(pulled.pulled())))
    thread.start()
    for _ in range(2):  # it has looked twice, and waits on
        assert loop.asked.acquire(timeout=5)
    held = thread.is_alive()
    if closes:
        loop.closed = True
    else:
        loop.waiting.pop(0)()
    thread.join(5)

    assert held and given == [[]]


def test_a_closed_loop_is_not_waited_for() -> None:
    """There is nothing that grpc could wait for."""
    loop: Any = Stopped()
    loop.closed = True
    pulled = _Pulled(iter(()), copy_context(), loop)
    pulled._over = True

    assert list(pulled.pulled()) == []
