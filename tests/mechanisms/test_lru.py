"""Lru: what it keeps and for how long, against a slow, obvious model."""

import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from interpose.mechanisms.lru import Lru, Registry
from tests.support.examples import examples

KEYS = st.sampled_from("abcdef")
QUARTERS = st.integers(0, 40).map(lambda number: number / 4)  # seconds; a float holds them exactly
MOST = 3


class Machine(RuleBasedStateMachine):
    """An Lru beside a list of all that is kept, used longest ago first."""

    def __init__(self) -> None:
        super().__init__()
        self.lru: Lru[str, int] = Lru(MOST)
        self.model: list[tuple[str, int, float]] = []
        self.now = 1000.0
        self.numbers = 0

    def take(self, key: str) -> tuple[str, int, float] | None:
        found = next((entry for entry in self.model if entry[0] == key), None)
        if found:
            self.model.remove(found)
        return found

    @rule(seconds=QUARTERS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=KEYS, seconds=QUARTERS)
    def put(self, key: str, seconds: float) -> None:
        self.numbers += 1
        until = self.now + seconds
        self.lru.put(key, self.numbers, until)

        there = self.take(key)
        entry = there if there and there[2] > until else (key, self.numbers, until)
        self.model = [*self.model, entry][-MOST:]

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        entry = self.take(key)
        fresh = entry is not None and self.now < entry[2]
        if entry and fresh:
            self.model.append(entry)

        assert self.lru.get(key, self.now) == (entry[1] if entry and fresh else None)

    @invariant()
    def as_many_as_the_model(self) -> None:
        assert len(self.lru) == len(self.model) <= MOST


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)


def test_a_value_ends_at_its_time() -> None:
    """Up to `until` it is given, and not at `until`; then it is forgotten."""
    lru: Lru[str, str] = Lru(2)
    lru.put("a", "A", until=10.0)

    assert lru.get("a", 9.999) == "A"
    assert lru.get("a", 10.0) is None
    assert len(lru) == 0


def test_the_one_used_longest_ago_is_forgotten() -> None:
    """To be asked for is to be used."""
    lru: Lru[str, str] = Lru(2)
    lru.put("a", "A", until=10.0)
    lru.put("b", "B", until=10.0)
    lru.get("a", 0.0)
    lru.put("c", "C", until=10.0)

    assert [lru.get(key, 0.0) for key in "abc"] == ["A", None, "C"]


def test_an_older_value_does_not_replace_a_newer_one() -> None:
    """Of two that were fetched at the same time the one that lasts longer is kept, whichever comes last."""
    lru: Lru[str, str] = Lru(2)
    lru.put("a", "new", until=11.0)
    lru.put("a", "old", until=10.0)

    assert lru.get("a", 0.0) == "new"


@pytest.mark.parametrize("most", [1, 7])
def test_many_threads_at_once(most: int) -> None:
    """Whatever they do at the same time nothing fails, no key gives another's value, and it stays bounded."""
    lru: Lru[int, int] = Lru(most)
    wrong: list[Any] = []
    begin = threading.Barrier(8)

    def use(seed: int) -> None:
        begin.wait()
        try:
            for step in range(3000):
                key = (step * (seed + 3)) % 13
                lru.put(key, key, until=step % 5 + 1.0)
                if lru.get(key, float(step % 4)) not in (key, None):
                    wrong.append(key)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert len(lru) <= most


# --- registry -------------------------------------------------------------------------------------------------------


class Registered(RuleBasedStateMachine):
    """A Registry beside a list of its keys and values, asked for longest ago first."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.registry: Registry[str, str] = Registry(MOST, self.make)
        self.model: dict[str, str] = {}

    def make(self, key: str) -> str:
        self.made += 1
        return f"{key}{self.made}"

    @rule(key=KEYS)
    def ask(self, key: str) -> None:
        value = self.registry[key]

        assert value == self.model.pop(key, f"{key}{self.made}")
        self.model[key] = value
        self.model = dict(list(self.model.items())[-MOST:])

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        assert self.registry.pop(key) == self.model.pop(key, None)

    @rule(key=KEYS)
    def put(self, key: str) -> None:
        self.registry.pop(key)
        self.model.pop(key, None)
        self.registry.put(key, "put")
        self.model[key] = "put"
        self.model = dict(list(self.model.items())[-MOST:])

    @invariant()
    def they_agree(self) -> None:
        assert self.registry.items() == list(self.model.items())
        assert len(self.registry) == len(self.model)


TestRegistered = Registered.TestCase
TestRegistered.settings = settings(max_examples=examples(100), stateful_step_count=30, deadline=None)


def test_a_registry_is_bounded_whatever_threads_do() -> None:
    """Strangers' keys on eight threads, while another one lists them: never more than `most` and one per thread."""
    registry: Registry[str, list[str]] = Registry(64, lambda key: [key])
    errors: list[BaseException] = []
    sizes: list[int] = []

    def ask(name: int) -> None:
        try:
            for number in range(2000):
                assert registry[f"{name}.{number}"] == [f"{name}.{number}"]
                sizes.append(len(registry))
        except BaseException as error:  # told to the test
            errors.append(error)

    workers = [threading.Thread(target=ask, args=(name,)) for name in range(8)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        sizes.append(len(registry.items()))

    assert not errors
    assert max(sizes) <= 64 + 8
    assert len(registry) == 64
