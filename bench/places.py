"""Where a layer can stand and what it can do: the words of the names in the results."""

from __future__ import annotations

from typing import Literal

Mode = Literal["sync", "aio"]
Side = Literal["client", "server"]
Direction = Literal["requests", "responses"]
What = Literal["noop", "observe", "requests", "responses"]
"""What a layer does: nothing, look at the outcome, or see each message of one direction."""

MODES: tuple[Mode, ...] = ("sync", "aio")
SIDES: tuple[Side, ...] = ("client", "server")
DIRECTIONS: tuple[Direction, ...] = ("requests", "responses")

COUNTS = (1, 5, 10)
"""How many layers; none at all is the arm called raw."""

TAPS = (1, 2, 5)
"""How many layers see each message of a stream."""
