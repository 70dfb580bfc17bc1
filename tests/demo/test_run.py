"""One small run in this process: what was seen of it, what is claimed of that, and how it is reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose import Kind, Side
from interpose.demo import report
from interpose.demo.claims import Claim, judge
from interpose.demo.interceptors import Fate, Faults, Meter
from interpose.demo.load import Answer
from interpose.demo.logbook import LogBook
from interpose.demo.messages import CombinedShipment, Order, Person, StringValue
from interpose.demo.run import STACKS, Leg, Story
from interpose.demo.stack import SHARE

pytestmark = pytest.mark.slow  # they look at a whole run of the demo

Spoil = Callable[[Story], Story]


@pytest.fixture
def story(ended: Any) -> Story:
    """What was seen; `ended` stands in conftest."""
    seen: Story = ended.story
    return seen


def served(legs: list[Leg]) -> Iterator[Answer]:
    """The answers to calls that did not fail."""
    return (answer for leg in legs for answer in leg.answers if answer.code is grpc.StatusCode.OK)


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_each_client_calls_each_server_in_both_phases(story: Story) -> None:
    """Four legs without the stack and four with it, and each makes all the calls, in order, under ids of its own."""
    legs = [(client, server) for client in STACKS for server in STACKS]

    assert [(leg.client, leg.server) for leg in story.without] == legs
    assert [(leg.client, leg.server) for leg in story.within] == legs
    for leg in (*story.without, *story.within):
        assert [answer.job for answer in leg.answers] == story.jobs
        assert [answer.request_id for answer in leg.answers] == [
            f"{leg.client}-{leg.server}-{number:04d}" for number in range(len(story.jobs))
        ]


def test_the_log_tells_which_way_a_call_went(story: Story) -> None:
    """Through the client and to the server of its leg, which its id names; a call that was refused came there too."""
    ways = {(line.request_id.rpartition("-")[0], line.place) for line in story.log.lines}

    assert ways == {
        (f"{leg.client}-{leg.server}", place)
        for leg in story.within
        for place in (f"{leg.client} client", f"{leg.server} server")
    }


def test_progress_is_told_once_per_call(ended: Any) -> None:
    """As often as was said when the leg began, whether calls fail or not."""
    assert ended.told == dict(ended.asked)
    assert len(ended.asked) == len(ended.told) == 2 * 4 + 4  # legs of two phases, refusals, guards, trips, the outage
    assert ended.told["with the stack: asyncio client, sync server"] == len(ended.story.jobs)


def test_a_call_without_the_stack_fails_with_what_the_server_refused_it_with(story: Story) -> None:
    """The first refusal is the caller's, and it gets no message."""
    faults = Faults(1, SHARE)
    # Of the sync clients: an asyncio one now and then reports INTERNAL instead, as is told at stack.RETRIED.
    refused = [answer for leg in story.without if leg.client == "sync" for answer in leg.answers if not answer.right]

    assert refused
    for answer in refused:
        assert not faults.foretell(answer.request_id, 1).served
        assert (answer.code, answer.responses) == (grpc.StatusCode.UNAVAILABLE, ())
        assert answer.details == f"refused on purpose, arrival 1 of {answer.request_id}"


def test_an_answer_is_about_what_was_asked(story: Story) -> None:
    """Each method of both services, behind either server: the orders, people and shipments that the request names."""
    content = {
        "getOrder": lambda raw: Order.FromString(raw).id,
        "GetPerson": lambda raw: Person.FromString(raw).name,
        "GetPeople": lambda raw: Person.FromString(raw).name,
    }
    seen: set[tuple[str, str]] = set()
    for leg in story.within:
        for answer in served([leg]):
            job, method = answer.job, answer.job.method
            seen.add((method, leg.server))
            if method in content:
                asked = [getattr(request, "value", "") for request in job.requests]
                assert [content[method](raw) for raw in answer.responses] == asked
            elif method == "searchOrders":
                found = [Order.FromString(raw) for raw in answer.responses]
                assert len(found) == 8
                assert all(job.requests[0].value in order.description for order in found)
            elif method == "updateOrders":
                [receipt] = [StringValue.FromString(raw).value for raw in answer.responses]
                assert receipt == f"updated {', '.join(order.id for order in job.requests)}"
            else:
                shipped = [order for raw in answer.responses for order in CombinedShipment.FromString(raw).orders]
                assert sorted(order.id for order in shipped) == sorted(order.id for order in job.requests)

    methods = (*content, "searchOrders", "updateOrders", "processOrders")
    assert seen == {(method, server) for method in methods for server in STACKS}


