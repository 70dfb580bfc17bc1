"""What grpc's core asserts of its retries, for ours: one test per `retry_*` end-to-end test, by its name.

README.md has the table: which of them have no meaning above a channel, and where ours means to differ.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Outcome, errors
from interpose.interceptors import BY_CONVENTION, Retry
from interpose.mechanisms.budget import RetryBudget
from interpose.testing import FakeClock
from tests.conformance.a6.callers import BIDI, DOWNLOADS, IN_STEPS, UPLOADS, WAYS, Way
from tests.conformance.a6.peer import (
    fail,
    headers,
    peer,
    pushback,
    read,
    read_all,
    send,
    wait_for,
    wait_for_the_client_to_go,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CANCELLED = grpc.StatusCode.CANCELLED
FOR_EVER = 1e6  # seconds: a pause that only a cancel ends
PER_ATTEMPT = 0.4  # seconds, and real ones: grpc keeps the time of an attempt with a unary response

AWAITED = [way for way in IN_STEPS if way.form == "asyncio" and not way.kind.response_streaming]

each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_in_steps = pytest.mark.parametrize("way", IN_STEPS, ids=str)
each_upload = pytest.mark.parametrize("way", UPLOADS, ids=str)
each_download = pytest.mark.parametrize("way", DOWNLOADS, ids=str)
each_bidi = pytest.mark.parametrize("way", BIDI, ids=str)

# What core itself would do, if it were left on.
POLICY = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 2,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.01s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

REFUSED = (read(1), fail(UNAVAILABLE))
ANSWERED = (read_all, send("answer"))


def twice_as_long(number: int) -> float:
    """A backoff without chance: 1, 2, 4 … seconds."""
    return 2.0 ** (number - 1)


def retry(attempts: int = 3, **more: Any) -> Retry:
    """For calls that are declared safe: core asks nobody whether they are."""
    return Retry(attempts, **({"backoff": twice_as_long, "safe": True} | more))


def every(outcomes: list[Outcome]) -> Any:
    """An interceptor that keeps how each attempt ended, or each RPC, depending on where it stands."""

    def keep(call: Call) -> Flow:
        outcomes.append((yield call))

    return keep


# --- it is sent again -------------------------------------------------------------------------------------------------


@each_way
def test_retry(way: Way) -> None:
    """The first attempt fails, the second has the answer; it carries its number, and came after the pause."""
    clock = FakeClock(auto=True)

    with peer(REFUSED, ANSWERED) as server, way.client(server.target, retry(), clock=clock) as client:
        reply = client.call()

    assert reply.ok and reply.messages == ["answer"]
    assert server.numbers == [[], ["1"]]
    assert clock.pauses == [1.0]


@each_way
def test_retry_send_recv_batch(way: Way) -> None:
    """An attempt that fails while its requests are still being sent is repeated with all of them."""
    clock = FakeClock(auto=True)
    messages = ("a", "b", "c") if way.kind.request_streaming else ("a",)

    with (
        peer((fail(UNAVAILABLE),), ANSWERED) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        reply = client.call(*messages)

    assert reply.ok and reply.messages == ["answer"]
    assert server.requests == [[], list(messages)]


@each_way
def test_retry_send_initial_metadata_refs(way: Way) -> None:
    """The application's metadata goes with each attempt, short or long."""
    clock = FakeClock(auto=True)
    given = (("x-short", "s"), ("x-long", "l" * 2000), ("x-bytes-bin", b"\0\xff"))

    with peer(REFUSED, ANSWERED) as server, way.client(server.target, retry(), clock=clock) as client:
        client.call(metadata=given)

    seen = [{key: value for key, value in turn.metadata if key in dict(given)} for turn in server.turns]
    assert seen == [dict(given)] * 2


