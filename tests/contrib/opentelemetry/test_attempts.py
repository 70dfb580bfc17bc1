"""Tracing: the attempts of an RPC, as events of its span and as spans below it."""

from concurrent.futures import Future
from itertools import count
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, chain, wait
from interpose.contrib.opentelemetry import Tracing
from interpose.interceptors import Hedge, Retry
from interpose.testing import failed, ok, raised
from tests.contrib.opentelemetry.driving import SORTS, traced
from tests.contrib.opentelemetry.receiver import Exporting, Got

Code = grpc.StatusCode
SOME = [
    ("sync", Kind.UNARY_UNARY),
    ("async", Kind.UNARY_STREAM),
    ("sync", Kind.UNARY_STREAM),
    ("async", Kind.UNARY_UNARY),
]
AGAIN = [failed(Code.UNAVAILABLE), failed(Code.ABORTED, "try again"), ok()]


def retry() -> Retry:
    return Retry(3, codes={Code.UNAVAILABLE, Code.ABORTED}, safe=True, backoff=lambda _: 0.0)


def sides(spans: list[Got]) -> tuple[list[Got], list[Got]]:
    """The spans of the server and those of the client, each in the order in which they ended."""
    return [span for span in spans if span.kind == "SERVER"], [span for span in spans if span.kind == "CLIENT"]


def told(span: Got) -> list[tuple[Any, Any, Any]]:
    """What the events of a span say of attempts."""
    assert {name for name, _ in span.events} <= {"interpose.attempt"}
    return [
        (each["interpose.attempt"], each["rpc.status_code"], each.get("error.type"))
        for _, each in span.events
        if each["interpose.elapsed"] >= 0
    ]


@pytest.mark.parametrize(("sort", "kind"), SOME)
def test_three_attempts_as_events(sort: str, kind: Kind, exporting: Exporting) -> None:
    """One span for the RPC, an event for each of its attempts, and the number of them."""
    with traced(sort, kind, Tracing(exporting.provider), client=[retry()], script=AGAIN) as rpc:
        rpc.call()
        served, [sent] = sides(exporting.spans(4))

    assert (sent.status, sent.code, sent.attributes["interpose.attempts"]) == ("OK", "UNSET", 3)
    assert told(sent) == [(1, "UNAVAILABLE", "UNAVAILABLE"), (2, "ABORTED", "ABORTED"), (3, "OK", None)]
    assert {span.parent for span in served} == {sent.span_id}
    assert [span.status for span in served] == ["UNAVAILABLE", "ABORTED", "OK"]


@pytest.mark.parametrize(("sort", "kind"), SOME)
def test_three_attempts_as_spans(sort: str, kind: Kind, exporting: Exporting) -> None:
    """Each below that of the RPC, and above that of the server."""
    tracing = Tracing(exporting.provider, attempts="spans")
    with traced(sort, kind, tracing, client=[retry()], script=AGAIN) as rpc:
        rpc.call()
        served, [*attempts, sent] = sides(exporting.spans(7))

    assert (sent.status, sent.attributes["interpose.attempts"], sent.events) == ("OK", 3, [])
    assert [(one.status, one.code, one.description) for one in attempts] == [
        ("UNAVAILABLE", "ERROR", "as scripted"),
        ("ABORTED", "ERROR", "try again"),
        ("OK", "UNSET", ""),
    ]
    assert [one.attributes["interpose.attempt"] for one in attempts] == [1, 2, 3]
    assert {one.name for one in attempts} == {f"Attempt.interpose.testing.Echo.{kind.value}"}
    assert {one.parent for one in attempts} == {sent.span_id}
    assert [one.links for one in attempts] == [[], [], []]
    assert [one.parent for one in served] == [one.span_id for one in attempts]


@pytest.mark.parametrize("attempts", ["events", None])
def test_an_only_attempt_has_no_event(attempts: Any, exporting: Exporting) -> None:
    """The span says it all; and with `attempts=None` no attempt has one."""
    with traced("sync", Kind.UNARY_UNARY, Tracing(exporting.provider, attempts=attempts), client=[retry()]) as rpc:
        rpc.call()
        _, [sent] = sides(exporting.spans(2))

    assert sent.events == []
    assert "interpose.attempts" not in sent.attributes


def test_attempts_that_are_only_counted(exporting: Exporting) -> None:
    """With `attempts=None`."""
    tracing = Tracing(exporting.provider, attempts=None)
    with traced("sync", Kind.UNARY_UNARY, tracing, client=[retry()], script=AGAIN) as rpc:
        rpc.call()
        _, [sent] = sides(exporting.spans(4))

    assert (sent.events, sent.attributes["interpose.attempts"]) == ([], 3)


