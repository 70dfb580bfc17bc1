"""Hedge: what may be executed twice."""

import logging

import grpc
import grpc.aio
import pytest

from interpose import Kind, Side
from interpose.interceptors import Hedge, RatioBudget
from interpose.interceptors.repeating import MAX_METHODS
from interpose.testing import PLACES, FakeClock, Place, failed, ok, play
from tests.interceptors.driving import hedge, requests
from tests.protos.compiled import Generated

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL


DOWN = failed(UNAVAILABLE)

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


# --- what is safe ---------------------------------------------------------------------------------------------------


@KINDS
def test_what_nobody_has_declared_safe_is_sent_once(kind: Kind) -> None:
    """As if there were no hedge: however late the answer is, and however it ends. The budget is not told of it."""
    budget = RatioBudget()
    hedging = Hedge(delay=1, budget=budget)

    late, down = play(hedging, [ok("late", delay=9)], kind=kind), play(hedging, [DOWN], kind=kind)

    assert (late.responses, late.elapsed, down.outcome.code) == (["late"], 9, UNAVAILABLE)
    assert budget.tally(FakeClock().now()) == (0, 0)


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_it_may_stand_before_a_whole_channel(place: Place) -> None:
    """What is not safe passes through it."""
    with place.open(Hedge(delay=0.0)) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert len(rpc.attempts) == 1


def test_it_is_said_once_per_method(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, with the remedy; not where a function has said that a call is not safe."""
    hedging = Hedge()
    with caplog.at_level(logging.INFO, "interpose"):
        for name in "ABA":
            play(hedging, method=f"/pay.v1.Cards/{name}")
        play(Hedge(safe=lambda call: False), method="/pay.v1.Cards/C")

    assert [(record.levelname, str(record.args[0])) for record in caplog.records if record.args] == [  # type: ignore[index]
        ("INFO", "/pay.v1.Cards/A"),
        ("INFO", "/pay.v1.Cards/B"),
    ]
    assert "write Hedge(safe=True) for it" in caplog.messages[0]


def test_it_is_said_of_so_many_methods(caplog: pytest.LogCaptureFixture) -> None:
    """What a proxy passes on may have any name."""
    hedging = Hedge()
    with caplog.at_level(logging.INFO, "interpose"):
        for number in range(MAX_METHODS + 10):
            play(hedging, method=f"/proxied.S/M{number}")

    assert len(caplog.records) == MAX_METHODS


def test_what_is_too_large_is_not_sent_again() -> None:
    """It is over the limit for every copy."""
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    large = failed(exhausted, "SERVER: Received message larger than max (160 vs. 100)")

    assert len(play(hedge(codes={exhausted}), [large]).sent) == 1
    assert len(play(hedge(codes={exhausted}), [failed(exhausted), ok()]).sent) == 2


@pytest.mark.parametrize(("name", "copies"), [("Read", 2), ("Put", 2), ("Add", 1)])
def test_the_proto_may_say_that_it_is_safe(generated: Generated, name: str, copies: int) -> None:
    """By `idempotency_level`."""
    generated("idempotency_pb2")
    method = f"/interpose.tests.idempotency.Ledger/{name}"

    played = play(Hedge(), [DOWN, ok()][:copies], method=method)

    assert len(played.sent) == copies


def test_a_function_may_say_what_is_safe() -> None:
    """Calls for which it is false are sent once, as if there were no hedge; the budget is not told of them."""
    budget = RatioBudget()
    hedging = Hedge(delay=1, safe=lambda call: call.request == "read", budget=budget)

    read = play(hedging, [ok(delay=9), ok()], requests=["read"])
    write = play(hedging, [ok(delay=9)], requests=["write"])

    assert [len(played.sent) for played in (read, write)] == [2, 1]
    assert budget.tally(FakeClock().now()) == (1, 1)
