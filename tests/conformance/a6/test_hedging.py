"""What gRFC A6 says of hedging: the five ways in which a server may respond, and what holds for all of them.

No implementation of gRPC has a table for it: core has no hedging, and grpc-go neither. The names are A6's own words.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc
import pytest

from interpose.interceptors import Hedge, HedgeDetails, Retry
from interpose.mechanisms.budget import RetryBudget
from interpose.testing import FakeClock
from tests.conformance.a6.callers import DOWNLOADS, IN_STEPS, UPLOADS, WAYS, Way
from tests.conformance.a6.peer import fail, peer, pushback, read, send, wait_for, wait_for_the_client_to_go
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CANCELLED = grpc.StatusCode.CANCELLED

each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_in_steps = pytest.mark.parametrize("way", IN_STEPS, ids=str)
each_upload = pytest.mark.parametrize("way", UPLOADS, ids=str)
each_download = pytest.mark.parametrize("way", DOWNLOADS, ids=str)

SILENT = (read(1), wait_for_the_client_to_go)
REFUSED = (read(1), fail(UNAVAILABLE))
ANSWERED = (read(1), send("answer"))


class Clock(FakeClock):
    """Tells when timers are set."""

    def wait_set(self, timers: int) -> None:
        """Block until that many were set since the beginning."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.pauses) >= timers, PATIENCE), self.pauses


def hedge(copies: int = 3, **more: Any) -> Hedge:
    """A copy each second."""
    options: dict[str, Any] = {"delay": 1.0, "safe": True}
    return Hedge(copies, **(options | more))


# --- the five responses -----------------------------------------------------------------------------------------------


