"""What an interceptor does wrong with a message or metadata is said without them: in the log, and to the client."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import grpc
import pytest

from interpose import Call, Flow, Kind, Metadata, Method, Side, intercept_channel
from interpose.interceptors import CircuitBreaker, ConcurrencyLimit, ExceptionToStatus, RateLimit
from interpose.testing import PLACES, Place, ok, play, raised

SECRET = "s3cret"
UNARY = [place for place in PLACES if place.kind is Kind.UNARY_UNARY]


def returns_the_response(call: Call) -> Flow:
    outcome = yield call
    return outcome.response


def yields_a_message(call: Call) -> Flow:
    yield SECRET  # type: ignore[misc]


def sends_it_as_metadata(call: Call) -> Flow:
    yield call.with_metadata(("x-token", f"{SECRET}\n"))


def sends_no_pairs(call: Call) -> Flow:
    yield call.with_metadata(SECRET)  # type: ignore[arg-type]


def takes_it_for_seconds(call: Call) -> Flow:
    yield call.after(SECRET)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_an_interceptor_that_returns_a_message(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The type, and what to write."""
    with place.open(returns_the_response, script=[ok(SECRET)]) as rpc:
        reply = rpc.call("a", timeout=10)

    assert reply.code is grpc.StatusCode.INTERNAL
    assert "returned a str: return the outcome, or outcome.with_response(message)" in (reply.details or "")
    assert SECRET not in f"{reply.details} {caplog.text}"
    assert "returned a str" in caplog.text


@pytest.mark.parametrize(
    "interceptor",
    [
        yields_a_message,
        sends_it_as_metadata,
        sends_no_pairs,
        takes_it_for_seconds,
        RateLimit("1/second", key=lambda call: [SECRET]),  # type: ignore[arg-type,return-value]
        CircuitBreaker(key=lambda call: [SECRET]),  # type: ignore[arg-type,return-value]
        ConcurrencyLimit(1, partition=lambda call: [SECRET]),  # type: ignore[arg-type,return-value]
    ],
    ids=lambda interceptor: getattr(interceptor, "__name__", type(interceptor).__name__),
)
def test_what_an_interceptor_does_with_it(interceptor: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the exception and its text, which has none of it."""
    played = play(interceptor, [], requests=[SECRET])

    assert played.outcome.code is grpc.StatusCode.INTERNAL
    assert "raised TypeError" in caplog.text or "raised ValueError" in caplog.text or "yielded a str" in caplog.text
    assert SECRET not in caplog.text + (played.outcome.details or "")


def test_an_exception_that_is_mapped_to_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """It is no status, and not shown."""
    mapping: dict[Any, Any] = {KeyError: lambda error: error.args[0]}

    play(ExceptionToStatus(mapping), [raised(KeyError(SECRET))], side=Side.SERVER)

    assert "KeyError to a str, which is no status" in caplog.text


def never(token: str, call: Call) -> None:
    pass


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda: Metadata([("x-a", f"{SECRET}é")]),
            "metadata value of 'x-a' has characters other than printable ASCII; ",
        ),
        (lambda: Metadata(cast("Any", [(SECRET,)])), "pairs, not of a tuple"),
        (lambda: intercept_channel(grpc.insecure_channel("unix:x"), cast("Any", {SECRET: 1})), "a dict is no function"),
        (
            lambda: intercept_channel(grpc.insecure_channel("unix:x"), cast("Any", partial(never, SECRET))),
            "never never yields",
        ),
        (lambda: Call(Method("/a/b", Kind.UNARY_UNARY)).map(requests=SECRET), "of one message, not a str"),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused(made: Callable[[], object], said: str) -> None:
    """By its type."""
    with pytest.raises((TypeError, ValueError)) as error:
        made()

    assert said in str(error.value)
    assert SECRET not in str(error.value)
