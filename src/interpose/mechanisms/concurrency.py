"""How many calls a server should have in hand at once: algorithms that find out from how long calls take.

Each is arithmetic alone. Its input is, a window at a time, how the calls went that ended in it; its output is the limit.
The algorithms are those of Netflix' concurrency-limits (https://github.com/Netflix/concurrency-limits). In one thing they
differ: there the time of an unloaded call is guessed from the load itself, so under an overload that lasts the limit drifts
upwards. Here it is measured: from time to time, and only under pressure, the limit is lowered for a moment, as Envoy does
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter).
"""

from __future__ import annotations

import abc
import math
from typing import NamedTuple, Protocol

from interpose.mechanisms.options import insist, is_number, is_whole

INITIAL = 20  # Netflix: initialLimit of each of the three
MAXIMUM = 200  # Netflix: that of Gradient2Limit and AIMDLimit; VegasLimit has 1000, more than a Python process works on
# Netflix has 20. A handler that costs CPU is best served a few at a time, and 20 at a time take 20 times as long.
MINIMUM = 1
MOST = 100_000

PROBE = 5.0  # seconds between two measures of an unloaded call; twice in the 10 s in which a change is to be found
TROUGH = 4  # the limit is lowered to a quarter for it: a limit up to four times too high is found out at once


class Window(NamedTuple):
    """How the calls went that ended in a short time.

    rtt: seconds that they took, on average. in_flight: the most that were in hand. dropped: the share of them that ran out
    of time, from 0 to 1.
    """

    rtt: float
    in_flight: int
    dropped: float

    @property
    def cut_off(self) -> bool:
        """Did most of them run out of time? Then they would have taken longer, and nothing can be measured by them."""
        return self.dropped > 0.5


class Limiter(Protocol):
    """The state of an algorithm."""

    limit: int

    def update(self, window: Window, now: float) -> int:
        """The limit after one more window. now: seconds of any clock that goes forwards."""
        ...  # pragma: no cover  a protocol


class Algorithm(Protocol):
    """An algorithm and its options: `begin` starts it, for one server."""

    def begin(self) -> Limiter | int:
        """Its state at first; a whole number for a limit that never changes."""
        ...  # pragma: no cover  a protocol


class Fixed:
    """Always `limit` calls at once. ValueError for a limit that is no whole number from 1 to 100,000."""

    def __init__(self, limit: int) -> None:
        insist("Fixed", (is_whole(limit, 1, MOST), f"limit must be a whole number from 1 to {MOST:,}, not {limit!r}"))
        self._limit = limit

    def begin(self) -> int:
        """The limit."""
        return self._limit

    def __repr__(self) -> str:
        return f"Fixed({self._limit})"


class _Ranged:
    """What the algorithms have in common: where they begin, and the range they stay in."""

    def __init__(self, initial: int, minimum: int, maximum: int, *requirements: tuple[bool, str]) -> None:
        whole = all(is_whole(value, 1, MOST) for value in (initial, minimum, maximum))
        insist(
            type(self).__name__,
            (
                whole and minimum <= initial <= maximum,
                f"minimum <= initial <= maximum must be whole, 1 to {MOST:,}, not {minimum!r}, {initial!r}, {maximum!r}",
            ),
            *requirements,
        )
        self.initial = initial
        self.minimum = minimum
        self.maximum = maximum

    def within(self, limit: float) -> float:
        """The nearest limit in the range."""
        return min(max(limit, float(self.minimum)), float(self.maximum))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.initial}, minimum={self.minimum}, maximum={self.maximum})"


class Aimd(_Ranged):
    """One more while all is well, a tenth less when a call runs out of time or calls take longer than `timeout`.

    The algorithm of TCP Reno, as in Netflix' AIMDLimit: backoffRatio 0.9, timeout 5 s. It knows nothing of what a call
    takes without load, so `timeout` should be what your callers can accept.

    initial, minimum, maximum: whole numbers of calls, 1 to 100,000.
    timeout: seconds, above 0: an average above it is too long.

    Defaults: initial 20, maximum 200 and timeout 5 s are Netflix'; minimum 1, for handlers that cost CPU. ValueError listing
    every fault of these.
    """

    def __init__(
        self, initial: int = INITIAL, *, minimum: int = MINIMUM, maximum: int = MAXIMUM, timeout: float = 5.0
    ) -> None:
        super().__init__(
            initial,
            minimum,
            maximum,
            (_is_above(timeout, 0), f"timeout must be a number of seconds above 0, not {timeout!r}"),
        )
        self.timeout = timeout

    def begin(self) -> Limiter:
        """Its state at first."""
        return _Aimd(self)


class _Aimd:
    def __init__(self, options: Aimd) -> None:
        self._options = options
        self.limit = options.initial

    def update(self, window: Window, now: float) -> int:
        limit = self.limit
        if window.dropped or window.rtt > self._options.timeout:
            limit = math.floor(limit * 0.9)  # Netflix: backoffRatio
        elif _is_pressed(window, limit):
            limit += 1
        self.limit = int(self._options.within(limit))
        return self.limit