@each_way
def test_ok(way: Way) -> None:
    """A good answer is given at once; the copies that are still running are cancelled, at the server too."""
    clock = Clock()

    with (
        peer(SILENT, ANSWERED) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        reply = rpc.end()
        server.wait_ended(2)

    assert reply.ok and reply.messages == ["answer"]
    assert [turn.left for turn in server.turns] == [True, False]
    assert clock.waiting == 0


@each_way
def test_fatal_status(way: Way) -> None:
    """A failure that is not among the codes is the answer; the others are cancelled, and no other copy goes."""
    clock = Clock()

    with (
        peer(SILENT, (read(1), fail(grpc.StatusCode.INVALID_ARGUMENT, "no"))) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        reply = rpc.end()
        server.wait_ended(2)

    assert (reply.code, reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, "no")
    assert [turn.left for turn in server.turns] == [True, False]


@each_way
def test_nonfatal_status(way: Way) -> None:
    """The next copy goes at once, without the delay."""
    clock = Clock()

    with peer(REFUSED, ANSWERED) as server, way.client(server.target, hedge(), clock=clock) as client:
        reply = client.call(timeout=None)

    assert reply.ok and reply.messages == ["answer"]
    assert server.numbers == [[], ["1"]]


@each_way
def test_the_delay_resumes(way: Way) -> None:
    """After a copy that a failure let go, the next one waits for the whole delay again."""
    clock, refuse = Clock(), threading.Event()

    with (
        peer((read(1), wait_for(refuse), fail(UNAVAILABLE)), SILENT, ANSWERED) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(0.75)
        refuse.set()
        server.wait_begun(2)
        clock.advance(0.75)
        begun_too_early = len(server.turns) > 2 or clock.waiting == 0
        clock.advance(0.25)
        reply = rpc.end()

    assert not begun_too_early
    assert reply.ok and reply.messages == ["answer"]
    assert clock.pauses == [1.0, 1.0]


@each_way
def test_pushback_no(way: Way) -> None:
    """A negative pushback: no other copy goes, neither at once nor later, and those that run may still answer."""
    clock, answer = Clock(), threading.Event()
    ended = threading.Event()

    with (
        peer(
            (read(1), wait_for(answer), send("answer")),
            (read(1), pushback("-1"), fail(UNAVAILABLE)),
        ) as server,
        way.client(server.target, hedge(4, on_hedge=lambda _: ended.set()), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        assert ended.wait(PATIENCE)
        answer.set()
        reply = rpc.end()
        clock.advance(10)

    assert reply.ok and reply.messages == ["answer"]
    assert len(server.turns) == 2
    assert clock.pauses == [1.0, 1.0]  # each copy but the last sets a timer for the next: there was no third


@each_way
def test_pushback_no_to_the_only_copy(way: Way) -> None:
    """If none runs, that failure is the answer."""
    clock = Clock()

    with (
        peer((read(1), pushback("-1"), fail(UNAVAILABLE, "go away"))) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        reply = client.call(timeout=None)

    assert (reply.code, reply.details) == (UNAVAILABLE, "go away")
    assert len(server.turns) == 1


@each_way
def test_pushback_n_ms(way: Way) -> None:
    """The next copy goes when the server says, and the one behind it after the delay."""
    clock = Clock()

    with (
        peer((read(1), pushback("5500"), fail(UNAVAILABLE)), SILENT, ANSWERED) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        clock.wait_set(2)
        clock.advance(5.5)
        server.wait_begun(2)
        clock.advance(1)
        reply = rpc.end()

    assert reply.ok and reply.messages == ["answer"]
    assert clock.pauses == [1.0, 5.5, 1.0]
    assert server.numbers == [[], ["1"], ["2"]]


# --- what holds for all of them ---------------------------------------------------------------------------------------


@each_way
def test_all_fail(way: Way) -> None:
    """After the last copy the last failure is the answer."""
    clock = Clock()
    script = [(read(1), fail(UNAVAILABLE, which)) for which in ("first", "second", "third")]

    with peer(*script) as server, way.client(server.target, hedge(), clock=clock) as client:
        reply = client.call(timeout=None)

    assert (reply.code, reply.details) == (UNAVAILABLE, "third")
    assert server.numbers == [[], ["1"], ["2"]]


@each_way
def test_no_more_copies_than_allowed(way: Way) -> None:
    """When all have been sent nothing more is, however long they take."""
    clock, answer = Clock(), threading.Event()

    with (
        peer(SILENT, (read(1), wait_for(answer), send("answer"))) as server,
        way.client(server.target, hedge(copies=2), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        server.wait_begun(2)
        waiting = clock.waiting
        clock.advance(3600)
        answer.set()
        reply = rpc.end()

    assert waiting == 0
    assert reply.ok and len(server.turns) == 2


@each_way
def test_no_delay(way: Way) -> None:
    """With a delay of 0 all copies go at once, and the first to answer wins."""
    clock = Clock()

    with (
        peer(SILENT, SILENT, ANSWERED) as server,
        way.client(server.target, hedge(delay=0), clock=clock) as client,
    ):
        reply = client.call(timeout=None)
        server.wait_ended(3)

    assert reply.ok and reply.messages == ["answer"]
    assert [turn.left for turn in server.turns] == [True, True, False]
    assert sorted(number for numbers in server.numbers for number in numbers) == ["1", "2"]


@each_way
def test_throttled_from_the_beginning(way: Way) -> None:
    """Without tokens enough the call is sent once, and that one copy has its time."""
    clock, answer = Clock(), threading.Event()
    budget = RetryBudget(max_tokens=2, token_ratio=0.5)
    budget.failed(clock.now())

    with (
        peer((read(1), wait_for(answer), send("answer"))) as server,
        way.client(server.target, hedge(budget=budget), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(3)
        answer.set()
        reply = rpc.end()

    assert reply.ok and len(server.turns) == 1
    assert budget.tokens == 1.5


@each_way
def test_throttled_by_a_failure(way: Way) -> None:
    """A failure that takes the last token which was needed is the answer: no other copy goes."""
    clock = Clock()
    budget = RetryBudget(max_tokens=4, token_ratio=0.5)

    with (
        peer((read(1), fail(UNAVAILABLE, "first")), (read(1), fail(UNAVAILABLE, "second"))) as server,
        way.client(server.target, hedge(budget=budget), clock=clock) as client,
    ):
        reply = client.call(timeout=None)

    assert (reply.code, reply.details) == (UNAVAILABLE, "second")
    assert len(server.turns) == 2
    assert budget.tokens == 2


@each_way
def test_each_copy_is_told_of(way: Way) -> None:
    """`on_hedge` hears how each copy ended: the winner with OK, the loser cancelled on this side."""
    clock, told = Clock(), list[HedgeDetails]()
    both = threading.Semaphore(0)

    def note(details: HedgeDetails) -> None:
        told.append(details)
        both.release()

    with (
        peer(SILENT, ANSWERED) as server,
        way.client(server.target, hedge(on_hedge=note), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        rpc.end()
        assert all(both.acquire(timeout=PATIENCE) for _ in range(2))

    ends = {details.number: (details.outcome.code, details.outcome.local) for details in told}
    assert ends == {0: (CANCELLED, True), 1: (grpc.StatusCode.OK, False)}


@each_in_steps
def test_cancelled(way: Way) -> None:
    """Cancelling the call cancels each of its copies, and no other goes."""
    clock = Clock()

    with (
        peer(SILENT, SILENT) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        server.wait_read(1, attempt=1)
        rpc.cancel()
        reply = rpc.end()
        server.wait_ended(2)
        clock.advance(10)

    assert reply.code is CANCELLED
    assert [turn.left for turn in server.turns] == [True, True]


@each_download
def test_the_first_message_commits(way: Way) -> None:
    """Of streams the first to deliver wins: the others are cancelled, and a failure behind the message is the answer."""
    clock = Clock()

    with (
        peer(SILENT, (read(1), send("first", "second"), fail(UNAVAILABLE, "later"))) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        reply = rpc.end()
        server.wait_ended(2)

    assert (reply.messages, reply.code, reply.details) == (["first", "second"], UNAVAILABLE, "later")
    assert [turn.left for turn in server.turns] == [True, False]


@each_upload
def test_each_copy_has_all_requests(way: Way) -> None:
    """What the first copy has sent the second one sends too, and what comes later goes to both."""
    clock = Clock()

    with (
        peer((read(3), wait_for_the_client_to_go), (read(3), send("answer"))) as server,
        way.client(server.target, hedge(), clock=clock) as client,
    ):
        rpc = client.start(timeout=None, say=("a", "b"))
        server.wait_read(2, attempt=0)
        clock.advance(1)
        server.wait_read(2, attempt=1)
        rpc.say("c")
        reply = rpc.end()

    assert reply.ok and reply.messages == ["answer"]
    assert server.requests[1] == ["a", "b", "c"]


@each_upload
def test_an_overflowing_buffer_ends_it(way: Way) -> None:
    """Requests that do not fit in the buffer belong to the copy that has them."""
    clock, answer = Clock(), threading.Event()

    with (
        peer((read(1), wait_for(answer), send("answer"))) as server,
        way.client(server.target, hedge(buffer=2), clock=clock) as client,
    ):
        rpc = client.start(timeout=None, say=("four",))
        server.wait_read(1, attempt=0)
        clock.advance(10)
        answer.set()
        reply = rpc.end()

    assert reply.ok and server.requests == [["four"]]


@each_way
def test_hedging_policy(way: Way) -> None:
    """A service config's `hedgingPolicy` does the same: copies, delay, and which failures do not speak against another."""
    clock = Clock()
    policy = {"maxAttempts": 3, "hedgingDelay": "1s", "nonFatalStatusCodes": ["ABORTED"]}
    config = json.dumps({"methodConfig": [{"name": [{}], "hedgingPolicy": policy}]})

    with (
        peer(SILENT, (read(1), fail(grpc.StatusCode.ABORTED)), (read(1), fail(UNAVAILABLE, "fatal here"))) as server,
        way.client(server.target, Retry.from_service_config(config), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        server.wait_begun(1)
        clock.advance(1)
        reply = rpc.end()

    assert (reply.code, reply.details) == (UNAVAILABLE, "fatal here")
    assert server.numbers == [[], ["1"], ["2"]]
