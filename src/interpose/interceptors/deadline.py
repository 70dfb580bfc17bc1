"""A limit of time for every RPC: fixed once, and kept by everything that happens on its behalf."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from interpose import context, errors
from interpose._call import Call
from interpose._clock import FOREVER
from interpose._flow import Flow
from interpose._method import Side
from interpose.mechanisms.options import check_options, is_seconds, must_be, option, optional, ruled


def _is_time(value: object) -> bool:
    return is_seconds(value, FOREVER)


@dataclass(eq=False, repr=False)
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

    seconds:     the limit of an RPC, in seconds above 0.
    per_attempt: the limit of each attempt in seconds, within that; for a `Retry` inside of this.

    ValueError listing every fault of the options.
    """

    seconds: float = field(metadata=ruled(must_be(f"a number above 0 and below {FOREVER:g}", _is_time)))
    _: KW_ONLY
    per_attempt: float | None = option(None, optional("a number of seconds above 0", _is_time))

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, call: Call) -> Flow:
        now = call.clock.now()
        ends = now + self.seconds
        if call.side is Side.CLIENT and (incoming := context.deadline()) is not None:
            ends = min(ends, incoming)
        call = call.with_deadline(ends)
        if call.deadline is not None and call.deadline <= now:
            raise errors.DeadlineExceeded(TOO_LATE[call.side], local=True)
        if self.per_attempt is not None and (call.timeout is None or call.timeout > self.per_attempt):
            call = call.with_timeout(self.per_attempt)
        yield call


TOO_LATE = {
    Side.CLIENT: "the deadline passed before the call was sent",
    Side.SERVER: "the deadline passed before the handler was called",
}