def test_shipments_leave_while_orders_still_come(story: Story) -> None:
    """Those that are full leave first, numbered from 1, and what waits leaves at the end, by destination."""
    [shipments] = {answer.responses for answer in served(story.within) if answer.job.method == "processOrders"}
    parsed = [CombinedShipment.FromString(raw) for raw in shipments]
    rest = [shipment.destination for shipment in parsed if len(shipment.orders) < 3]

    assert [shipment.id for shipment in parsed] == [f"shipment-{number}" for number in range(1, len(parsed) + 1)]
    assert rest == sorted(rest) == [shipment.destination for shipment in parsed[len(parsed) - len(rest) :]]


# --- what is claimed of it --------------------------------------------------------------------------------------------


def test_every_claim_holds(story: Story) -> None:
    """Of a run in which nothing was spoilt."""
    assert [claim for claim in judge(story) if not claim.holds] == []


def with_answer(legs: list[Leg], **changes: Any) -> list[Leg]:
    """The same legs, but for one answer to a call that was served."""
    chosen = next(served(legs))
    return [
        replace(leg, answers=[replace(answer, **changes) if answer is chosen else answer for answer in leg.answers])
        for leg in legs
    ]


def with_sample(side: Side, field: str) -> Spoil:
    """Have one place count one more of something."""

    def spoil(story: Story) -> Story:
        place = ("asyncio", side)
        first, *others = story.meters[place].samples()
        meter = Meter()
        meter._samples = [replace(first, **{field: getattr(first, field) + 1}), *others]
        return replace(story, meters=story.meters | {place: meter})

    return spoil


def without_line(side: Side) -> Spoil:
    """Lose one line of the access log."""

    def spoil(story: Story) -> Story:
        log = LogBook()
        lost = next(line for line in story.log.lines if line.place.endswith(side.value))
        log.lines = [line for line in story.log.lines if line is not lost]
        return replace(story, log=log)

    return spoil


REFUSED = {"code": grpc.StatusCode.UNAVAILABLE, "details": "lost"}


@pytest.mark.parametrize(
    ("spoil", "text", "against"),
    [
        (
            lambda story: replace(story, without=with_answer(story.without, **REFUSED)),
            "without the stack, the calls that failed",
            "ended with UNAVAILABLE 'lost', not OK",
        ),
        (
            lambda story: replace(story, within=with_answer(story.within, **REFUSED)),
            "with it, the calls that failed",
            "ended with UNAVAILABLE 'lost', not OK",
        ),
        (with_sample(Side.CLIENT, "attempts"), "clients sent and servers", "attempts seen by the clients"),
        (with_sample(Side.SERVER, "attempts"), "clients sent and servers", "attempts seen by the servers"),
        (
            lambda story: replace(story, without=with_answer(story.without, responses=(b"another",))),
            "no message was lost",
            "was answered in 2 ways",
        ),
        (with_sample(Side.CLIENT, "responses"), "each place counted", "responses counted by clients"),
        (with_sample(Side.SERVER, "responses"), "each place counted", "responses counted by servers"),
        (without_line(Side.CLIENT), "the access log has", "lines from the clients"),
        (without_line(Side.SERVER), "the access log has", "lines from the servers"),
    ],
)
def test_a_claim_fails_when_its_fact_is_wrong(story: Story, spoil: Spoil, text: str, against: str) -> None:
    """One fact is spoilt, and one claim does not hold: the one about it, and it says what was seen."""
    (broken,) = [claim for claim in judge(spoil(story)) if not claim.holds]

    assert broken.text.startswith(text)
    assert against in broken.against


def test_a_call_that_should_have_been_refused(story: Story) -> None:
    """One that was answered against what the seed foretold is told as such."""
    faults = Faults(1, SHARE)
    leg = next(leg for leg in story.without if any(not answer.right for answer in leg.answers))
    answers = [replace(answer, code=answer.job.expect, details=answer.job.mention) for answer in leg.answers]
    lucky = next(answer for answer in answers if not faults.foretell(answer.request_id, 1).served)

    broken, *_ = [claim for claim in judge(replace(story, without=[replace(leg, answers=answers)])) if not claim.holds]
    assert broken.text.startswith("without the stack")
    assert broken.against == f"{lucky.job.method} {lucky.request_id} ended with OK '', not a refusal"


# --- how it is reported -----------------------------------------------------------------------------------------------


