"""Which signals stop a server, and that each means afterwards what it meant before."""

import signal
from types import FrameType
from typing import Any

import pytest

from interpose.serving.signals import stop_signals


def of_the_program(number: int, frame: FrameType | None) -> None:
    """Its own, like that of a supervisor, to which SIGHUP means new workers."""


@pytest.mark.parametrize("meaning", [signal.SIG_IGN, of_the_program], ids=["under nohup", "of the program"])
def test_a_terminal_that_is_closed_is_left_to_others(meaning: Any) -> None:
    """Under nohup a server goes on; and a handler that the program has set stays."""
    signal.signal(signal.SIGHUP, meaning)  # put back by a fixture

    with stop_signals(lambda: pytest.fail("it was no signal to stop")):
        signal.raise_signal(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is meaning


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_and_means_the_same_afterwards(number: signal.Signals) -> None:
    """The first two are passed on."""
    before, heard = signal.getsignal(number), []

    with stop_signals(lambda: heard.append(number)):
        assert signal.getsignal(number) is not before
        signal.raise_signal(number)
        signal.raise_signal(number)

    assert heard == [number, number]
    assert signal.getsignal(number) is before