class Vegas(_Ranged):
    """Let a short queue form, and no longer one: few calls more than the server works on.

    From what a call takes without load follows how many of those in hand only wait. Up to 3·log10(limit) of them the
    limit grows, above 6·log10(limit) it shrinks. The algorithm of TCP Vegas, as in Netflix' VegasLimit.

    initial, minimum, maximum: whole numbers of calls, 1 to 100,000.

    Defaults: initial 20 is Netflix', maximum 200 that of the other two; minimum 1, for handlers that cost CPU. ValueError
    listing every fault of these.
    """

    def __init__(self, initial: int = INITIAL, *, minimum: int = MINIMUM, maximum: int = MAXIMUM) -> None:
        super().__init__(initial, minimum, maximum)

    def begin(self) -> Limiter:
        """Its state at first."""
        return _Vegas(self)


class Gradient(_Ranged):
    """Shrink the limit in proportion as calls take longer than without load, and leave room for a short queue.

    limit · min(1, tolerance · unloaded / now) + √limit, as in Netflix' GradientLimit and Gradient2Limit (tolerance 1.5,
    never less than half of the limit at once, and half if calls run out of time), and in Envoy's gradient controller, whose
    √limit it has. It shrinks at once, as Envoy's, and grows smoothly, as Netflix' (0.2).

    initial, minimum, maximum: whole numbers of calls, 1 to 100,000.
    tolerance: a number from 1: how many times as long as without load a call may take before the limit shrinks.

    Defaults: initial 20, maximum 200 and tolerance 1.5 are Netflix'; minimum 1, for handlers that cost CPU. ValueError
    listing every fault of these.
    """

    def __init__(
        self, initial: int = INITIAL, *, minimum: int = MINIMUM, maximum: int = MAXIMUM, tolerance: float = 1.5
    ) -> None:
        super().__init__(
            initial,
            minimum,
            maximum,
            (_is_above(tolerance, 1, or_equal=True), f"tolerance must be a number from 1, not {tolerance!r}"),
        )
        self.tolerance = tolerance

    def begin(self) -> Limiter:
        """Its state at first."""
        return _Gradient(self)


class _Measured(abc.ABC):
    """A state that knows what a call takes without load."""

    def __init__(self, options: _Ranged) -> None:
        self._range = options
        self._exact = float(options.initial)
        self._unloaded = math.inf
        self._trough = 0  # the limit while it is measured, else 0
        self._measure_at = -math.inf
        self.limit = options.initial

    def update(self, window: Window, now: float) -> int:
        if window.cut_off:
            self._trough = 0
        elif self._trough:
            if window.in_flight > self._trough:
                return self.limit  # calls of before have just ended
            self._measured(window.rtt, now)
        elif now >= self._measure_at and self._unloaded < math.inf and _is_pressed(window, self._exact):
            self._trough = self.limit = max(self._range.minimum, int(self._exact) // TROUGH)
            return self.limit
        elif now >= self._measure_at:
            self._measured(window.rtt, now)
        if not window.cut_off:
            self._unloaded = min(self._unloaded, max(window.rtt, 1e-9))
        if _is_pressed(window, self._exact):  # else the limit limits nothing, and there is nothing to learn
            self._exact = self._range.within(self.next(self._exact, window))
        self.limit = int(self._exact)
        return self.limit

    @abc.abstractmethod
    def next(self, limit: float, window: Window) -> float:
        """The limit that this window asks for."""

    def _measured(self, rtt: float, now: float) -> None:
        self._unloaded, self._trough, self._measure_at = max(rtt, 1e-9), 0, now + PROBE


class _Vegas(_Measured):
    def next(self, limit: float, window: Window) -> float:
        step = max(1.0, math.log10(limit))
        waiting = math.ceil(limit * (1 - self._unloaded / max(window.rtt, 1e-9)))
        if window.dropped or waiting > 6 * step:
            return limit - step
        if waiting <= step:
            return limit + 6 * step
        return limit + step if waiting < 3 * step else limit


class _Gradient(_Measured):
    def __init__(self, options: Gradient) -> None:
        super().__init__(options)
        self._tolerance = options.tolerance

    def next(self, limit: float, window: Window) -> float:
        ratio = 0.0 if window.cut_off else self._tolerance * self._unloaded / max(window.rtt, 1e-9)
        asked = limit * max(0.5, min(1.0, ratio)) + math.sqrt(limit)
        # Down at once: on asyncio a limit that is too high keeps the loop from taking up calls, and they age unseen.
        return asked if asked < limit else 0.8 * limit + 0.2 * asked


def _is_pressed(window: Window, limit: float) -> bool:
    """Is at least half of the limit used? Netflix: below that it stays as it is."""
    return 2 * window.in_flight >= limit


def _is_above(value: object, least: float, *, or_equal: bool = False) -> bool:
    return is_number(value) and (value > least or (or_equal and value == least))
