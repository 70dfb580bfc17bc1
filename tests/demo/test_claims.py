"""Claims about orders that pass three services, orders that are refused, and an outage: each fails when its fact is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose.demo import guards
from interpose.demo.chain import TIME, Trip
from interpose.demo.claims import judge
from interpose.demo.delivery import SERVICES, Visit
from interpose.demo.guards import Encounter, Guarded
from interpose.demo.messages import BadRequest
from interpose.demo.orders import MalformedOrder, violations
from interpose.demo.outage import (
    AFTER,
    BARE,
    BEFORE,
    CALLS,
    CLIENTS,
    DURING,
    RETRY,
    Ask,
    Passage,
    refused_once,
    slow_once,
)
from interpose.demo.refusals import MALFORMED, Refusal
from interpose.demo.run import STACKS, Story
from interpose.demo.stack import rich_details

LEFT = {"shop": 29.9, "warehouse": 29.4, "carrier": 28.9}  # seconds
CANCELLED = 1000.0  # when, on the monotonic clock

ID = "an order passed three services under one request id"
DEADLINE = "each service had less time"
CANCEL = "a cancel at the top stopped all three services"
RICH = "both clients were given the rich details"
RIDDEN_OUT = "before the outage, Retry answered"
BUDGETED = "in the outage, its budget kept the load"
SPARED = "a circuit breaker spared the failing server"
HEDGED = "of the calls that had a slow answer"
RECOVERED = "after the outage, all clients came back"
KEPT_OUT = "no handler ran for a caller without a token, nor"
RATIONED = "a caller that came too often"
SHED = "of a crowd, each server took"
LET_IN = "behind all of these, a good caller"

OK = grpc.StatusCode.OK
REFUSED_WITH = {
    guards.STRANGER: grpc.StatusCode.UNAUTHENTICATED,
    guards.GUEST: grpc.StatusCode.PERMISSION_DENIED,
    guards.HASTY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    guards.CROWD: grpc.StatusCode.UNAVAILABLE,
}


def trip(client: str, *, cancelled: bool) -> Trip:
    """An order that fared as it should."""
    request_id = f"{client}-{cancelled}"
    visits = tuple(Visit(name, request_id, LEFT[name], stopped=cancelled, ended=CANCELLED + 0.01) for name in SERVICES)
    if cancelled:
        return Trip(client, request_id, grpc.StatusCode.CANCELLED, (), visits, CANCELLED)
    return Trip(client, request_id, grpc.StatusCode.OK, ("carrier", "warehouse", "shop"), visits)


def refusal(client: str, server: str) -> Refusal:
    """An order that was refused as it should be."""
    malformed = MalformedOrder(*violations(MALFORMED))
    return Refusal(client, server, grpc.StatusCode.INVALID_ARGUMENT, str(malformed), rich_details(malformed))


def passage(client: str) -> Passage:
    """A client that met the outage as it should."""
    attempts = {BEFORE: 168, DURING: {BARE: 300, RETRY: 304}.get(client, 14), AFTER: 160}
    asks = [ask(client, number) for number in range(sum(CALLS.values()))]
    return Passage(client, asks, attempts, recovered=CANCELLED)


def ask(client: str, number: int) -> Ask:
    """One call of it."""
    phase = BEFORE if number < CALLS[BEFORE] else DURING if number < CALLS[BEFORE] + CALLS[DURING] else AFTER
    answered = phase != DURING and not (client == BARE and phase == BEFORE and refused_once(number))
    slowly = phase == BEFORE and slow_once(number) and client in (BARE, RETRY)
    return Ask(number, phase, answered, slowly, 0.002, ended=CANCELLED + 0.25)


def met(client: str, server: str) -> Encounter:
    """A client that guards met as they should; of the hasty one's calls, which both count, the sync server took more."""
    calls, code = guards.CALLS[client], REFUSED_WITH.get(client)
    answered = {
        guards.HASTY: {"sync": 12, "asyncio": guards.AN_HOUR - 12}[server],
        guards.CROWD: guards.AT_ONCE,
        guards.GOOD: calls,
    }.get(client, 0)
    refused = [] if code is None else [code] * (calls - answered)
    back = [1.0] * len(refused) if client in (guards.HASTY, guards.CROWD) else []
    return Encounter(client, server, [grpc.StatusCode.OK] * answered + refused, answered, back)


def story() -> Story:
    """No load, and all that comes behind it as it should be."""
    return Story(
        1,
        [],
        trips=[trip(client, cancelled=cancelled) for client in STACKS for cancelled in (False, True)],
        refusals=[refusal(client, server) for server in STACKS for client in STACKS],
        passages=[passage(client) for client in CLIENTS],
        guarded=Guarded("in Redis", True, [met(client, server) for client in guards.CLIENTS for server in STACKS]),
    )


def visit(number: int, hop: int, **changes: Any) -> Callable[[Story], None]:
    """Change what one handler saw of one order."""

    def change(told: Story) -> None:
        visits = list(told.trips[number].visits)
        visits[hop] = replace(visits[hop], **changes)
        told.trips[number] = replace(told.trips[number], visits=tuple(visits))

    return change


def order(number: int, **changes: Any) -> Callable[[Story], None]:
    """Change how one order fared."""

    def change(told: Story) -> None:
        told.trips[number] = replace(told.trips[number], **changes)

    return change


