"""A plain stream whose loop has stopped does not give its thread back to grpc before that is closed or goes on."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import grpc.aio
import pytest

from interpose._grpcio.plain import Pulled
from interpose.testing import leaks


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

    def call_later(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> None:
        if not arguments:  # a beat, and not the next look for threads
            callback()

    def is_closed(self) -> bool:
        self.asked.release()
        return self.closed


@pytest.mark.parametrize("closes", [True, False])
def test_the_thread_waits_for_its_loop(closes: bool) -> None:
    """It goes back once its loop is closed or goes on."""
    loop: Any = Stopped()
    pulled = Pulled(iter(()), copy_context(), loop)
    pulled._over = True  # the client has gone
    given: list[list[Any]] = []
    thread = threading.Thread(target=lambda: given.append(list(pulled.pulled())))
    thread.start()
    for _ in range(2):  # it has looked twice, and waits on
        assert loop.asked.acquire(timeout=5)
    held = thread.is_alive()
    if closes:
        loop.closed = True
    while thread.is_alive() and not closes:  # it goes on
        if loop.waiting:
            loop.waiting.pop(0)()
    thread.join(5)

    assert held and given == [[]]


def test_a_closed_loop_is_not_waited_for() -> None:
    """There is nothing that grpc could wait for."""
    loop: Any = Stopped()
    loop.closed = True
    pulled = Pulled(iter(()), copy_context(), loop)
    pulled._over = True

    assert list(pulled.pulled()) == []


async def test_a_loop_that_serves_is_not_waited_for() -> None:
    """The thread is wanted for the next RPC."""
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pulled = Pulled(iter(()), copy_context(), asyncio.get_running_loop())

    serves = pulled._serves()
    await server.stop(None)

    assert serves and not pulled._serves()


class Nameless(Coroutine[Any, Any, None]):
    """A coroutine as the collector leaves one of grpc's for a moment: its name is gone."""

    def __init__(self) -> None:
        self.__qualname__ = None
        self._waiting = asyncio.get_running_loop().create_future()

    def send(self, value: Any) -> Any:
        self._waiting._asyncio_future_blocking = True
        return self._waiting

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        raise StopIteration

    def __await__(self) -> Any:
        raise NotImplementedError


async def test_a_task_that_lost_its_name_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread went on with a TypeError, and the stream was broken."""
    monkeypatch.setattr(leaks, "LEAK_TIMEOUT", 0.01)
    loop = asyncio.get_running_loop()
    task = loop.create_task(Nameless())
    await asyncio.sleep(0)
    try:
        assert not Pulled(iter(()), copy_context(), loop)._serves()
        with pytest.raises(leaks.Leak, match="Nameless"):
            async with leaks.no_task_leaks():
                other = loop.create_task(Nameless())
    finally:
        task.cancel()
        other.cancel()
        await asyncio.wait([task, other])