class Copies:
    """Two copies of a call: the first arrives and is never answered, and only then the second is sent."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._arrived: Future[None] = Future()

    def sent(self, call: Call) -> Flow:
        """On the client, inside of `Hedge`."""
        number = next(self._numbers)
        if number > 1:
            yield from wait(self._arrived)
        yield call.with_metadata(("x-copy", str(number)))

    def held(self, call: Call) -> Flow:
        """On the server."""
        if call.metadata["x-copy"] == "1":
            self._arrived.set_result(None)
            call = call.after(60)
        yield call


@pytest.mark.parametrize(("sort", "kind"), SOME)
def test_a_hedge_that_the_second_copy_wins(sort: str, kind: Kind, exporting: Exporting) -> None:
    """As events: the copy that lost was cancelled; both servers are below the one span."""
    hedge, copies, tracing = Hedge(2, delay=0.001, safe=True), Copies(), Tracing(exporting.provider)
    with traced(sort, kind, tracing, client=[hedge, copies.sent], server=[copies.held]) as rpc:
        rpc.call()
        served, [sent] = sides(exporting.spans(3))

    assert (sent.status, sent.attributes["interpose.attempts"]) == ("OK", 2)
    assert sorted(told(sent)) == [(1, "CANCELLED", "CANCELLED"), (2, "OK", None)]
    assert sorted(one.status for one in served) == ["CANCELLED", "OK"]
    assert {one.parent for one in served} == {sent.span_id}


@pytest.mark.parametrize(("sort", "kind"), SOME)
def test_a_hedge_as_spans_with_links(sort: str, kind: Kind, exporting: Exporting) -> None:
    """The second copy has a link to the one that was under way when it was sent."""
    hedge, copies = Hedge(2, delay=0.001, safe=True), Copies()
    tracing = Tracing(exporting.provider, attempts="spans")
    with traced(sort, kind, tracing, client=[hedge, copies.sent], server=[copies.held]) as rpc:
        rpc.call()
        served, sent = sides(exporting.spans(5))
    first, second, whole = sorted(sent, key=lambda span: span.attributes.get("interpose.attempt", 9))

    assert [(one.status, one.parent) for one in (first, second)] == [
        ("CANCELLED", whole.span_id),
        ("OK", whole.span_id),
    ]
    assert first.links == []
    assert second.links == [(first.span_id, {"interpose.hedged": True})]
    assert {(one.parent, one.status) for one in served} == {(first.span_id, "CANCELLED"), (second.span_id, "OK")}


@pytest.mark.parametrize("sort", SORTS)
def test_a_span_for_each_attempt_inside_of_retry(sort: str, exporting: Exporting) -> None:
    """Where it stands inside, each attempt is an RPC of its own, beside the others and not below them."""
    tracing = Tracing(exporting.provider)
    with traced(sort, Kind.UNARY_UNARY, None, client=[retry(), tracing], script=AGAIN) as rpc:
        rpc.call()
        spans = exporting.spans(3)

    assert [span.status for span in spans] == ["UNAVAILABLE", "ABORTED", "OK"]
    assert {span.parent for span in spans} == {""}


def test_outside_of_retry_and_inside(exporting: Exporting) -> None:
    """The one outside tells of its attempts all the same, and those inside are below it."""
    tracing = Tracing(exporting.provider)
    with traced("sync", Kind.UNARY_UNARY, None, client=[tracing, retry(), tracing], script=AGAIN) as rpc:
        rpc.call()
        *inside, outside = exporting.spans(4)

    assert {span.parent for span in inside} == {outside.span_id}
    assert [number for number, *_ in told(outside)] == [1, 2, 3]
    assert [span.events for span in inside] == [[], [], []]


def test_a_retry_on_a_server_is_counted(exporting: Exporting) -> None:
    """There an attempt is a run of the handler, and no RPC."""
    again = Retry(3, errors=(KeyError,), backoff=lambda _: 0.0)
    script = [raised(KeyError("once")), ok()]
    with traced("sync", Kind.UNARY_UNARY, Tracing(exporting.provider), server=[again], script=script) as rpc:
        assert rpc.call() is Code.OK
        [served], _ = sides(exporting.spans(2))

    assert served.attributes["interpose.attempts"] == 2


def test_in_a_chain_that_a_flow_calls(exporting: Exporting) -> None:
    """There too; the attempts are those that the chain makes."""

    def calls(call: Call) -> Flow:
        return (yield from chain(Tracing(exporting.provider), retry())(call))

    with traced("sync", Kind.UNARY_UNARY, None, client=[calls], script=AGAIN) as rpc:
        rpc.call()
        [sent] = exporting.spans(1)

    assert [number for number, *_ in told(sent)] == [1, 2, 3]


def test_called_by_a_flow_itself(exporting: Exporting) -> None:
    """Without the driver there is no innermost: the attempts are counted."""
    tracing = Tracing(exporting.provider)

    def calls(call: Call) -> Flow:
        return (yield from tracing(call))

    with traced("sync", Kind.UNARY_UNARY, None, client=[calls, retry()], script=AGAIN) as rpc:
        rpc.call()
        [sent] = exporting.spans(1)

    assert (sent.status, sent.attributes["interpose.attempts"], sent.events) == ("OK", 3, [])
