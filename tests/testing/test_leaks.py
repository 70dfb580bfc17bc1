"""The leak checks: each finds a real leak, and is silent without one."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from interpose import Call, Flow, Kind, Method
from interpose._flow import Driver, layers
from interpose.testing import (
    Leak,
    leaks,
    no_generator_leaks,
    no_leaks,
    no_rpc_leaks,
    no_task_leaks,
    no_thread_leaks,
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaks here will not end by itself."""
    monkeypatch.setattr(leaks, "LEAK_TIMEOUT", 0.01)


@pytest.fixture
def stuck() -> Iterator[threading.Thread]:
    """A thread that ends with the test; not begun."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="stuck-1")
    yield thread
    over.set()
    if thread.ident is not None:
        thread.join()


def counting() -> Iterator[int]:
    yield 1
    yield 2


async def counting_later() -> AsyncIterator[int]:
    yield 1
    yield 2


def waits(call: Call) -> Flow:
    yield call


def begun() -> Driver:
    """An RPC that has begun, and nobody ends it."""
    method = Method("/pay.v1.Cards/Charge", Kind.UNARY_UNARY)
    driver = Driver(layers((waits,), method))
    driver.start(Call(method))
    return driver


# --- threads ----------------------------------------------------------------------------------------------------------


def test_a_thread(stuck: threading.Thread) -> None:
    """It is named, with where it stands."""
    with pytest.raises(Leak, match=r"threads left behind: \['stuck-1 at wait:"), no_thread_leaks():
        stuck.start()


def test_threads_that_may_stay(stuck: threading.Thread) -> None:
    """Those of before, those that have ended, and those that the test knows."""
    with no_thread_leaks(ignore=lambda name: name.startswith("stuck-")):
        stuck.start()
        ended = threading.Thread(target=int)
        ended.start()
        ended.join()
    with no_thread_leaks():
        alive = stuck.is_alive()

    assert alive


def test_a_thread_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends soon afterwards is no leak."""
    monkeypatch.setattr(leaks, "LEAK_TIMEOUT", 10.0)
    over = threading.Event()
    slow = threading.Thread(target=over.wait)

    with no_thread_leaks():
        slow.start()
        threading.Timer(0.02, over.set).start()

    assert over.is_set()  # `slow` itself counts as alive for a moment more


# --- tasks ------------------------------------------------------------------------------------------------------------


async def test_a_task() -> None:
    """It is named, with the line where it stands."""
    forever = asyncio.Event()
    with pytest.raises(Leak, match=r"tasks left behind: \['Event.wait:\d+'\]"):
        async with no_task_leaks():
            task = asyncio.ensure_future(forever.wait())
            await asyncio.sleep(0)

    forever.set()
    await task


async def test_tasks_that_may_stay() -> None:
    """Those of before, those that end soon, and those that the test knows."""
    forever = asyncio.Event()
    before = asyncio.create_task(forever.wait())

    async with no_task_leaks(ignore=lambda name: name == "known"):
        known = asyncio.create_task(forever.wait(), name="known")
        soon = asyncio.create_task(asyncio.sleep(0))
    left = [before.done(), known.done(), soon.done()]
    forever.set()
    await asyncio.gather(before, known)

    assert left == [False, False, True]


# --- generators -------------------------------------------------------------------------------------------------------


def test_a_generator() -> None:
    """One that was begun and is not at its end."""
    kept: list[Any] = []

    with pytest.raises(Leak, match=r"generators left behind: \['counting'\]"), no_generator_leaks():
        kept.append(counting())
        next(kept[0])
    kept[0].close()


async def test_an_async_generator() -> None:
    """The same."""
    kept: list[Any] = []

    with pytest.raises(Leak, match=r"generators left behind: \['counting_later'\]"), no_generator_leaks():
        kept.append(counting_later())
        await anext(kept[0])
    await kept[0].aclose()


def test_generators_that_may_stay() -> None:
    """Those of before, those at their end, those never begun, those that are dropped, and those that the test knows."""
    before = counting()
    next(before)

    with no_generator_leaks(ignore=lambda name: name == "waits"):
        done, fresh, dropped, known = counting(), counting(), counting(), waits(Call(Method("/a/b", Kind.UNARY_UNARY)))
        list(done)
        next(dropped)
        del dropped
        next(known)

    assert [next(before), next(fresh)] == [2, 1]


# --- RPCs -------------------------------------------------------------------------------------------------------------


def test_an_rpc() -> None:
    """Its flows are named."""
    kept = []

    with (
        pytest.raises(Leak, match=r"unfinished RPCs left behind: \['<Driver of waits: 1 have not ended>'\]"),
        no_rpc_leaks(),
    ):
        kept.append(begun())
    kept.clear()


def test_rpcs_that_are_none() -> None:
    """Those of before, and those that are dropped, in a cycle too."""
    before = begun()

    with no_rpc_leaks():
        cycle: list[Any] = [begun()]
        cycle.append(cycle)
        del cycle

    assert before.frames == 1


def test_all_that_needs_no_loop(stuck: threading.Thread) -> None:
    """Threads and RPCs in one; and nothing, if nothing is left."""
    kept = []

    with no_leaks():
        pass
    with pytest.raises(Leak, match="threads left behind"), no_leaks():
        stuck.start()
    with pytest.raises(Leak, match="unfinished RPCs"), no_leaks():
        kept.append(begun())
    kept.clear()
    gc.collect()


def test_what_the_block_raises_comes_first(stuck: threading.Thread) -> None:
    """A failure of the work is not hidden behind the leak that it caused."""
    with pytest.raises(ZeroDivisionError), no_thread_leaks():
        stuck.start()
        _ = 1 / 0
