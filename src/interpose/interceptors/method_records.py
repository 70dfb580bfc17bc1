"""What `Rpcz` knows of each method: counts, errors, latencies of late, and a few single RPCs.

Counts and errors are kept for every method, up to a number; latencies, rates and samples, which take ten times the
memory, for the `DETAILED` that are called. An RPC that ends is only put down. It is counted by the thread that fills a batch,
or reads: so counting needs no lock, and no count is lost.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterator

from grpc import StatusCode

from interpose._method import Kind, Side
from interpose.mechanisms.rolling import BUCKETS, Ring, bucket_of
from interpose.mechanisms.serial_queue import SerialQueue

MINUTE, TEN_MINUTES = 60.0, 600.0
DETAILED = 256  # methods; with all else 10,000 methods stay below 8 MB
SAMPLES = 5  # of each method: the last ones, the last failures, the slowest
BATCH = 64  # RPCs that are counted in one go, which takes some 0.1 ms
STRETCHES = 5  # of a minute and of ten, which are forgotten a fifth at a time
MAX_NAME = 256  # characters; a server with a generic handler takes names of any length
OTHERS = "other methods"  # what is beyond the number of methods, or has too long a name

CODES = tuple(StatusCode)
_PLACES = {code: place for place, code in enumerate(CODES)}
_OK = StatusCode.OK


class Rpc:
    """One RPC: while it is in flight, while it waits to be counted, and as a sample."""

    __slots__ = (
        "attempts",
        "code",
        "deadline",
        "details",
        "elapsed",
        "ended",
        "peer",
        "record",
        "request_id",
        "requests",
        "responses",
        "started",
    )

    def __init__(
        self, record: Record, started: float, deadline: float | None, peer: str | None, request_id: str | None
    ) -> None:
        self.record = record
        self.started = started
        self.deadline = deadline
        self.peer = peer
        self.request_id = request_id
        self.details = ""
        self.ended: float
        self.elapsed: float
        self.code: StatusCode
        self.attempts: int
        self.requests: int
        self.responses: int


class Detail:
    """What is known of late, of one method."""

    __slots__ = ("_least", "_purge", "failures", "minute", "recent", "seconds", "slow", "ten_minutes", "total")

    def __init__(self) -> None:
        self.seconds = Ring(int(MINUTE), 1.0, 2)  # RPCs that ended well, and others
        self.minute = Ring(STRETCHES, MINUTE / STRETCHES, BUCKETS)
        self.ten_minutes = Ring(STRETCHES, TEN_MINUTES / STRETCHES, BUCKETS)
        self.total = array("Q", bytes(8 * BUCKETS))
        self.recent: list[Rpc] = []  # oldest first
        self.failures: list[Rpc] = []  # the same, of those that failed
        self.slow: tuple[Rpc, ...] = ()  # of the last ten minutes, slowest first
        self._least = -1.0  # seconds that one has to take more than to be among the slow
        self._purge = 0.0  # when one of the slow is too old

    def count(self, rpc: Rpc) -> None:
        """One RPC more."""
        now, elapsed, failed = rpc.ended, rpc.elapsed, rpc.code is not _OK
        bucket = bucket_of(elapsed)
        self.seconds.add(failed, now)
        self.minute.add(bucket, now)
        self.ten_minutes.add(bucket, now)
        self.total[bucket] += 1
        _keep(self.recent, rpc)
        if failed:
            _keep(self.failures, rpc)
        if elapsed > self._least or now >= self._purge:
            self._keep_slow(rpc)

    def slow_at(self, now: float) -> list[Rpc]:
        """The slowest RPCs of the last ten minutes, slowest first."""
        return [one for one in self.slow if one.ended >= now - TEN_MINUTES]

    def _keep_slow(self, rpc: Rpc) -> None:
        kept = sorted([*self.slow_at(rpc.ended), rpc], key=lambda one: -one.elapsed)[:SAMPLES]
        self.slow = tuple(kept)
        self._least = kept[-1].elapsed if len(kept) == SAMPLES else -1.0
        self._purge = min(one.ended for one in kept) + TEN_MINUTES


def _keep(samples: list[Rpc], rpc: Rpc) -> None:
    """Keep it as the last of a few."""
    samples.append(rpc)
    if len(samples) > SAMPLES:
        del samples[0]


class Record:
    """One method on one side."""

    __slots__ = ("_failures", "detail", "ended", "kind", "latest", "name", "side")

    def __init__(self, side: Side, name: str, kind: Kind | None) -> None:
        self.side = side
        self.name = name
        self.kind = kind  # None for others: there may be several
        self.ended = 0
        self.latest = 0.0  # when the last one ended
        self.detail: Detail | None = None
        self._failures: array[int] | None = None

    def count(self, rpc: Rpc) -> None:
        """One RPC more."""
        self.ended += 1
        self.latest = rpc.ended
        if rpc.code is not _OK:
            if self._failures is None:
                self._failures = array("Q", bytes(8 * len(CODES)))
            self._failures[_PLACES[rpc.code]] += 1

    @property
    def failed(self) -> int:
        """How many ended with another code than OK."""
        return 0 if self._failures is None else sum(self._failures)

    @property
    def failures(self) -> dict[str, int]:
        """How many ended with each code other than OK, the most frequent first."""
        if self._failures is None:
            return {}
        counted = {code.name: count for code, count in zip(CODES, self._failures, strict=True) if count}
        return dict(sorted(counted.items(), key=lambda pair: -pair[1]))


class Records:
    """The methods of both sides, and the RPCs in flight."""

    def __init__(self, most: int) -> None:
        self.in_flight: set[Rpc] = set()
        self.by_side: dict[Side, dict[str, Record]] = {side: {} for side in Side}
        self._most = most
        self._ended: deque[Rpc] = deque()
        self._turns = SerialQueue()
        self._detailed: set[Record] = set()
        self._look_again = 0.0  # when it is worth it to look for methods that are called no more

    def record(self, side: Side, name: str, kind: Kind) -> Record:
        """That of a method, made when it is first called."""
        records = self.by_side[side]
        found = records.get(name)
        if found is None:
            if len(name) > MAX_NAME or sum(map(len, self.by_side.values())) >= self._most:
                return records.setdefault(OTHERS, Record(side, OTHERS, None))
            found = records.setdefault(name, Record(side, name, kind))
        return found

    def end(self, rpc: Rpc) -> None:
        """It has ended; `ended` and `code` say when and how."""
        self.in_flight.discard(rpc)
        self._ended.append(rpc)
        if len(self._ended) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Count all that has ended; if another thread is at it, that one does."""
        self._turns.add(self._count)
        self._turns.run()

    def flying(self) -> list[Rpc]:
        """What is in flight, the oldest first."""
        return sorted(_copied(self.in_flight), key=lambda rpc: rpc.started)

    def all(self) -> Iterator[tuple[Record, int]]:
        """Each method, and how many of its RPCs are in flight."""
        flying = Counter(rpc.record for rpc in _copied(self.in_flight))
        for records in self.by_side.values():
            for record in list(records.values()):
                yield record, flying[record]

    def _count(self) -> None:
        while True:
            try:
                rpc = self._ended.popleft()
            except IndexError:
                return
            record = rpc.record
            record.count(rpc)
            detail = record.detail or self._detail_of(record, rpc.ended)
            if detail is not None:
                detail.count(rpc)

    def _detail_of(self, record: Record, now: float) -> Detail | None:
        """Room for what is known of late, if there is any: a method that is called no more gives up its own."""
        if len(self._detailed) >= DETAILED and now >= self._look_again:
            self._look_again = now + 1.0
            for idle in [one for one in self._detailed if one.latest < now - TEN_MINUTES]:
                self._detailed.discard(idle)
                idle.detail = None
        if len(self._detailed) >= DETAILED:
            return None
        self._detailed.add(record)
        record.detail = Detail()
        return record.detail


def _copied(rpcs: set[Rpc]) -> list[Rpc]:
    while True:
        try:
            return list(rpcs)
        except RuntimeError:  # a set says so if it was changed meanwhile
            continue
