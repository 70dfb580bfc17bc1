"""What grpc-go asserts of its retries, for ours: one test per row of its table, in the order of that table.

README.md says what differs, and why.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc
import pytest

from interpose import Call, Flow
from interpose.interceptors import BY_CONVENTION, Retry
from interpose.mechanisms.budget import RetryBudget, Unlimited
from interpose.testing import FakeClock
from tests.conformance.a6.callers import DOWNLOADS, IN_STEPS, UPLOADS, WAYS, Way
from tests.conformance.a6.peer import (
    PUSHBACK,
    Step,
    fail,
    headers,
    peer,
    pushback,
    read,
    read_all,
    send,
    trailers,
    wait_for,
    wait_for_the_client_to_go,
)
from tests.interop.wire import saying

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
UNKNOWN = grpc.StatusCode.UNKNOWN
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS

each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_in_steps = pytest.mark.parametrize("way", IN_STEPS, ids=str)
each_upload = pytest.mark.parametrize("way", UPLOADS, ids=str)
each_download = pytest.mark.parametrize("way", DOWNLOADS, ids=str)

REFUSED = (read(1), fail(UNAVAILABLE))
ANSWERED = (read_all, send("answer"))


def retry(attempts: int = 4, **more: Any) -> Retry:
    """As in that table: four attempts, with pauses that do not grow; of calls that are declared safe."""
    return Retry(attempts, **({"backoff": lambda _: 0.01, "safe": True} | more))


# --- unary, and the throttle ------------------------------------------------------------------------------------------


@each_way
def test_retry_unary(way: Way) -> None:
    """Seven calls on one channel, each of which is repeated as often as it has to be, and no more."""
    exists: tuple[Step, ...] = (read(1), fail(ALREADY_EXISTS))
    broken: tuple[Step, ...] = (read(1), fail(INTERNAL))
    clock = FakeClock(auto=True)
    policy = retry(codes={ALREADY_EXISTS}, safe=True, budget=Unlimited())
    script = [ANSWERED, exists, ANSWERED, exists, exists, ANSWERED]
    script += [broken, exists, broken, exists, exists, broken, *[exists] * 4]

    with peer(*script) as server, way.client(server.target, policy, clock=clock) as client:
        ends = [(client.call().code, len(server.turns)) for _ in range(7)]

    assert ends == [
        (grpc.StatusCode.OK, 1),
        (grpc.StatusCode.OK, 3),
        (grpc.StatusCode.OK, 6),
        (INTERNAL, 7),
        (INTERNAL, 9),
        (INTERNAL, 12),
        (ALREADY_EXISTS, 16),
    ]


@each_way
def test_retry_throttling(way: Way) -> None:
    """Token by token: a failure takes one, a success brings half of one, and at five of ten there are no retries."""
    clock = FakeClock(auto=True)
    budget = RetryBudget(max_tokens=10, token_ratio=0.5)
    answered = {0, 3, 6, 10, 11, 12, 13, 14, 16}
    script = [ANSWERED if number in answered else REFUSED for number in range(18)]

    with (
        peer(*script) as server,
        way.client(server.target, retry(budget=budget), clock=clock) as client,
    ):
        trace = [(client.call().code, len(server.turns), budget.tokens) for _ in range(12)]

    good = grpc.StatusCode.OK
    assert trace == [
        (good, 1, 10),  # full: a success adds nothing
        (good, 4, 8.5),  # two failures, a success
        (good, 7, 7),
        (UNAVAILABLE, 9, 5),  # the first failure leaves 6, and is retried; the second leaves 5, and is not
        (UNAVAILABLE, 10, 4),
        (good, 11, 4.5),
        (good, 12, 5),
        (good, 13, 5.5),
        (good, 14, 6),
        (good, 15, 6.5),
        (good, 17, 6),  # one failure, a success
        (UNAVAILABLE, 18, 5),
    ]


# --- streaming --------------------------------------------------------------------------------------------------------


@each_way
def test_non_retryable_error_code(way: Way) -> None:
    """INTERNAL is the answer."""
    with peer((read(1), fail(INTERNAL))) as server, way.client(server.target, retry()) as client:
        reply = client.call()

    assert reply.code is INTERNAL
    assert len(server.turns) == 1


@each_way
def test_one_retry_necessary(way: Way) -> None:
    """The second attempt has the answer, and carries the number 1 where the first carried none."""
    clock = FakeClock(auto=True)

    with peer(REFUSED, ANSWERED) as server, way.client(server.target, retry(), clock=clock) as client:
        reply = client.call()

    assert reply.ok and reply.messages == ["answer"]
    assert server.numbers == [[], ["1"]]


@each_way
def test_exceed_max_attempts(way: Way) -> None:
    """Four attempts, numbered up to 3; grpc's own header for the number is left to grpc."""
    clock = FakeClock(auto=True)

    with peer(*[REFUSED] * 4) as server, way.client(server.target, retry(), clock=clock) as client:
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert server.numbers == [[], ["1"], ["2"], ["3"]]
    assert [turn.values("grpc-previous-rpc-attempts") for turn in server.turns] == [[]] * 4


