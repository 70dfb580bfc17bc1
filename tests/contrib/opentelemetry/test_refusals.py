"""Tracing: what a guard refuses has a span like every other RPC, and says so."""

from collections.abc import Callable

import grpc
import pytest

from interpose import Call, Flow, chain, errors
from interpose.contrib.opentelemetry import Tracing
from interpose.interceptors import (
    CircuitBreaker,
    ConcurrencyLimit,
    Deadline,
    Fallback,
    FaultInjection,
    RateLimit,
    Retry,
)
from interpose.interceptors.concurrency_limit import Fixed
from interpose.testing import failed, ok, play
from tests.contrib.opentelemetry.receiver import Exporting
from tests.interceptors.driving import incoming, outgoing

Code = grpc.StatusCode


def rate_limited(tracing: Tracing) -> None:
    limit = RateLimit("1/hour")
    play(limit, [ok()], **incoming())
    play(chain(tracing, limit), [], **incoming())


def overloaded(tracing: Tracing) -> None:
    limit = ConcurrencyLimit(Fixed(1), queue=0)

    def meanwhile(call: Call) -> Flow:
        play(chain(tracing, limit), [], **incoming())
        yield call

    play(chain(limit, meanwhile), [ok()], **incoming())


def broken(tracing: Tracing) -> None:
    breaker = CircuitBreaker(minimum=1)
    play(breaker, [failed(Code.UNAVAILABLE)], **outgoing())
    play(chain(tracing, breaker), [], **outgoing())


def too_late(tracing: Tracing) -> None:
    play(chain(tracing, Deadline(5)), [], **incoming(timeout=0.0))


def faulty(tracing: Tracing) -> None:
    play(chain(tracing, FaultInjection(enabled=True, abort=Code.ABORTED)), [], **outgoing())


def refused(status: errors.StatusError) -> Callable[[Tracing], None]:
    """A guard that says no in this way, like those that find out who calls."""

    def guard(call: Call) -> Flow:
        raise status
        yield call

    def ending(tracing: Tracing) -> None:
        play(chain(tracing, guard), [], **incoming())

    return ending


@pytest.mark.parametrize(
    ("ending", "status", "code"),
    [
        (rate_limited, "RESOURCE_EXHAUSTED", "UNSET"),
        (overloaded, "UNAVAILABLE", "ERROR"),
        (broken, "UNAVAILABLE", "ERROR"),
        (too_late, "DEADLINE_EXCEEDED", "ERROR"),
        (faulty, "ABORTED", "ERROR"),
        (refused(errors.Unauthenticated("no token")), "UNAUTHENTICATED", "UNSET"),
        (refused(errors.PermissionDenied("not yours")), "PERMISSION_DENIED", "UNSET"),
        (refused(errors.InvalidArgument("name: empty")), "INVALID_ARGUMENT", "UNSET"),
    ],
)
def test_a_refusal(ending: Callable[[Tracing], None], status: str, code: str, exporting: Exporting) -> None:
    """Its code; an error where the conventions say so on that side."""
    ending(Tracing(exporting.provider))
    [span] = exporting.spans(1)

    assert (span.status, span.code) == (status, code)
    assert span.attributes.get("error.type") == (status if code == "ERROR" else None)
    assert bool(span.description) == (code == "ERROR")


def test_an_answer_in_place_of_failures(exporting: Exporting) -> None:
    """The RPC ended well, and its attempts say how that came."""
    again = Retry(2, safe=True, backoff=lambda _: 0.0)
    stack = chain(Tracing(exporting.provider), Fallback("yesterday"), again)
    play(stack, [failed(Code.UNAVAILABLE), ...], **outgoing())
    [span] = exporting.spans(1)

    assert (span.status, span.code, span.attributes["interpose.attempts"]) == ("OK", "UNSET", 2)
    assert [event["rpc.status_code"] for _, event in span.events] == ["UNAVAILABLE", "UNAVAILABLE"]
