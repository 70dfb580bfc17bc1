"""Slots: never more than the limit, each given back once, and in the queue the least important goes first."""

import random
import threading
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from interpose.mechanisms.slots import Answer, Asked, Slots
from tests.support.examples import examples


def answer(asked: Asked) -> Answer | None:
    return asked.answer.result() if asked.answer.done() else None


def asking(slots: Slots, *priorities: int, partition: str | None = None) -> list[Asked]:
    """Ask once for each priority."""
    all_asked = [Asked(priority, partition) for priority in priorities]
    for asked in all_asked:
        slots.ask(asked)
    return all_asked


def test_the_lowest_priority_is_refused_first() -> None:
    """One that is more important displaces it; of equal ones the last to come goes."""
    slots = Slots(1, 2)
    assert slots.take()
    low, first, second, high = asking(slots, -1, 0, 0, 5)

    assert [answer(low), answer(first), answer(second), answer(high)] == [
        Answer.DISPLACED,
        None,
        Answer.DISPLACED,
        None,
    ]
    assert answer(asking(slots, 0)[0]) is Answer.FULL
    assert slots.refused == 3


def test_the_most_important_is_next() -> None:
    """And among equal ones the first to come."""
    slots = Slots(1, 3)
    slots.take()
    waiting = first, second, high = asking(slots, 0, 0, 7)
    served: list[Asked] = []
    for _ in waiting:
        slots.give()
        served += [asked for asked in waiting if answer(asked) and asked not in served]

    assert served == [high, first, second]


def test_a_partition_with_many_does_not_take_all() -> None:
    """The one that holds fewer is next, though it came later."""
    slots = Slots(2, 4)
    asking(slots, 0, 0, partition="busy")
    (third,) = asking(slots, 0, partition="busy")
    (other,) = asking(slots, 0, partition="quiet")
    slots.give("busy")

    assert (answer(third), answer(other)) == (None, Answer.SLOT)
    assert slots.holds() == {"busy": 1, "quiet": 1}
    for partition in ("busy", "quiet", "busy"):
        slots.give(partition)
    assert slots.holds() == {}


def test_nobody_overtakes_one_that_waits() -> None:
    """A slot that comes back is handed on, not taken by the next to arrive."""
    slots = Slots(1, 1)
    slots.take()
    (waiting,) = asking(slots, 0)
    slots.give(settle=lambda: None)

    assert not slots.take()
    slots.settle()
    assert answer(waiting) is Answer.SLOT


def test_a_lower_limit_is_reached_when_calls_end() -> None:
    """None is cut off; a higher one lets those that wait go on at once."""
    slots = Slots(3, 2)
    assert all(slots.take() for _ in range(3))
    slots.do(partial(slots.set_limit, 1))
    waiting = asking(slots, 0, 0)
    slots.give()
    slots.give()

    assert (slots.taken, slots.waiting) == (1, 2)
    slots.do(partial(slots.set_limit, 3))
    assert [answer(asked) for asked in waiting] == [Answer.SLOT] * 2
    assert slots.taken == 3


def test_one_that_leaves_with_a_slot_hands_it_on() -> None:
    """It was given one in the moment in which it gave up."""
    slots = Slots(1, 2)
    slots.take()
    late, other = asking(slots, 0, 0, partition="a")
    slots.give()
    slots.leave(late)
    slots.settle()

    assert answer(other) is Answer.SLOT
    assert slots.holds() == {"a": 1}


def test_a_waiting_one_whose_future_was_cancelled() -> None:
    """Its answer is of no use, and does no harm."""
    slots = Slots(1, 1)
    slots.take()
    (asked,) = asking(slots, 0)
    asked.answer.cancel()
    slots.give()
    slots.leave(asked)
    slots.settle()

    assert slots.taken == 0


def test_threads() -> None:
    """Never more than the limit at once, and in the end all slots are back, whatever threads do."""
    slots, most, inside = Slots(3, 4), [0], []

    def work(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(300):
            partition = choice.choice([None, "a", "b"])
            if partition is not None or not slots.take():
                asked = Asked(choice.randrange(3), partition)
                slots.ask(asked)
                if asked.answer.result(20) is not Answer.SLOT:
                    continue
            inside.append(None)
            most[0] = max(most[0], len(inside))
            inside.pop()
            slots.give(partition)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most[0] <= 3
    assert (slots.taken, slots.waiting, slots.holds()) == (0, 0, {})


class Model(RuleBasedStateMachine):
    """However calls come, end, leave, and the limit changes: slots are neither lost nor made."""

    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(2, 3)
        self.all: list[Asked] = []
        self.fast = 0

    @rule(target=asked, priority=st.integers(-2, 2), partition=st.sampled_from([None, "a", "b"]))
    def ask(self, priority: int, partition: str | None) -> Asked:
        one = Asked(priority, partition)
        self.all.append(one)
        self.slots.ask(one)
        return one

    @rule()
    def take(self) -> None:
        free = self.slots.taken < self.slots.limit
        assert self.slots.take() == free
        self.fast += free

    @rule(deferred=st.booleans())
    def give(self, deferred: bool) -> None:
        if self.fast:
            self.fast -= 1
            if deferred:
                self.slots.give(settle=lambda: None)
                self.slots.settle()
            else:
                self.slots.give()

    @rule(one=consumes(asked))
    def end(self, one: Asked) -> None:
        """A call that has a slot ends; one that waits leaves."""
        self.all.remove(one)
        if answer(one) is Answer.SLOT:
            self.slots.give(one.partition)
        else:
            self.slots.leave(one)
            self.slots.settle()

    @rule(limit=st.integers(1, 4))
    def resize(self, limit: int) -> None:
        self.slots.do(partial(self.slots.set_limit, limit))

    @invariant()
    def counts(self) -> None:
        having = [one for one in self.all if answer(one) is Answer.SLOT]
        waiting = [one for one in self.all if answer(one) is None]
        assert self.slots.taken == len(having) + self.fast
        assert self.slots.waiting == len(waiting) <= 3
        assert not waiting or self.slots.taken >= self.slots.limit
        assert sum(self.slots.holds().values()) == sum(one.partition is not None for one in having)
        refused = [one for one in self.all if answer(one) in {Answer.FULL, Answer.DISPLACED}]
        assert not any(
            one.priority > other.priority for one in refused for other in waiting if one.number > other.number
        )


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
