"""What is counted of one method, on one side.

Counts are plain numbers, and no lock is taken. The garbage collector may end an abandoned call on the very thread that
would hold it; prometheus_client's own counters take one, and would hang then. Adding to a number is one step
where there is a GIL: CPython lets another thread, or the collector, come between two steps only at calls and loops.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from grpc import StatusCode

from interpose._call import Call
from interpose._method import Kind
from interpose.mechanisms.serial_queue import SerialQueue

OK = StatusCode.OK

Trace: TypeAlias = Any  # what `exemplars` makes the labels of an exemplar of, when it is asked for them
Seen: TypeAlias = tuple[Trace, float, float]  # a trace, how many seconds its RPC took, and when that was


class Ends:
    """How many RPCs have ended with one code, by the bucket that their seconds are in."""

    __slots__ = ("counts", "exemplars", "seconds")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.seconds = 0.0
        self.exemplars: dict[int, Seen] = {}  # the last one of each bucket that has any

    @property
    def total(self) -> int:
        """How many in all."""
        return sum(self.counts)

    @property
    def exemplar(self) -> Seen | None:
        """The last one of all buckets."""
        return max(list(self.exemplars.values()), key=lambda seen: seen[2], default=None)


class MethodCounts:
    """What has happened to the RPCs of one method.

    labels: the values of `grpc_type`, `grpc_service`, `grpc_method`. kind: None for methods that are counted together.
    bounds: of the buckets, in seconds. started; requests, responses: messages of streams. again: attempts behind the
    first. unsent: RPCs that ended without an attempt; refused: of these, with a failure.
    """

    __slots__ = (
        "again",
        "bounds",
        "by_code",
        "kind",
        "labels",
        "ok",
        "refused",
        "requests",
        "responses",
        "started",
        "streams",
        "taps",
        "unsent",
    )

    def __init__(self, labels: tuple[str, ...], kind: Kind | None, bounds: tuple[float, ...]) -> None:
        self.labels = labels
        self.kind = kind
        self.bounds = bounds
        self.started = self.requests = self.responses = self.again = self.unsent = self.refused = 0
        self.by_code: dict[StatusCode, Ends] = {}
        self.ok = self.ends_of(OK)
        # Of methods that are counted together each message is counted; else one that is alone goes without saying.
        uploads, downloads = (True, True) if kind is None else (kind.request_streaming, kind.response_streaming)
        self.streams = uploads or downloads
        self.taps: dict[str, Callable[[Any], object] | None] = {
            "requests": self.request_passed if uploads else None,
            "responses": self.response_passed if downloads else None,
        }

    def ends_of(self, code: StatusCode) -> Ends:
        """The ends with this code, from now on shown even if there are none."""
        return self.by_code.get(code) or self.by_code.setdefault(code, Ends(len(self.bounds) + 1))

    def tapped(self, call: Call) -> Call:
        """The call, with its messages counted as they pass."""
        return call.tap(**self.taps)

    # - what happens -

    def begun(self) -> None:
        """An RPC has started."""
        self.started += 1

    def request_passed(self, _: Any) -> None:
        """A request of a stream has passed."""
        self.requests += 1

    def response_passed(self, _: Any) -> None:
        """A response of a stream has passed."""
        self.responses += 1

    def ended(self, code: StatusCode, seconds: float, attempts: int, seen: Seen | None) -> None:
        """An RPC has ended."""
        ends = self.ok if code is OK else self.ends_of(code)
        bucket = bisect_left(self.bounds, seconds)
        counts = ends.counts
        counts[bucket] += 1
        ends.seconds += seconds
        if attempts != 1:
            self._sent(attempts, code)
        if seen is not None:
            ends.exemplars[bucket] = seen

    def _sent(self, attempts: int, code: StatusCode) -> None:
        """It took more attempts than one, or none."""
        if attempts:
            self.again += attempts - 1
        else:
            self.unsent += 1
            if code is not OK:
                self.refused += 1

    # - what has happened -

    @property
    def handled(self) -> int:
        """RPCs that have ended."""
        return sum(ends.total for ends in list(self.by_code.values()))

    @property
    def attempts(self) -> int:
        """Attempts of the RPCs that have ended."""
        return self.handled - self.unsent + self.again

    @property
    def seconds(self) -> float:
        """The seconds of all that have ended."""
        return sum(ends.seconds for ends in list(self.by_code.values()))

    def messages(self) -> tuple[int, int]:
        """Requests and responses. A unary RPC counts as one of each, whatever its end, as with go-grpc-middleware."""
        kind = self.kind
        requests = self.requests if kind is None or kind.request_streaming else self.started
        return requests, self.responses if kind is None or kind.response_streaming else self.handled

    def buckets(self) -> list[int]:
        """How many took at most as long as each bound, and how many in all."""
        columns = zip(*(ends.counts for ends in list(self.by_code.values())), strict=True)
        total, up_to = 0, list[int]()
        for column in columns:
            total += sum(column)
            up_to.append(total)
        return up_to


_turns = [SerialQueue()]  # for all counts that are changed in several steps


def in_turn(work: Callable[[], object]) -> None:
    """Do it before or after, but not beside, all else that is done in turn."""
    turns = _turns[0]
    turns.add(work)
    turns.run()


def forked() -> None:
    """This process has been forked: a thread that had the turn is not in it."""
    _turns[0] = SerialQueue()


class CountsInTurns(MethodCounts):
    """The same where adding to a number is not one step: without a GIL, or because it is written to a file as well."""

    __slots__ = ()

    def begun(self) -> None:
        in_turn(super().begun)

    def request_passed(self, _: Any) -> None:
        in_turn(partial(super().request_passed, None))

    def response_passed(self, _: Any) -> None:
        in_turn(partial(super().response_passed, None))

    def ended(self, code: StatusCode, seconds: float, attempts: int, seen: Seen | None) -> None:
        in_turn(partial(super().ended, code, seconds, attempts, seen))