def test_the_table_has_what_the_places_saw(story: Story) -> None:
    """A row per place, of two legs each; a client's messages are those that its jobs send and are answered with."""
    rows = report.rows(story)
    lost = [answer for leg in story.without if leg.client == "sync" for answer in leg.answers if not answer.right]
    passed = [*story.within[0].answers, *story.within[1].answers]  # the legs of the sync client

    assert len(rows) == 16
    assert {row.calls for row in rows} == {2 * len(story.jobs) // len(Kind)}
    clients = [row for row in rows if (row.stack, row.side) == ("sync", "client")]
    assert sum(row.failures_without for row in clients) == len(lost) > 0
    assert sum(row.failures_with for row in clients) == 0
    assert sum(row.messages for row in clients) == sum(
        len(answer.job.requests) + len(answer.responses) for answer in passed
    )
    assert all(0 < row.latency_ms["p50"] <= row.latency_ms["p95"] <= row.latency_ms["p99"] for row in clients)


def test_the_text_has_a_line_per_place_hop_and_violation(story: Story) -> None:
    """Nothing is wider than a terminal but the last line, which sums it up."""
    *lines, last = report.as_text(story, judge(story))
    words = [line.split() for line in lines]

    assert max(map(len, lines)) <= 100
    assert [row[:2] for row in words if row[1:2] in (["client"], ["server"])] == [
        [stack, side] for stack in STACKS for side in ("client", "server") for _ in range(4)
    ]
    assert sum("sync-delivered" in row or "asyncio-delivered" in row for row in words) == 6
    assert ["BadRequest", "destination", "missing"] in words
    assert not any("NOT SO" in line for line in lines)
    assert last.startswith("Shown in sixteen places: with 30% of attempts refused, ")
    assert f" of {4 * len(story.jobs)} calls failed without the stack, 0 with it " in last


def test_what_does_not_hold_is_listed(story: Story) -> None:
    """With what speaks against it, and the last line says that nothing was shown."""
    claims = [Claim("the sky is green", "it is blue"), Claim("water is wet")]

    *_, line, last = report.as_text(story, claims)

    assert line == "NOT SO: the sky is green: it is blue"
    assert last == report.summary(story, claims) == "Not shown: what is listed as NOT SO speaks against it."
    assert report.as_json(story, claims)["holds"] is False


def test_the_document_can_be_read_back(story: Story) -> None:
    """It is plain JSON, and has what the text has."""
    told = json.loads(json.dumps(report.as_json(story, judge(story))))

    assert (told["holds"], told["seed"], told["seconds"] > 0) == (True, 1, True)
    assert [len(told[name]) for name in ("places", "hops", "refusals", "outage", "claims")] == [16, 6, 4, 3, 19]
    assert {refusal["code"] for refusal in told["refusals"]} == {"INVALID_ARGUMENT"}
    assert [message["type"] for message in told["refusals"][0]["error_details"]] == [
        "google.rpc.BadRequest",
        "google.rpc.ErrorInfo",
    ]
    assert told["access_log"]["lines"] == len(story.log.lines)


def test_the_excerpt_prefers_calls_that_were_sent_twice(story: Story) -> None:
    """One call per leg with all of its lines; where a call of that leg and kind was sent twice, such a one."""
    faults = Faults(1, SHARE)
    excerpt = report._excerpt(story)

    chosen = list(dict.fromkeys(line.request_id for line in excerpt))
    assert len(chosen) == len(story.within)
    assert len(excerpt) == sum(line.request_id in chosen for line in story.log.lines)
    for request_id, leg in zip(chosen, story.within, strict=True):
        answers = {answer.request_id: answer for answer in leg.answers}
        twice = [
            answer.request_id
            for answer in leg.answers
            if answer.job.kind is answers[request_id].job.kind
            and faults.foretell(answer.request_id, 3) == Fate(2, served=True)
        ]
        assert request_id in (twice or answers)


def test_a_line_of_the_log_reads_well(story: Story) -> None:
    """Place, id, method without its package, code and milliseconds, in columns."""
    line = replace(story.log.lines[0], place="sync server", request_id="a-1", method="shop.v1.Shop/buy", code="OK")

    assert str(replace(line, time=0.25, milliseconds=1.25)).split()[1:] == [
        "sync",
        "server",
        "a-1",
        "Shop/buy",
        "OK",
        "1.2",
    ]
    assert str(replace(line, time=0.25)).split()[0].endswith(".250")
    assert line.as_json()["method"] == "shop.v1.Shop/buy"


def test_without_a_refusal_nothing_is_made_up(story: Story) -> None:
    """The part about the refused order is left out."""
    untold = list(report.as_text(replace(story, refusals=[]), []))

    assert not any("is refused with" in line or "BadRequest" in line for line in untold)
    assert len(untold) == len(list(report.as_text(story, []))) - 7
