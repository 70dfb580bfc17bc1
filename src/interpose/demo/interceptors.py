"""Two interceptors as a user would write them: they run in all sixteen places and know of none."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass
from time import perf_counter

import grpc

from interpose import Call, Flow, Kind, Side, errors

REQUEST_ID = "x-request-id"


@dataclass(frozen=True)
class Sample:
    """One RPC as a `Meter` saw it."""

    kind: Kind
    code: grpc.StatusCode
    attempts: int
    requests: int
    responses: int
    seconds: float


class Meter:
    """Keeps a sample of each RPC that ended here. Threads and tasks may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: list[Sample] = []

    def __call__(self, call: Call) -> Flow:
        started = perf_counter()
        outcome = yield call
        # A server counts what arrived, also what was refused further in without calling the handler.
        attempts = outcome.attempts if call.side is Side.CLIENT else 1
        seconds = perf_counter() - started
        sample = Sample(call.kind, outcome.code, attempts, outcome.requests, outcome.responses, seconds)
        with self._lock:
            self._samples.append(sample)

    def samples(self) -> list[Sample]:
        """What was seen so far."""
        with self._lock:
            return list(self._samples)


@dataclass(frozen=True)
class Fate:
    """What the seed foretells of one call that may be sent several times."""

    attempts: int
    served: bool


class Faults:
    """Ends a share of the attempts with UNAVAILABLE before the handler runs; the same ones for the same seed.

    Whether an attempt is refused depends on the seed, the call's request id and how often it came before, not
    on the order in which calls arrive: `foretell` knows each call's end however threads and tasks interleave.

    share: of the attempts, from 0 to 1.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._seed = seed
        self._share = share
        self._lock = threading.Lock()
        self._arrivals: Counter[str] = Counter()

    def __call__(self, call: Call) -> Flow:
        request_id = str(call.metadata.get(REQUEST_ID))
        with self._lock:
            self._arrivals[request_id] += 1
            arrival = self._arrivals[request_id]
        if self._refuses(request_id, arrival):
            raise errors.Unavailable(f"refused on purpose, arrival {arrival} of {request_id}")
        yield call

    def foretell(self, request_id: str, attempts: int) -> Fate:
        """How a call ends that is sent `attempts` times at most."""
        for arrival in range(1, attempts + 1):
            if not self._refuses(request_id, arrival):
                return Fate(arrival, served=True)
        return Fate(attempts, served=False)

    def _refuses(self, request_id: str, arrival: int) -> bool:
        return random.Random(f"{self._seed}/{request_id}/{arrival}").random() < self._share