def refused(number: int, **changes: Any) -> Callable[[Story], None]:
    """Change what one client was told."""

    def change(told: Story) -> None:
        told.refusals[number] = replace(told.refusals[number], **changes)

    return change


def asked(client: int, number: int, **changes: Any) -> Callable[[Story], None]:
    """Change how one call fared that met the outage."""

    def change(told: Story) -> None:
        asks = told.passages[client].asks
        asks[number] = replace(asks[number], **changes)

    return change


def loaded(client: int, attempts: int) -> Callable[[Story], None]:
    """Change what reached a client's server during the outage."""

    def change(told: Story) -> None:
        told.passages[client].attempts[DURING] = attempts

    return change


def encounter(client: str, server: int = 0, **changes: Any) -> Callable[[Story], None]:
    """Change how one client fared at one server with guards."""

    def change(told: Story) -> None:
        assert told.guarded is not None
        number = told.guarded.encounters.index(told.guarded.of(client)[server])
        told.guarded.encounters[number] = replace(told.guarded.encounters[number], **changes)

    return change


def counted_apart(told: Story) -> None:
    """Each server has counted for itself."""
    assert told.guarded is not None
    told.guarded.shared = False


def hurried(told: Story) -> None:
    """Half of the slow answers, and no more, were not so slow for the client that hedges."""
    asks = told.passages[2].asks
    slow = [ask.number for ask in asks if ask.phase == BEFORE and slow_once(ask.number)]
    for number in slow[: len(slow) // 2]:
        asks[number] = replace(asks[number], slowly=True)


def test_every_claim_holds_of_what_should_be() -> None:
    """The story that the other tests spoil has nothing against it."""
    assert [claim for claim in judge(story()) if not claim.holds] == []


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (visit(0, 2, request_id="another"), ID),
        (visit(3, 0, request_id=None), ID),
        (order(2, request_id="another"), ID),
        (order(0, signatures=("carrier", "shop")), ID),
        (lambda told: told.trips.pop(), ID),
        (lambda told: told.trips.clear(), ID),
        (visit(0, 1, left=29.95), DEADLINE),
        (visit(1, 2, left=29.4), DEADLINE),
        (visit(2, 0, left=None), DEADLINE),
        (visit(3, 2, left=None), DEADLINE),
        (visit(0, 0, left=TIME + 1), DEADLINE),
        (order(1, code=grpc.StatusCode.DEADLINE_EXCEEDED), CANCEL),
        (visit(1, 0, stopped=False), CANCEL),
        (visit(3, 2, stopped=False), CANCEL),
        (visit(3, 1, ended=CANCELLED + TIME - 1), CANCEL),
        (refused(0, code=grpc.StatusCode.UNKNOWN), RICH),
        (refused(1, details="malformed"), RICH),
        (refused(2, messages=()), RICH),
        (refused(3, messages=(BadRequest(),)), RICH),
        (lambda told: told.refusals.pop(), RICH),
        (asked(0, 5, answered=True), RIDDEN_OUT),
        (asked(0, 6, answered=False), RIDDEN_OUT),
        (asked(1, 5, answered=False), RIDDEN_OUT),
        (asked(2, 6, answered=False), RIDDEN_OUT),
        (lambda told: told.passages.pop(), RIDDEN_OUT),
        (loaded(1, 361), BUDGETED),
        (loaded(2, 31), SPARED),
        (hurried, HEDGED),
        (asked(0, -1, answered=False), RECOVERED),
        (asked(2, -40, answered=False), RECOVERED),
        (encounter(guards.STRANGER, runs=1), KEPT_OUT),
        (encounter(guards.STRANGER, codes=[OK] * 10), KEPT_OUT),
        (encounter(guards.GUEST, 1, codes=[REFUSED_WITH[guards.STRANGER]] * 10), KEPT_OUT),
        (encounter(guards.HASTY, codes=[OK] * 30), RATIONED),
        (encounter(guards.HASTY, 1, runs=9), RATIONED),
        (encounter(guards.HASTY, back=[]), RATIONED),
        (counted_apart, RATIONED),
        (encounter(guards.CROWD, codes=[OK] * 8), SHED),
        (encounter(guards.CROWD, 1, runs=8), SHED),
        (encounter(guards.CROWD, back=[]), SHED),
        (encounter(guards.GOOD, codes=[OK] * 4), LET_IN),
        (lambda told: told.guarded.encounters.pop(0), LET_IN),
    ],
)
def test_a_claim_fails_when_its_fact_is_wrong(spoil: Callable[[Story], None], text: str) -> None:
    """One fact is spoilt, and one claim does not hold: the one about it, and it says what was seen."""
    told = story()
    spoil(told)

    (broken,) = [claim for claim in judge(told) if not claim.holds]
    assert broken.text.startswith(text)
    assert broken.against


def test_a_service_that_was_passed_by_is_missed() -> None:
    """Without a visit to the carrier, its id was not seen and its handler not stopped."""
    told = story()
    told.trips[1] = replace(told.trips[1], visits=told.trips[1].visits[:2])

    broken = [claim.text for claim in judge(told) if not claim.holds]
    assert [text.startswith(start) for text, start in zip(broken, (ID, CANCEL), strict=True)] == [True, True]
