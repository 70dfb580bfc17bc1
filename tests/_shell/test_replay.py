"""Kept request messages: what any number of readers get, in whatever order they come."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interpose._call import Overflowed
from interpose._shell.codec import encoded
from interpose._shell.replay import ASK, WAIT, Kept, Need, Reader, Replay

LIMIT = 1


class Readers(RuleBasedStateMachine):
    """Attempts that begin, read and end, and an application that takes its time; sizes are known at once or later."""

    def __init__(self) -> None:
        super().__init__()
        self.replay = Replay(LIMIT)
        self.given: list[int] = []
        self.got: dict[Reader, list[int]] = {}
        self.asking = self.ended = False
        self.lost: set[Reader] = set()
        self.waiting: set[Reader] = set()
        self.promised: set[Reader] = set()  # waited when a message came

    @property
    def live(self) -> list[Reader]:
        return [reader for reader in self.got if not reader.over and reader not in self.lost]

    @precondition(lambda self: self.replay.replayable and len(self.live) < 4)
    @rule()
    def begin(self) -> None:
        self.got[Reader()] = []

    @precondition(lambda self: self.live)
    @rule(number=st.integers(0, 3))
    def read(self, number: int) -> None:
        reader = self.live[number % len(self.live)]
        got = self.got[reader]
        try:
            found = self.replay.next_for(reader)
        except Overflowed:
            assert not self.replay.replayable
            assert reader not in self.promised, "who waited for a message gets it"
            assert len(got) < len(self.given) - 1, "who is in front, or next to it, goes on"
            self.lost.add(reader)
            return
        self.promised.discard(reader)
        if isinstance(found, Kept):
            got.append(found.message)
            self.replay.measured(found, 1)
        elif isinstance(found, Need):
            self.waiting.add(reader)
        if found is ASK:
            assert not self.asking, "one at a time"
            self.asking = True
        elif found is WAIT:
            assert self.asking
        elif found is None:
            assert self.ended and got == self.given, "the end is the whole"

    @precondition(lambda self: self.asking and not self.ended)
    @rule(known=st.booleans())
    def give(self, known: bool) -> None:
        self.asking = False
        self.given.append(len(self.given))
        self.promised |= self.waiting
        self.waiting.clear()
        message = self.given[-1]
        self.replay.came(Kept(message, encoded(message, lambda _: b"m") if known else None))

    @rule()
    def nothing_happens(self) -> None:
        """There is always a step, also when no reader may begin."""

    @precondition(lambda self: self.asking and not self.ended)
    @rule()
    def end(self) -> None:
        self.asking, self.ended = False, True
        self.replay.finish()

    @precondition(lambda self: self.live)
    @rule(number=st.integers(0, 3))
    def leave(self, number: int) -> None:
        reader = self.live[number % len(self.live)]
        assert self.replay.leave(reader) is self.replay.replayable
        assert self.replay.next_for(reader) is None

    @invariant()
    def each_has_the_stream_so_far(self) -> None:
        assert all(got == self.given[: len(got)] for got in self.got.values())

    @invariant()
    def what_fits_can_be_read_again(self) -> None:
        if len(self.given) <= LIMIT:
            assert self.replay.replayable

    @invariant()
    def no_more_is_kept_than_fits_and_one(self) -> None:
        assert len(self.replay._kept or ()) <= LIMIT + 1 + sum(kept.size is None for kept in self.replay._kept or ())


TestReaders = Readers.TestCase


def test_a_reader_behind_an_overflow_never_sees_an_end() -> None:
    """It fails: a server that saw the end would take a part for the whole."""
    replay, front, behind = Replay(1), Reader(), Reader()
    for message in range(3):
        assert replay.next_for(front) is ASK
        replay.came(Kept(message, encoded(message, lambda _: b"m")))
        assert replay.next_for(front) is not None
    assert replay.next_for(front) is ASK
    replay.finish()

    assert replay.next_for(front) is None
    with pytest.raises(Overflowed) as caught:
        replay.next_for(behind)
    assert caught.value.local


def test_a_reader_that_waited_gets_what_came() -> None:
    """However late its thread wakes: it had fallen behind nobody when the message came that was too much."""
    replay, front, waits = Replay(0), Reader(), Reader()
    assert (replay.next_for(front), replay.next_for(waits)) == (ASK, WAIT)
    for message in range(3):
        replay.came(Kept(message, encoded(message, lambda _: b"m")))
        got = replay.next_for(front)
        assert isinstance(got, Kept) and got.message == message
        assert replay.next_for(front) is ASK

    late = replay.next_for(waits)
    assert isinstance(late, Kept) and late.message == 0
    with pytest.raises(Overflowed):
        replay.next_for(waits)


def test_the_first_end_counts() -> None:
    """An RPC that is over asks for nothing more, and what its asking is told by then is no failure."""
    replay, reader = Replay(1), Reader()
    assert replay.next_for(reader) is ASK
    replay.finish()
    replay.finish(ValueError())

    assert replay.next_for(reader) is None
