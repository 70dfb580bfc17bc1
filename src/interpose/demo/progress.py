"""How far the demo is: one line that is written over, and only on a terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TextIO

PAUSE = 0.1  # seconds between two updates


class ProgressLine:
    """Shows a leg and how far it is. Silent where `stream` is no terminal: pipes and logs stay plain."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = monotonic) -> None:
        self._stream = stream
        self._shown = stream.isatty()
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0
        self._width = 0

    def leg(self, text: str, steps: int) -> Callable[[], None]:
        """Begin a leg; call what is returned once per step, from any thread."""
        done = 0

        def step() -> None:
            nonlocal done
            with self._lock:
                done += 1
                now = self._clock()
                if self._shown and (now >= self._next or done == steps):
                    self._next = now + PAUSE
                    self._write(f"{text}: {done} of {steps}")

        return step

    def clear(self) -> None:
        """Leave an empty line behind."""
        with self._lock:
            if self._width:
                self._write("")
                self._stream.write("\r")
                self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)
