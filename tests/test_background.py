"""Background: work beside the RPCs, one piece at a time, in a thread or a task of its own."""

import asyncio
import os
import sys
import threading
from concurrent.futures import Future
from contextvars import ContextVar

import pytest

from interpose._background import Background


def test_who_comes_while_it_runs_gets_the_same() -> None:
    """A hundred threads, one piece of work, in none of theirs."""
    background: Background[int] = Background("work")
    ran: list[str] = []
    go = threading.Event()

    def work() -> int:
        assert go.wait(10)
        ran.append(threading.current_thread().name)
        return 7

    futures: list[Future[int | None]] = []
    callers = [threading.Thread(target=lambda: futures.append(background.start(work))) for _ in range(100)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert background.running() is futures[0]
    go.set()

    assert {future.result(10) for future in futures} == {7}
    assert ran == ["work"]
    assert background.running() is None


def test_the_next_piece_may_start_when_the_result_is_there() -> None:
    """Also from a callback of the first."""
    background: Background[int] = Background("work")
    second: Future[Future[int | None]] = Future()

    first = background.start(lambda: 1)
    first.add_done_callback(lambda _: second.set_result(background.start(lambda: 2)))

    assert first.result(10) == 1
    assert second.result(10).result(10) == 2


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)], ids=repr)
def test_what_it_raises_is_told(error: BaseException) -> None:
    """To all that wait, and it can be tried again."""
    background: Background[int] = Background("work")

    def fail() -> int:
        raise error

    assert background.start(fail).exception(10) is error
    assert background.start(lambda: 3).result(10) == 3


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told to the caller that wanted it, and the next one may try."""
    background: Background[int] = Background("work")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            background.start(lambda: 1)

    assert background.running() is None
    assert background.start(lambda: 2).result(10) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that runs in the parent does not run in a child, which does not wait for it either."""
    background: Background[int] = Background("work")
    go = threading.Event()
    running = background.start(lambda: int(go.wait(10)))

    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)  # as in a child; a real fork would copy grpc's threads
    assert background.running() is None
    assert background.start(lambda: 5).result(10) == 5
    monkeypatch.undo()

    assert background.running() is running
    go.set()
    assert running.result(10) == 1


# --- tasks ------------------------------------------------------------------------------------------------------------

KEY: ContextVar[str] = ContextVar("key", default="of nobody")


async def test_a_task_runs_beside_what_started_it() -> None:
    """Once for all, in a context of its own; it ends although the first that wanted it is cancelled."""
    background: Background[str] = Background("work")
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        return KEY.get()

    async def want() -> str | None:
        KEY.set("of the first")
        return await asyncio.wrap_future(background.start_task(work))

    first = asyncio.create_task(want())
    await asyncio.sleep(0)
    second = background.start_task(work)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0)  # now what it waited for knows that as well
    assert background.running() is second
    go.set()

    assert await asyncio.wrap_future(second) == "of nobody"
    assert background.running() is None


async def test_what_a_task_raises_is_told() -> None:
    """And the next one may be started."""
    background: Background[int] = Background("work")

    async def fail() -> int:
        raise ValueError("no")

    async def work() -> int:
        return 3

    with pytest.raises(ValueError, match="no"):
        await asyncio.wrap_future(background.start_task(fail))
    assert await asyncio.wrap_future(background.start_task(work)) == 3


def test_a_loop_that_ends_gives_up_its_task() -> None:
    """Those that wait elsewhere are told None, and another loop may begin anew."""
    background: Background[int] = Background("work")
    futures: list[Future[int | None]] = []

    async def hang() -> int:
        await asyncio.get_running_loop().create_future()
        return 1

    async def work() -> int:
        return 2

    async def begin() -> None:
        futures.append(background.start_task(hang))
        await asyncio.sleep(0)

    async def again() -> int | None:
        return await asyncio.wrap_future(background.start_task(work))

    asyncio.run(begin())  # cancels what is left
    assert futures[0].result(0) is None

    loop = asyncio.new_event_loop()  # this one is left in the middle of it
    loop.run_until_complete(begin())
    assert asyncio.run(again()) == 2
    assert futures[1].result(0) is None
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