@each_way
def test_retry_recv_message_replay(way: Way) -> None:
    """The failed attempt's missing response is not delivered in front of, nor instead of, the answer."""
    clock = FakeClock(auto=True)

    with (
        peer((fail(UNAVAILABLE),), (fail(UNAVAILABLE),), ANSWERED) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        reply = client.call()

    assert reply.ok and reply.messages == ["answer"]
    assert len(server.turns) == 3


@each_upload
def test_retry_streaming(way: Way) -> None:
    """All that was sent before the failure is sent again, in order, and the stream goes on behind it."""
    clock = FakeClock()

    with (
        peer((read(2), fail(UNAVAILABLE)), ANSWERED) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        rpc = client.start(say=("a", "b"))
        clock.wait_for()
        clock.advance(1)
        server.wait_read(2, attempt=1)
        rpc.say("c")
        rpc.finish()
        reply = rpc.end()

    assert reply.ok and reply.messages == ["answer"]
    assert server.requests == [["a", "b"], ["a", "b", "c"]]


@each_upload
def test_retry_streaming_succeeds_before_replay_finished(way: Way) -> None:
    """A second attempt that is answered after the first of three messages ends the RPC; the others hold nothing up.

    Core's answer is a message and a failing status; with a unary response the message is lost with the failure.
    """
    clock = FakeClock(auto=True)

    with (
        peer((read(3), fail(UNAVAILABLE)), (read(1), send("answer"), fail(UNAVAILABLE, "second"))) as server,
        way.client(server.target, retry(2), clock=clock) as client,
    ):
        rpc = client.start(say=("a", "b", "c"))
        reply = rpc.end()

    assert (reply.code, reply.details) == (UNAVAILABLE, "second")
    assert reply.messages == (["answer"] if way.kind.response_streaming else [])
    assert server.requests == [["a", "b", "c"], ["a"]]


@each_upload
def test_an_early_answer_ends_the_replay(way: Way) -> None:
    """The same with OK: the caller has the answer although its request stream has not ended."""
    clock = FakeClock(auto=True)

    with (
        peer((read(3), fail(UNAVAILABLE)), (read(1), send("answer"))) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        rpc = client.start(say=("a", "b", "c"))
        reply = rpc.end()

    assert reply.messages == ["answer"]
    # Of one call in a hundred or so that a server ends before the half-close, grpc.aio says INTERNAL: fact R-42.
    assert reply.ok or (way.form == "asyncio" and reply.details == "Internal error from Core")
    assert server.requests == [["a", "b", "c"], ["a"]]


# --- it is not sent again ---------------------------------------------------------------------------------------------


@each_way
def test_retry_too_many_attempts(way: Way) -> None:
    """After the last attempt its failure is the answer, in the server's own words."""
    clock = FakeClock(auto=True)

    with (
        peer((read(1), fail(UNAVAILABLE, "first")), (read(1), fail(UNAVAILABLE, "second"))) as server,
        way.client(server.target, retry(2), clock=clock) as client,
    ):
        reply = client.call()

    assert (reply.code, reply.details) == (UNAVAILABLE, "second")
    assert len(server.turns) == 2
    assert clock.pauses == [1.0]


@each_way
def test_retry_disabled(way: Way) -> None:
    """Core's policy is off on a channel with our options, and ours with one attempt: there is one."""
    options = Retry.channel_options([("grpc.service_config", POLICY)])

    with peer(REFUSED) as server, way.client(server.target, retry(1), options=options) as client:
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert server.numbers == [[]]
    assert server.turns[0].values("grpc-previous-rpc-attempts") == []


@each_way
def test_two_policies_do_not_multiply(way: Way) -> None:
    """Two attempts of ours over two of core's would be four: with our options there are two."""
    clock = FakeClock(auto=True)
    options = Retry.channel_options([("grpc.service_config", POLICY)])

    with (
        peer(REFUSED, REFUSED) as server,
        way.client(server.target, retry(2), clock=clock, options=options) as client,
    ):
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert server.numbers == [[], ["1"]]


@each_way
def test_retry_throttled(way: Way) -> None:
    """With two tokens the first failure leaves no more than half of them, and there is no retry."""
    budget = RetryBudget(max_tokens=2, token_ratio=1)

    with peer(REFUSED) as server, way.client(server.target, retry(budget=budget)) as client:
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert len(server.turns) == 1
    assert budget.tokens == 1


@each_way
def test_retry_non_retriable_status(way: Way) -> None:
    """INVALID_ARGUMENT is the answer."""
    with (
        peer((read(1), fail(grpc.StatusCode.INVALID_ARGUMENT, "no"))) as server,
        way.client(server.target, retry()) as client,
    ):
        reply = client.call()

    assert (reply.code, reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, "no")
    assert len(server.turns) == 1


@each_in_steps
def test_retry_non_retriable_status_before_trailers(way: Way) -> None:
    """INVALID_ARGUMENT that has come before the application asks how the call ended is not repeated either."""
    told = threading.Event()

    def tell(call: Call) -> Flow:
        yield call
        told.set()

    with (
        peer((read(1), fail(grpc.StatusCode.INVALID_ARGUMENT, "no"))) as server,
        way.client(server.target, tell, retry()) as client,
    ):
        rpc = client.start()
        server.wait_ended()
        assert told.wait(10), "the flows learn of the end although nobody reads"
        reply = rpc.end()

    assert (reply.code, reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, "no")
    assert len(server.turns) == 1


@each_way
def test_retry_recv_initial_metadata(way: Way) -> None:
    """By convention, UNAVAILABLE behind response metadata is the answer: the server had begun to process the call."""
    seen = threading.Event()

    with (
        peer((read(1), headers(("x-node", "7")), wait_for(seen), fail(UNAVAILABLE, "begun"))) as server,
        way.client(server.target, retry(safe=BY_CONVENTION)) as client,
    ):
        rpc = client.start()
        rpc.wait_for_headers()
        seen.set()
        reply = rpc.end()

    assert (reply.code, reply.details) == (UNAVAILABLE, "begun")
    assert len(server.turns) == 1


@each_way
def test_response_metadata_does_not_commit_what_is_safe(way: Way) -> None:
    """Unlike core, which commits at metadata, ours repeats such a call if it is declared to be safe."""
    clock = FakeClock(auto=True)

    with (
        peer((read(1), headers(("x-node", "7")), fail(UNAVAILABLE)), (headers(("x-node", "8")), *ANSWERED)) as server,
        way.client(server.target, retry(safe=True), clock=clock) as client,
    ):
        reply = client.call()

    assert reply.ok and reply.messages == ["answer"]
    assert len(server.turns) == 2


@each_download
def test_retry_recv_message(way: Way) -> None:
    """Once a message was delivered the failure behind it is the answer, also of a call that is safe."""
    with (
        peer((read(1), send("answer"), fail(UNAVAILABLE, "later"))) as server,
        way.client(server.target, retry(safe=True)) as client,
    ):
        reply = client.call()

    assert (reply.messages, reply.code, reply.details) == (["answer"], UNAVAILABLE, "later")
    assert len(server.turns) == 1


@each_bidi
def test_retry_streaming_after_commit(way: Way) -> None:
    """Requests that are sent after the first response reach the server; the failure that follows is the answer."""
    with (
        peer((read(1), send("first"), read(2), send("second"), fail(UNAVAILABLE, "later"))) as server,
        way.client(server.target, retry()) as client,
    ):
        rpc = client.start()
        assert rpc.next() == "first"
        rpc.say("b", "c")
        rpc.finish()
        reply = rpc.end()

    assert (reply.messages, reply.code, reply.details) == (["first", "second"], UNAVAILABLE, "later")
    assert server.requests == [["a", "b", "c"]]


@each_way
def test_retry_recv_trailing_metadata_error(way: Way) -> None:
    """What an interceptor further in makes of the status counts, not what the server sent."""

    def overwrite(call: Call) -> Flow:
        yield call
        raise errors.InvalidArgument("injected error")

    with peer(REFUSED) as server, way.client(server.target, retry(), overwrite) as client:
        reply = client.call()

    assert (reply.code, reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, "injected error")
    assert len(server.turns) == 1


# --- the server has a say ---------------------------------------------------------------------------------------------


@each_way
def test_retry_server_pushback_delay(way: Way) -> None:
    """The pause is exactly what the server asks for, and the backoff begins anew behind it."""
    clock = FakeClock(auto=True)
    refused_later = (read(1), pushback("2500"), fail(UNAVAILABLE))

    with (
        peer(REFUSED, refused_later, REFUSED, ANSWERED) as server,
        way.client(server.target, retry(4), clock=clock) as client,
    ):
        reply = client.call()

    assert reply.ok
    assert clock.pauses == [1.0, 2.5, 1.0]
    assert server.numbers == [[], ["1"], ["2"], ["3"]]


@each_way
def test_retry_server_pushback_disabled(way: Way) -> None:
    """A negative pushback means: not again."""
    with peer((read(1), pushback("-1"), fail(UNAVAILABLE))) as server, way.client(server.target, retry()) as client:
        reply = client.call()

    assert (reply.code, reply.trailing["grpc-retry-pushback-ms"]) == (UNAVAILABLE, "-1")
    assert len(server.turns) == 1


# --- the time of an attempt -------------------------------------------------------------------------------------------


@pytest.mark.slow
@each_way
def test_retry_per_attempt_recv_timeout(way: Way) -> None:
    """An attempt that nobody begins to answer is given up, also at the server, and the next one has the answer."""
    # Within that time the second attempt is answered, on a busy machine, too.
    policy = retry(per_attempt=4 * PER_ATTEMPT, safe=True, backoff=lambda _: 0.0)

    with (
        peer((read(1), wait_for_the_client_to_go), ANSWERED) as server,
        way.client(server.target, policy) as client,
    ):
        reply = client.call()
        server.wait_ended(2)

    assert reply.ok and reply.messages == ["answer"]
    assert server.numbers == [[], ["1"]]
    assert server.turns[0].left


@each_way
def test_retry_per_attempt_recv_timeout_on_last_attempt(way: Way) -> None:
    """If it passes in the last attempt too, that is the answer: DEADLINE_EXCEEDED, where core says CANCELLED."""
    silent = (read(1), wait_for_the_client_to_go)
    policy = retry(2, per_attempt=PER_ATTEMPT, safe=True, backoff=lambda _: 0.0)

    with peer(silent, silent) as server, way.client(server.target, policy) as client:
        reply = client.call()
        server.wait_ended(2)

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sorted(server.numbers) == [[], ["1"]]  # on a busy machine the second may come in first
    assert [turn.left for turn in server.turns] == [True, True]


@each_download
def test_a_stream_that_has_begun_may_last(way: Way) -> None:
    """The time of an attempt is for the beginning of its answer; behind the first message it has no end."""
    clock, go_on = FakeClock(), threading.Event()
    policy = retry(per_attempt=1.0, safe=True)

    with (
        peer((read(1), send("first"), wait_for(go_on), send("second"))) as server,
        way.client(server.target, policy, clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        assert rpc.next() == "first"
        clock.advance(3600)
        go_on.set()
        reply = rpc.end()

    assert reply.ok and reply.messages == ["first", "second"]
    assert len(server.turns) == 1


# --- the buffer -------------------------------------------------------------------------------------------------------


@each_upload
def test_retry_exceeds_buffer_size_in_initial_batch(way: Way) -> None:
    """A first message that overflows the buffer commits the call to its attempt."""
    with (
        peer(REFUSED) as server,
        way.client(server.target, retry(buffer=2)) as client,
    ):
        reply = client.call("four")

    assert reply.code is UNAVAILABLE
    assert server.requests == [["four"]]


@each_upload
def test_retry_exceeds_buffer_size_in_subsequent_batch(way: Way) -> None:
    """So does a later one, though each alone would fit."""
    with (
        peer((read(2), fail(UNAVAILABLE))) as server,
        way.client(server.target, retry(buffer=2)) as client,
    ):
        reply = client.call("ab", "c")

    assert reply.code is UNAVAILABLE
    assert server.requests == [["ab", "c"]]


@each_upload
def test_retry_exceeds_buffer_size_in_delay(way: Way) -> None:
    """A message that overflows it while a retry waits goes with that retry, which is then the last."""
    clock = FakeClock()
    once_later = retry(buffer=2, backoff=lambda number: 1.0 if number == 1 else 0.0)

    with (
        peer((read(1), fail(UNAVAILABLE, "first")), (read(2), fail(UNAVAILABLE, "second"))) as server,
        way.client(server.target, once_later, clock=clock) as client,
    ):
        rpc = client.start(say=("a",))
        clock.wait_for()
        rpc.say("overflow")
        clock.advance(1)
        rpc.finish()
        reply = rpc.end()

    assert (reply.code, reply.details) == (UNAVAILABLE, "second")
    assert server.requests == [["a"], ["a", "overflow"]]


# --- cancelled, or dropped --------------------------------------------------------------------------------------------


@each_in_steps
def test_retry_cancel_after_first_attempt_starts(way: Way) -> None:
    """A call that is cancelled as soon as it was made ends with CANCELLED, and is not sent again."""
    outcomes: list[Outcome] = []

    with peer((wait_for_the_client_to_go,)) as server, way.client(server.target, every(outcomes), retry()) as client:
        rpc = client.start()
        rpc.cancel()
        reply = rpc.end()

    assert reply.code is CANCELLED
    assert [outcome.code for outcome in outcomes] == [CANCELLED]
    assert len(server.turns) <= 1


@each_in_steps
def test_retry_cancel_during_delay(way: Way) -> None:
    """A cancel ends the pause at once; nothing more is sent."""
    clock = FakeClock()

    with (
        peer(REFUSED) as server,
        way.client(server.target, retry(backoff=lambda _: FOR_EVER), clock=clock) as client,
    ):
        rpc = client.start(timeout=None)
        clock.wait_for()
        rpc.cancel()
        reply = rpc.end()

    assert reply.code is CANCELLED
    assert len(server.turns) == 1
    assert clock.waiting == 0


@each_way
def test_retry_cancel_during_delay_by_the_deadline(way: Way) -> None:
    """No pause is begun that the deadline would end: the failure is told at once. Core waits, and says DEADLINE_EXCEEDED."""
    clock = FakeClock()

    with (
        peer(REFUSED) as server,
        way.client(server.target, retry(backoff=lambda _: FOR_EVER), clock=clock) as client,
    ):
        reply = client.call()

    assert (reply.code, reply.details) == (UNAVAILABLE, "as scripted")
    assert clock.pauses == []


@pytest.mark.parametrize("way", [way for way in UPLOADS if way in IN_STEPS], ids=str)
def test_retry_cancel_with_multiple_send_batches(way: Way) -> None:
    """Cancelling with requests on the way and more to come ends the call, and the reading of them."""
    with peer((read(1), wait_for_the_client_to_go)) as server, way.client(server.target, retry()) as client:
        rpc = client.start(say=("a", "b"))
        server.wait_read(1, attempt=0)
        rpc.say("c")
        rpc.cancel()
        reply = rpc.end()
        server.wait_ended()

    assert reply.code is CANCELLED
    assert [turn.left for turn in server.turns] == [True]


@each_in_steps
def test_retry_cancellation(way: Way) -> None:
    """Cancelling while the second attempt runs reaches the server, and is the end."""
    clock = FakeClock(auto=True)

    with (
        peer(REFUSED, (read(1), wait_for_the_client_to_go)) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        rpc = client.start()
        server.wait_read(1, attempt=1)
        rpc.cancel()
        reply = rpc.end()
        server.wait_ended(2)

    assert reply.code is CANCELLED
    assert [turn.left for turn in server.turns] == [False, True]


@each_way
def test_retry_cancellation_by_the_deadline(way: Way) -> None:
    """A deadline that passes while the second attempt runs ends the call with DEADLINE_EXCEEDED."""
    with (
        peer(REFUSED, (read(1), wait_for_the_client_to_go)) as server,
        way.client(server.target, retry(backoff=lambda _: 0.0)) as client,
    ):
        reply = client.call(timeout=1.0)
        server.wait_ended(2)

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [turn.left for turn in server.turns] == [False, True]


@pytest.mark.parametrize("way", [way for way in IN_STEPS if way not in AWAITED], ids=str)
def test_retry_unref_before_finish(way: Way) -> None:
    """A call that nobody holds any more is over, at the server too."""
    with peer((read(1), wait_for_the_client_to_go)) as server, way.client(server.target, retry()) as client:
        rpc = client.start()
        server.wait_read(1, attempt=0)
        rpc.drop()
        rpc.finish()
        server.wait_ended()

    assert [turn.left for turn in server.turns] == [True]


@pytest.mark.parametrize("way", AWAITED, ids=str)
def test_an_awaitable_that_is_dropped_goes_on(way: Way) -> None:
    """As in grpc.aio, a call with a unary response runs to its end though nobody awaits it, retries included."""
    clock = FakeClock()

    with (
        peer(REFUSED, ANSWERED) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        rpc = client.start()
        clock.wait_for()
        rpc.drop()
        rpc.finish()
        clock.advance(1)
        server.wait_ended(2)

    assert server.numbers == [[], ["1"]]


@each_download
def test_retry_unref_before_recv(way: Way) -> None:
    """A stream that is dropped before its failure was read is over, and nothing of it is left behind."""
    dropped = threading.Event()

    with (
        peer((read(1), wait_for(dropped), fail(grpc.StatusCode.FAILED_PRECONDITION))) as server,
        way.client(server.target, retry()) as client,
    ):
        rpc = client.start()
        server.wait_read(1, attempt=0)
        rpc.drop()
        dropped.set()
        rpc.finish()
        server.wait_ended()

    assert len(server.turns) == 1
