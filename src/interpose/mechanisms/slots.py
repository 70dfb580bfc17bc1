"""Slots for calls, never more than a limit that may change, and a short queue of those that wait for one.

To take a free slot, or to give one back, is a single step. What concerns the queue is done in `SerialQueue`; there is no lock,
for a finalizer may give a slot back in the middle of anything (see serial_queue.py).
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial

from interpose.mechanisms.serial_queue import SerialQueue


class Answer(enum.Enum):
    """What one that asked for a slot is answered."""

    SLOT = "slot"
    FULL = "full"  # no slot is free, and no place in the queue
    DISPLACED = "displaced"  # it had a place, until one came that goes before it


class Asked:
    """One that asks for a slot. answer: set once, on any thread."""

    __slots__ = ("answer", "has_slot", "number", "partition", "priority")

    def __init__(self, priority: int = 0, partition: str | None = None) -> None:
        self.priority = priority
        self.partition = partition
        self.answer: Future[Answer] = Future()
        self.number = 0  # in the order of arrival
        self.has_slot = False


class Slots:
    """A limit of slots, and up to `queue` that wait.

    Of those that wait the one of the highest priority is next; of equal ones that whose partition holds the fewest slots;
    of these the first to come. If one too many waits, the last in this order is refused.
    """

    def __init__(self, limit: int, queue: int = 0) -> None:
        self.limit = limit
        self.refused = 0
        self._made = limit  # slots that there are; above the limit until enough have come back
        self._free: list[None] = [None] * limit
        self._most = queue
        self._queue: list[Asked] = []
        self._held: dict[str, int] = {}  # slots of each partition that has any
        self._numbers = itertools.count()
        self._changes = SerialQueue()
        self._answers: deque[Callable[[], object]] = deque()  # answers to give when no turn is on

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self._made - len(self._free)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def holds(self) -> dict[str, int]:
        """Slots in use by partition."""
        return self._held.copy()

    def take(self) -> bool:
        """Take a slot, for no partition, if one is free and no call waits."""
        if self._queue:
            return False
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def ask(self, asked: Asked) -> None:
        """Ask for a slot; `asked.answer` is set, at once or when it can be said."""
        self._changes.add(partial(self._enter, asked))
        self.settle()

    def give(self, partition: str | None = None, settle: Callable[[], object] | None = None) -> None:
        """Give back a slot. settle: who lets the next one have it, for finalizers; by default that is done at once."""
        if partition is not None:
            self._changes.add(partial(self._less, partition))
        self._free.append(None)
        if partition is not None or self._queue or self._made > self.limit:
            (settle or self.settle)()

    def leave(self, asked: Asked) -> None:
        """It waits no longer; a slot that it was just given goes to another. `settle` is to follow."""
        self._changes.add(partial(self._gone, asked))

    def do(self, work: Callable[[], object]) -> None:
        """Do this while no other turn is on."""
        self._changes.add(work)
        self.settle()

    def settle(self) -> None:
        """Let those that wait have what is free, and give the answers."""
        self._changes.add(self._match)
        self._changes.run()
        while self._answers:
            with suppress(IndexError):  # another thread reports it
                self._answers.popleft()()

    # - in turn -

    def _enter(self, asked: Asked) -> None:
        asked.number = next(self._numbers)
        self._queue.append(asked)
        self._match()
        if len(self._queue) > self._most:
            last = max(self._queue, key=self._order)
            self._queue.remove(last)
            self.refused += 1
            self._tell(last, Answer.FULL if last is asked else Answer.DISPLACED)

    def _order(self, asked: Asked) -> tuple[int, int, int]:
        return -asked.priority, self._held.get(asked.partition or "", 0), asked.number

    def _match(self) -> None:
        while (self._queue or self._made > self.limit) and self._free:
            with suppress(IndexError):  # another thread has just taken it
                self._free.pop()
                self._use()

    def _use(self) -> None:
        """A slot is here: it is one too many, or the next one's."""
        if self._made > self.limit:
            self._made -= 1
            return
        first = min(self._queue, key=self._order)
        self._queue.remove(first)
        first.has_slot = True
        if first.partition is not None:
            self._held[first.partition] = self._held.get(first.partition, 0) + 1
        self._tell(first, Answer.SLOT)

    def _gone(self, asked: Asked) -> None:
        if asked.has_slot:
            if asked.partition is not None:
                self._less(asked.partition)
            self._free.append(None)
        elif asked in self._queue:
            self._queue.remove(asked)
            self.refused += 1

    def _less(self, partition: str) -> None:
        left = self._held[partition] - 1
        if left:
            self._held[partition] = left
        else:
            del self._held[partition]

    def set_limit(self, limit: int) -> None:
        """Change the limit, in work that `do` does. A lower one is reached when enough slots have come back."""
        self.limit = limit
        more = limit - self._made
        if more > 0:
            self._made += more
            self._free.extend([None] * more)

    def _tell(self, asked: Asked, answer: Answer) -> None:
        self._answers.append(partial(_answered, asked, answer))


def _answered(asked: Asked, answer: Answer) -> None:
    with suppress(InvalidStateError):  # cancelled by one that waited for it
        asked.answer.set_result(answer)
