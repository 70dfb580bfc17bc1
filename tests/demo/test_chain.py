"""Orders that pass three services, over the wire: with the stack, and with something missing from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose import Call, Flow, errors
from interpose.demo import chain, claims, delivery
from interpose.demo.chain import MARGIN, TIME, Trip
from interpose.demo.load import Tell
from interpose.demo.run import Story
from interpose.demo.stack import Stack
from interpose.interceptors import Deadline, PropagateContext, RequestId

Order = Callable[[Tell], Awaitable[list[Trip]]]

CLIENTS = pytest.mark.parametrize("order", [chain.trips_from_sync, chain.trips_from_asyncio], ids=["sync", "asyncio"])


def idle(call: Call) -> Flow:
    """Hands on what comes."""
    yield call


def trips(order: Order) -> tuple[list[Trip], int]:
    """What became of a client's orders, and how often its progress was told."""
    told: list[None] = []

    async def ordered() -> list[Trip]:
        return await order(lambda: told.append(None))

    return asyncio.run(ordered()), len(told)


@CLIENTS
def test_an_order_passes_three_services(order: Order) -> None:
    """All three sign the first order, under the client's id, each with less time than the one before."""
    (delivered, _), told = trips(order)

    assert (delivered.code, delivered.cancelled, told) == (grpc.StatusCode.OK, None, 2)
    assert delivered.signatures == ("carrier", "warehouse", "shop")
    assert {visit.request_id for visit in delivered.visits} == {delivered.request_id}
    left = [visit.left or 0 for visit in delivered.visits]
    # grpc rounds what it sends up to a tenth of a second and a little: more than half a margin is certain.
    assert TIME >= left[0] > left[1] + MARGIN / 2 > left[2] + MARGIN


@CLIENTS
def test_a_cancel_at_the_top_stops_them(order: Order) -> None:
    """The second order has all three handlers ended without an answer."""
    (_, cancelled), _ = trips(order)

    assert cancelled.code is grpc.StatusCode.CANCELLED
    assert [(visit.service, visit.stopped) for visit in cancelled.visits] == [
        (service, True) for service in delivery.SERVICES
    ]


@pytest.mark.parametrize(
    ("stack", "broken"),
    [
        ((Deadline(TIME), PropagateContext(margin=MARGIN)), ["_ids"]),
        ((RequestId(), PropagateContext()), ["_deadlines"]),
        ((RequestId(), Deadline(TIME), PropagateContext(margin=MARGIN, cancel=False)), ["_cancels"]),
        ((idle,), ["_ids", "_deadlines", "_cancels"]),
    ],
    ids=["no request id", "no deadline", "no cancel", "nothing"],
)
def test_what_the_stack_lacks_does_not_hold(monkeypatch: pytest.MonkeyPatch, stack: Stack, broken: list[str]) -> None:
    """The claims are about the interceptors: take one away, and what it does is not so any more."""
    monkeypatch.setattr(chain, "STACK", stack)
    if "_cancels" in broken:
        monkeypatch.setattr(delivery, "SEARCH", 0.05)  # nobody calls it off

    story = Story(
        1, [], trips=[trip for order in (chain.trips_from_sync, chain.trips_from_asyncio) for trip in trips(order)[0]]
    )

    checks = {name: getattr(claims, name)(story) for name in ("_ids", "_deadlines", "_cancels")}
    assert [name for name, against in checks.items() if against] == broken


def test_nobody_waits_for_ever() -> None:
    """A service that never begins is waited for as long as was said, and the visits that there are are told."""
    book, order = delivery.VisitorsBook(), chain._orders()[0]

    assert not book.wait_begun(delivery.CARRIER, order, timeout=0.01)
    assert book.visits(order, timeout=0.01) == ()


def test_a_search_that_was_called_off_before_it_began() -> None:
    """Where the end came first there is nobody left to tell of it: the carrier does not look at all."""

    class Over:
        def add_callback(self, callback: Callable[[], None]) -> bool:
            return False

    with pytest.raises(errors.Cancelled, match="the search for Atlantis was called off"):
        delivery.Carrier(delivery.VisitorsBook())._search(Over())  # type: ignore[arg-type]