@each_upload
def test_multiple_requests(way: Way) -> None:
    """Two requests that the first attempt has read come to the second one too."""
    clock = FakeClock(auto=True)

    with (
        peer((read(2), fail(UNAVAILABLE)), (read(2), send("answer"))) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        reply = client.call("a", "b")

    assert reply.ok and reply.messages == ["answer"]
    assert server.requests == [["a", "b"]] * 2


@each_upload
def test_multiple_successive_requests(way: Way) -> None:
    """Each attempt begins with the first request, however far the one before it came."""
    clock = FakeClock(auto=True)

    with (
        peer(REFUSED, (read(2), fail(UNAVAILABLE)), (read(3), send("answer"))) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        rpc = client.start(say=("a",))
        for attempt, message in enumerate(("b", "c")):
            server.wait_read(attempt + 1, attempt=attempt)
            rpc.say(message)
        reply = rpc.end()

    assert reply.ok and reply.messages == ["answer"]
    assert server.requests == [["a"], ["a", "b"], ["a", "b", "c"]]


@each_download
def test_no_retry_after_receiving(way: Way) -> None:
    """The second attempt delivers a message: the failure behind it is the answer, though attempts are left."""
    clock = FakeClock(auto=True)

    with (
        peer(REFUSED, (read(1), send("answer"), fail(UNAVAILABLE, "later"))) as server,
        way.client(server.target, retry(safe=True), clock=clock) as client,
    ):
        reply = client.call()

    assert (reply.messages, reply.code, reply.details) == (["answer"], UNAVAILABLE, "later")
    assert len(server.turns) == 2


@each_in_steps
def test_retry_while_the_header_is_awaited(way: Way) -> None:
    """Who asks for the response metadata, while the first attempt fails without any, is given that of the second."""
    clock = FakeClock(auto=True)

    with (
        peer(REFUSED, (headers(("x-node", "8")), *ANSWERED)) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        rpc = client.start()
        rpc.finish()
        found = rpc.headers()
        reply = rpc.end()

    assert found.get_all("x-node") == ["8"]
    assert reply.ok
    assert server.numbers == [[], ["1"]]


@each_in_steps
def test_no_retry_after_header(way: Way) -> None:
    """By convention, response metadata means that the server had begun: UNAVAILABLE behind it is the answer."""
    seen = threading.Event()

    with (
        peer((read(1), headers(("x-node", "7")), wait_for(seen), fail(UNAVAILABLE, "begun"))) as server,
        way.client(server.target, retry(safe=BY_CONVENTION)) as client,
    ):
        rpc = client.start()
        rpc.wait_for_headers()
        seen.set()
        found = rpc.headers()
        reply = rpc.end()

    assert found.get_all("x-node") == ["7"]
    assert (reply.code, reply.details) == (UNAVAILABLE, "begun")
    assert len(server.turns) == 1


@each_in_steps
def test_asking_a_call_about_itself_does_not_commit_it(way: Way) -> None:
    """grpc-go commits when it hands out the stream's context; nothing that our calls tell is of one attempt only."""
    clock = FakeClock()

    with peer(REFUSED, ANSWERED) as server, way.client(server.target, retry(), clock=clock) as client:
        rpc = client.start()
        clock.wait_for()
        told = (rpc.native.done(), rpc.native.cancelled(), rpc.native.time_remaining() > 0)
        clock.advance(0.01)
        rpc.finish()
        reply = rpc.end()

    assert told == (False, False, True)
    assert reply.ok and len(server.turns) == 2


@each_upload
def test_replaying_close_send(way: Way) -> None:
    """The end of the requests is repeated too: the second attempt reads it and answers."""
    clock = FakeClock(auto=True)
    messages = ("1", "3", "5") if way.kind.response_streaming else ("1",)

    with (
        peer((read_all, fail(UNAVAILABLE)), (read_all, send(*messages))) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        reply = client.call("a", "b")

    assert reply.ok and reply.messages == list(messages)
    assert server.requests == [["a", "b"]] * 2
    assert [turn.half_closed for turn in server.turns] == [True, True]


@each_way
@pytest.mark.parametrize(
    "value", ["-1", "xxx", "", "1.5", "2147483648", "99999999999999999999999"], ids=lambda value: value or "empty"
)
def test_pushback_that_forbids(value: str, way: Way) -> None:
    """Negative, not a number, or too large for one of 32 bits: no retry."""
    with peer((read(1), pushback(value), fail(UNAVAILABLE))) as server, way.client(server.target, retry()) as client:
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert len(server.turns) == 1


@each_way
@pytest.mark.parametrize(
    ("values", "pauses"),
    [((b"100", b"10"), [0.01]), ((b"-1", b"10"), [0.01]), ((b"10", b"-1"), [])],
    ids=["less", "a number after all", "no more"],
)
def test_several_pushback_values(values: tuple[bytes, ...], pauses: list[float], way: Way) -> None:
    """The last one counts: core keeps no other. In grpc-go, where all of them are seen, several mean no retry."""
    clock = FakeClock(auto=True)
    said = [(PUSHBACK.encode(), value) for value in values]

    with (
        saying(UNAVAILABLE.value[0], *said) as target,
        way.client(target, retry(2), clock=clock) as client,
    ):
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert clock.pauses == pauses


@each_way
def test_pushback_that_core_cannot_read(way: Way) -> None:
    """From a server that is not grpc's own it spoils the status, for core; there is no retry, even if that one would be."""
    clock = FakeClock(auto=True)
    policy = retry(codes={UNAVAILABLE, UNKNOWN, INTERNAL}, safe=True)

    with (
        saying(UNAVAILABLE.value[0], (PUSHBACK.encode(), b"xxx")) as target,
        way.client(target, policy, clock=clock) as client,
    ):
        reply = client.call()

    assert reply.code in (INTERNAL, UNKNOWN, UNAVAILABLE)  # which of them, the version of grpc decides
    assert clock.pauses == []


@each_way
def test_one_second_pushback(way: Way) -> None:
    """The retry is sent one second later, neither sooner nor later."""
    clock = FakeClock(auto=True)

    with (
        peer((read(1), pushback("1000"), fail(UNAVAILABLE)), ANSWERED) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        reply = client.call()

    assert reply.ok
    assert clock.pauses == [1.0]


@each_way
def test_pushback_of_nothing(way: Way) -> None:
    """Zero is a number: at once."""
    clock = FakeClock()

    with (
        peer((read(1), pushback("0"), fail(UNAVAILABLE)), ANSWERED) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        reply = client.call()

    assert reply.ok
    assert clock.pauses == []


@each_upload
def test_overflowing_buffer(way: Way) -> None:
    """What does not fit in the buffer is sent once."""
    with peer(REFUSED) as server, way.client(server.target, retry(buffer=200)) as client:
        reply = client.call("x" * 500)

    assert reply.code is UNAVAILABLE
    assert [len(request) for [request] in server.requests] == [500]


@pytest.mark.parametrize("way", [way for way in WAYS if not way.kind.request_streaming], ids=str)
def test_one_request_needs_no_buffer(way: Way) -> None:
    """A request that does not stream is the application's to keep: it is sent again, however large."""
    clock = FakeClock(auto=True)

    with (
        peer(REFUSED, ANSWERED) as server,
        way.client(server.target, retry(buffer=0), clock=clock) as client,
    ):
        reply = client.call("x" * 500_000)

    assert reply.ok
    assert len(server.turns) == 2


# --- what is seen of each attempt -------------------------------------------------------------------------------------


@each_way
def test_retry_stats(way: Way) -> None:
    """An interceptor inside Retry sees each attempt whole: its number, what passed, and how it ended."""
    clock = FakeClock(auto=True)
    events: list[Any] = []
    told = ("x-said", "later")

    with (
        peer(
            (read(1), trailers((PUSHBACK, "10"), told), fail(UNAVAILABLE, "not now")),
            (headers(("x-node", "8")), *ANSWERED),
        ) as server,
        way.client(server.target, retry(), events_of_attempts(events), clock=clock) as client,
    ):
        client.call()

    assert events == [
        ("begin", []),
        ("request", "a"),
        ("end", UNAVAILABLE, ["later"]),
        ("begin", ["1"]),
        ("request", "a"),
        ("header", ["8"]),
        ("response", "answer"),
        ("end", grpc.StatusCode.OK, []),
    ]
    assert clock.pauses == [0.01]


def events_of_attempts(events: list[Any]) -> Any:
    """An interceptor that keeps what passes."""

    def watch(call: Call) -> Flow:
        events.append(("begin", call.metadata.get_all("x-retry-attempt")))
        outcome = yield call.tap(
            requests=lambda message: events.append(("request", message)),
            responses=lambda message: events.append(("response", message)),
            initial_metadata=lambda pairs: events.append(("header", pairs.get_all("x-node"))),
        )
        events.append(("end", outcome.code, outcome.trailing_metadata.get_all("x-said")))

    return watch


@each_in_steps
def test_cancel_while_a_retry_waits_for_its_turn(way: Way) -> None:
    """A retry that the server's limit of streams holds back can be cancelled; what the application does then is harmless."""
    clock = FakeClock()

    with (
        peer(REFUSED, (wait_for_the_client_to_go,), streams=1) as server,
        way.client(server.target, retry(2), clock=clock) as client,
    ):
        rpc = client.start()
        clock.wait_for()
        other = client.start()
        server.wait_begun(2)
        clock.advance(0.01)
        rpc.cancel()
        reply = rpc.end()
        rpc.say("nobody hears this")
        rpc.cancel()
        other.cancel()

    assert reply.code is grpc.StatusCode.CANCELLED
    assert len(server.turns) == 2


# --- the service config -----------------------------------------------------------------------------------------------


def policy(attempts: int) -> str:
    """A service config that allows so many attempts."""
    return json.dumps(
        {
            "methodConfig": [
                {
                    "name": [{"service": "interpose.testing.Echo"}],
                    "retryPolicy": {
                        "maxAttempts": attempts,
                        "initialBackoff": "0.1s",
                        "maxBackoff": "0.1s",
                        "backoffMultiplier": 1,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ]
        }
    )


@each_way
@pytest.mark.parametrize("attempts", [2, 5, 7])
def test_attempts_are_not_clamped(attempts: int, way: Way) -> None:
    """`maxAttempts` counts as it is written, where core and grpc-go make 5 of all that is larger."""
    clock = FakeClock(auto=True)
    configured = Retry.from_service_config(policy(attempts))

    with peer(*[REFUSED] * attempts) as server, way.client(server.target, configured, clock=clock) as client:
        reply = client.call()

    assert reply.code is UNAVAILABLE
    assert len(server.turns) == attempts
    assert clock.pauses == pytest.approx([0.1] * (attempts - 1), rel=0.2)  # A6: up to a fifth more or less


def test_one_attempt_is_no_retry_policy() -> None:
    """As in core and grpc-go, `maxAttempts` below 2 is a fault of the config."""
    with pytest.raises(ValueError, match="maxAttempts error:must be at least 2"):
        Retry.from_service_config(policy(1))
