"""In `play` a tap sees a message when it comes: after the delay of the act, and not at all if the copy has lost by then."""

import pytest

from interpose import Call, Flow, Kind, chain
from interpose.testing import FakeClock, ok, play
from interpose.testing.acts import Act

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


class Watch:
    """Notes when the first message comes, in seconds since the RPC began."""

    def __init__(self, clock: FakeClock) -> None:
        self.seen: list[tuple[str, float]] = []
        self._clock = clock
        self._began = clock.now()

    def __call__(self, call: Call) -> Flow:
        yield call.tap(responses=self._see)

    def _see(self, message: str) -> None:
        self.seen.append((message, self._clock.now() - self._began))


def hedge(call: Call) -> Flow:
    yield call.hedged(copies=2, delay=1)


@KINDS
def test_a_message_comes_after_its_delay(kind: Kind) -> None:
    """As an interceptor that measures would see it on a real server."""
    clock = FakeClock()
    watch = Watch(clock)

    play(watch, [ok("late", delay=3)], kind=kind, clock=clock)

    assert watch.seen == [("late", 3.0)]


@KINDS
def test_what_a_loser_would_have_said_is_not_seen(kind: Kind) -> None:
    """It was cancelled before its message came."""
    clock = FakeClock()
    watch = Watch(clock)

    play(chain(hedge, watch), [ok("slow", delay=9), ok("quick", delay=1)], kind=kind, clock=clock)

    assert watch.seen == [("quick", 2.0)]


@KINDS
def test_of_one_that_hangs_nothing_is_seen(kind: Kind) -> None:
    """Nor its metadata."""
    clock, shown = FakeClock(), list[object]()

    def look(call: Call) -> Flow:
        yield call.tap(initial_metadata=shown.append)

    play(look, [Act(hang=True, initial=(("x-a", "b"),))], kind=kind, timeout=5, clock=clock)

    assert shown == []
