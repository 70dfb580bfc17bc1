"""Hedging response streams: the first to deliver wins."""

import itertools
import random
import threading

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Outcome, errors
from tests.hedging.serving import (
    AIO_WATCH,
    FAR,
    UNAVAILABLE,
    WATCH,
    Messages,
    Reading,
    hedge,
    open_watch,
    served,
    watch,
)
from tests.support.patience import PATIENCE


def test_the_first_stream_to_deliver_wins(reading: Reading) -> None:
    """It goes on to its end; the other is cancelled, and its handler knows."""
    above: list[Outcome] = []
    below: list[Outcome] = []

    with served("hang", "second") as service:
        messages = reading.read(service, watch(above), hedge(), watch(below))
        assert service.copies[0].cancelled.wait(PATIENCE)

    assert messages == ["second 1", "second 2", "second 3"]
    assert [copy.requests for copy in service.copies] == [reading.requests] * 2
    [outcome] = above
    assert (outcome.ok, outcome.attempts, outcome.responses) == (True, 2, 3)
    assert sorted(outcome.code.name for outcome in below) == ["CANCELLED", "OK"]


def test_an_empty_stream_that_ends_well_wins(reading: Reading) -> None:
    """To have nothing to say is an answer; the other copy is cancelled."""
    with served("hang", Messages()) as service:
        assert reading.read(service, hedge()) == []
        assert service.copies[0].cancelled.wait(PATIENCE)


def test_a_winner_that_breaks_is_the_answer(reading: Reading) -> None:
    """A stream that fails after its first message has failed: no other copy is sent, no message comes twice."""
    messages: list[str] = []

    with served(Messages(("one",), end=UNAVAILABLE), "second") as service, pytest.raises(errors.Unavailable):
        reading.into(messages, service, hedge(3, FAR))

    assert messages == ["one"]
    assert len(service.copies) == 1


def test_a_stream_that_fails_before_its_first_message(reading: Reading) -> None:
    """It lets the next copy go at once; if all do so, the last failure is the answer."""
    with served(UNAVAILABLE, "second") as service:
        messages = reading.read(service, hedge(2, FAR))
    with served(UNAVAILABLE, grpc.StatusCode.NOT_FOUND) as hopeless, pytest.raises(errors.NotFound, match="copy 2"):
        reading.read(hopeless, hedge(2, FAR))

    assert messages == ["second 1", "second 2", "second 3"]
    assert (len(service.copies), len(hopeless.copies)) == (2, 2)


def test_two_deliver_at_the_same_moment(reading: Reading) -> None:
    """One of them is taken as a whole; of the other nothing is seen."""
    for _ in range(20):
        acts = [Messages(tuple(f"{name} {number}" for number in range(4)), together=3) for name in ("a", "b", "c")]
        with served(*acts) as service:
            messages = reading.read(service, hedge(3, 0))

        assert messages in [list(act.texts) for act in acts]


def test_the_deadline_ends_all_streams(reading: Reading) -> None:
    """Before any has delivered, and after one has."""
    gate = threading.Event()

    with served("hang", "hang") as service, pytest.raises(errors.DeadlineExceeded):
        reading.read(service, hedge(), timeout=1.0)
    with served("hang", Messages(("one",), gate)) as late, pytest.raises(errors.DeadlineExceeded):
        try:
            reading.read(late, hedge(), timeout=1.0)
        finally:
            gate.set()

    assert all(copy.cancelled.is_set() for copy in service.copies)


def test_hooks_see_what_is_delivered_once(reading: Reading) -> None:
    """Taps and maps, further out and further in, and in order."""
    outer: list[str] = []
    inner: list[str] = []

    def out(call: Call) -> Flow:
        yield call.tap(responses=outer.append)

    def shout(call: Call) -> Flow:
        yield call.map(responses=str.upper).tap(responses=inner.append)

    with served("hang", "second") as service:
        messages = reading.read(service, out, hedge(), shout)

    assert messages == outer == ["SECOND 1", "SECOND 2", "SECOND 3"]
    assert inner == ["second 1", "second 2", "second 3"]


@pytest.mark.parametrize("reading", [WATCH, AIO_WATCH], ids=str)
def test_a_winner_may_be_resumed(reading: Reading) -> None:
    """A flow below the race that sends again goes on behind what was delivered."""

    def resume(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok and outcome.responses:
            yield call.with_request("the rest").resumed()

    with served(Messages(("one",), end=UNAVAILABLE), Messages(("two", "three"))) as service:
        assert reading.read(service, hedge(2, FAR), resume) == ["one", "two", "three"]

    assert [copy.requests for copy in service.copies] == [["a"], ["the rest"]]


def test_a_copy_that_is_answered_here_wins(reading: Reading) -> None:
    """A cache below the race, say: nothing was sent for this copy, and its messages are delivered."""
    numbers, below = itertools.count(), list[Outcome]()

    def answer_second(call: Call) -> Flow:
        if next(numbers):
            return Outcome(response=["x", "y"])
        yield call
        return None

    with served("hang") as service:
        assert reading.read(service, hedge(), watch(below), answer_second) == ["x", "y"]

    assert sorted(outcome.code.name for outcome in below) == ["CANCELLED", "OK"]


def test_a_stream_that_is_refused_here(reading: Reading) -> None:
    """A copy that was never sent lets the next one go; if all are refused, that is the answer."""
    numbers = itertools.count()

    def refuse_even(call: Call) -> Flow:
        if next(numbers) % 2 == 0:
            raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served("sent") as service:
        messages = reading.read(service, hedge(2, FAR), refuse_even)

    assert messages == ["sent 1", "sent 2", "sent 3"]
    assert len(service.copies) == 1


def test_the_threads_of_a_race_end_when_it_is_decided() -> None:
    """While the winner goes on, nobody looks at the others any more."""
    gate = threading.Event()

    with served("hang", Messages(("one",), gate, ("two",))) as service:
        channel, stream = open_watch(service, hedge())
        assert next(stream) == "one"
        for thread in threading.enumerate():
            if thread.name == "interpose-hedge":
                thread.join(PATIENCE)
        left = [thread.name for thread in threading.enumerate() if thread.name == "interpose-hedge"]
        gate.set()
        assert list(stream) == ["two"]
        channel.close()

    assert left == []


@pytest.mark.slow
def test_messages_keep_their_order(reading: Reading) -> None:
    """Whoever wins, by whatever a hair: its messages come as they were sent, once, and all of them unless it breaks."""
    chance = random.Random(str(reading))
    scripts = [_any_stream(chance, str(number)) for number in range(150)]

    with served(*scripts) as service:
        for _ in range(50):
            messages, broken = list[str](), False
            try:
                reading.into(messages, service, hedge(3, chance.choice([0, 0.001, 0.002, 0.004])))
            except errors.Unavailable:
                broken = True

            assert messages
            won = scripts[int(messages[0].split()[0])]
            assert messages == list(won.texts[: len(messages)])
            assert broken is (won.end is UNAVAILABLE)
            assert broken or len(messages) == len(won.texts)


def _any_stream(chance: random.Random, name: str) -> Messages:
    texts = tuple(f"{name} {number}" for number in range(chance.randrange(1, 6)))
    end = chance.choice([grpc.StatusCode.OK, grpc.StatusCode.OK, UNAVAILABLE])
    return Messages(texts, end=end, pause=chance.choice([0, 0.001, 0.003]))
