"""Background: blocking work in a thread of its own, one piece at a time."""

import os
import sys
import threading
from concurrent.futures import Future

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

    futures: list[Future[int]] = []
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
    second: Future[Future[int]] = Future()

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
