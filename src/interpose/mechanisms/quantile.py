"""A quantile of the last observations: the delay that, say, 95 of 100 calls stay below.

No locks: each step on a deque is a single one, and what there is to read is replaced in one step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from interpose.mechanisms.options import insist, is_number, is_whole

EVERY = 16  # observations: how often the quantile is worked out anew, which takes some 10 us
MOST = 10_000  # observations that are kept


@dataclass(frozen=True, slots=True)
class Quantile:
    """Which quantile of how many observations. Made by `quantile`."""

    share: float
    initial: float
    window: int


def quantile(share: float = 0.95, *, initial: float = 0.05, window: int = 200) -> Quantile:
    """The time that `share` of the last `window` calls stayed below.

    share: above 0, below 1. initial: seconds, until a tenth of the window, and no less than 16 calls, has been seen.
    window: calls, from 20 to 10,000.

    Defaults: 0.95, so that one call in twenty is sent twice; 0.05 s as for `Hedge`; the last 200 calls, of which 10 took
    longer. ValueError listing every fault of these.
    """
    insist(
        "quantile",
        (is_number(share) and 0 < share < 1, f"share must be a number above 0 and below 1, not {share!r}"),
        (is_number(initial) and initial >= 0, f"initial must be 0 or more seconds, not {initial!r}"),
        (
            is_whole(window, 20, MOST),
            f"window must be a whole number from 20 to {MOST}, not {window!r}",
        ),
    )
    return Quantile(share, initial, window)


class Observed:
    """The last observations, and their quantile."""

    __slots__ = ("_kept", "_minimum", "_share", "_since", "value")

    def __init__(self, policy: Quantile) -> None:
        self._share = policy.share
        self._minimum = policy.window // 10
        self._kept: deque[float] = deque(maxlen=policy.window)
        self._since = 0
        self.value = policy.initial

    def add(self, observation: float) -> None:
        """One more, in the place of the oldest if there is no room."""
        self._kept.append(observation)
        self._since += 1  # two threads may count as one: then it is worked out a little later
        if self._since >= EVERY and len(self._kept) >= self._minimum:
            self._since = 0
            ordered = sorted(self._kept.copy())
            self.value = ordered[min(int(self._share * len(ordered)), len(ordered) - 1)]

    def __repr__(self) -> str:
        return f"<{self.value:.6g}, the {self._share:g} quantile of {len(self._kept)}>"
