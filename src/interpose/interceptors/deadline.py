"""A limit of time for every RPC: fixed once, and kept by everything that happens on its behalf."""

from __future__ import annotations

from interpose import context, errors
from interpose._call import Call
from interpose._clock import FOREVER, SYSTEM, Clock
from interpose._flow import Flow
from interpose._method import Side
from interpose.mechanisms.options import insist, is_clock, is_seconds


class Deadline:
    """Let no RPC take longer than `seconds`, nor longer than the RPC whose handler makes it.

    On a client the deadline is the earliest of three: that of the application's own `timeout`, `seconds` from now, and
    that of the incoming RPC whose handler makes this call. It is fixed when the stub is called, so attempts and pauses
    of a `Retry` inside of this share it. When nothing is left, the RPC ends with DEADLINE_EXCEEDED and `error.local`,
    and nothing is sent: grpc itself mostly succeeds with a timeout of 0.

    On a server it is a maximum for the handler, within what the client allows. An asyncio handler is cancelled then. A
    plain one sees it in `context.time_remaining()`, and its response stream is ended at the next message; a thread that
    is busy cannot be stopped. A request whose time has passed before its handler begins, perhaps in a queue, is refused
    unrun.

    seconds:     the limit of an RPC.
    per_attempt: the limit of each attempt, within that; for a `Retry` inside of this.
    clock:       where the time is read; the one that was given to the channel or server.
    """

    def __init__(self, seconds: float, *, per_attempt: float | None = None, clock: Clock = SYSTEM) -> None:
        insist(
            "Deadline",
            (is_seconds(seconds, FOREVER), f"seconds must be a number above 0 and below {FOREVER:g}, not {seconds!r}"),
            (
                per_attempt is None or is_seconds(per_attempt, FOREVER),
                f"per_attempt must be None or a number of seconds above 0, not {per_attempt!r}",
            ),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
        )
        self._seconds = seconds
        self._per_attempt = per_attempt
        self._clock = clock

    def __call__(self, call: Call) -> Flow:
        now = self._clock.now()
        ends = now + self._seconds
        if call.side is Side.CLIENT and (incoming := context.deadline()) is not None:
            ends = min(ends, incoming)
        call = call.with_deadline(ends)
        if call.deadline is not None and call.deadline <= now:
            raise errors.DeadlineExceeded(TOO_LATE[call.side], local=True)
        if self._per_attempt is not None and (call.timeout is None or call.timeout > self._per_attempt):
            call = call.with_timeout(self._per_attempt)
        yield call


TOO_LATE = {
    Side.CLIENT: "the deadline passed before the call was sent",
    Side.SERVER: "the deadline passed before the handler was called",
}
