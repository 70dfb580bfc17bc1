"""The clock's thread may collect garbage before its starter knows that it runs; what is collected may need the clock."""

import threading
from types import SimpleNamespace

import pytest

from interpose import _clock
from interpose._clock import SystemClock
from tests.support.patience import PATIENCE


def test_a_dropped_call_collected_on_the_clocks_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer there asks the clock for a callback, as that of a dropped race does: both callbacks come."""
    clock = SystemClock()
    asked, dropped = threading.Event(), threading.Event()

    class Collecting(threading.Thread):
        def _set_ident(self) -> None:
            clock.call_later(0, dropped.set)
            super()._set_ident()  # type: ignore[misc]  # it is there

    monkeypatch.setattr(_clock, "threading", SimpleNamespace(**{**vars(threading), "Thread": Collecting}))
    threading.Thread(target=clock.call_later, args=(0, asked.set), daemon=True).start()

    assert asked.wait(PATIENCE)
    assert dropped.wait(PATIENCE)
