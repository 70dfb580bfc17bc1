"""A circuit breaker keyed by what strangers send keeps 1,024 breakers, whatever number of threads ask, and fails no RPC."""

import sys
import threading
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from interpose.interceptors.circuit_breaker import MAX_KEYS, CircuitBreaker
from interpose.interceptors.keys import by_method
from interpose.testing import ok, play

THREADS = 8


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads that take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_bounded_means_bounded(impatient: None) -> None:
    """Neither does an RPC end INTERNAL because another thread changes what is kept."""
    breaker = CircuitBreaker(key=by_method)
    codes: set[StatusCode] = set()
    for number in range(MAX_KEYS):
        breaker._breaker(f"/a.A/{number}")

    def calls(name: int) -> None:
        for number in range(150):
            codes.add(play(breaker, [ok()], method=f"/{name}.A/{number}").outcome.code)

    workers = [threading.Thread(target=calls, args=(name,)) for name in range(THREADS)]
    for worker in workers:
        worker.start()
    most = 0
    while any(worker.is_alive() for worker in workers):
        most = max(most, len(breaker.snapshot()))

    assert codes == {StatusCode.OK}
    assert most <= MAX_KEYS + THREADS
    assert len(breaker.snapshot()) == MAX_KEYS
