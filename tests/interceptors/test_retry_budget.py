"""Retry: what the server and the budget say of another attempt."""

import sys
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import errors, testing
from interpose.interceptors import Retry
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import RatioBudget, RetryBudget, Unlimited
from interpose.testing import FakeClock, failed, ok, raised
from interpose.testing.acts import Act
from tests.interceptors.driving import at_once, notes, retry_info, retrying

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


# --- pushback -------------------------------------------------------------------------------------------------------


def pauses(retry: Retry, *script: Any, **given: Any) -> list[float]:
    """How long each call waited to be sent."""
    return [sent.delay for sent in testing.play(retry, script, **given).sent]


def test_the_backoff_begins_anew_after_a_pushback() -> None:
    """gRFC A6: exactly what the server said, then the pauses from the first on; the attempts go on."""
    retry = retrying(6, backoff=exponential(1.0, jitter=0), budget=Unlimited())
    down, pushed = failed(UNAVAILABLE), failed(UNAVAILABLE, pushback=0.007)

    assert pauses(retry, down, down, pushed, down, down, down) == [0, 1, 2, 0.007, 1, 2]


def test_the_trailer_wins_over_a_retry_info() -> None:
    """Both may be there: the one of gRPC counts."""
    error = errors.Unavailable("x", retry_info(9), trailing_metadata=(("grpc-retry-pushback-ms", "250"),))

    assert pauses(retrying(2), raised(error), ok()) == [0, 0.25]


def test_a_retry_info_beyond_reason_is_no_retry() -> None:
    """Less than nothing, or more than an int32 of milliseconds."""
    for seconds in (-1, 3_000_000):
        played = testing.play(retrying(), [raised(errors.Unavailable("x", retry_info(seconds)))])

        assert notes(played.outcome) == ["Retry: attempt 1 was the last: the server asked not to be tried again"]


@pytest.mark.parametrize("packed", [b"\xff\xff", b""])
def test_broken_details_change_nothing(packed: bytes) -> None:
    """They are a server's, and the backoff is ours."""
    retry = retrying(2, backoff=lambda _: 3.0)

    assert pauses(retry, failed(UNAVAILABLE, trailing=[("grpc-status-details-bin", packed)]), ok()) == [0, 3]


def test_without_protobuf_details_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `status` need not be installed for a server that sends rich errors."""
    error = errors.Unavailable("x", retry_info(9))
    monkeypatch.setitem(sys.modules, "interpose.contrib.status", None)

    assert pauses(retrying(2, backoff=lambda _: 3.0), raised(error), ok()) == [0, 3]


def test_a_pushback_makes_no_code_worth_a_retry() -> None:
    """NOT_FOUND stays an answer, whenever the server wants to be asked again."""
    played = testing.play(retrying(safe=True), [failed(grpc.StatusCode.NOT_FOUND, pushback=0.1)])

    assert len(played.sent) == 1
    assert notes(played.outcome) == []


def test_a_pushback_that_would_outlive_the_deadline() -> None:
    """Core waits for the deadline there; here the failure is the answer at once."""
    clock = FakeClock()
    played = testing.play(retrying(), [failed(UNAVAILABLE, pushback=10)], timeout=1, clock=clock)

    assert played.outcome.code is UNAVAILABLE and played.elapsed == 0
    assert notes(played.outcome) == ["Retry: attempt 1 was the last: a pause of 10 s would outlive the deadline"]


# --- the budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "options", "tokens"),
    [
        (ok(), {}, 8.5),  # a half came back
        (failed(UNAVAILABLE), {}, 7.0),
        (failed(INTERNAL), {}, 8.0),  # no code of ours
        (failed(grpc.StatusCode.NOT_FOUND, pushback="-1"), {}, 7.0),  # it said not to retry
        (failed(grpc.StatusCode.NOT_FOUND, pushback=1.0), {}, 8.0),
        (failed(INTERNAL), {"codes": {INTERNAL}, "safe": False}, 7.0),  # the server fails, whether we may retry or not
        (ok(), {"retry_if": lambda outcome: True}, 7.0),
        (failed(UNAVAILABLE), {"retry_if": lambda outcome: False}, 8.0),
    ],
)
def test_what_an_attempt_costs(act: Act, options: dict[str, Any], tokens: float) -> None:
    """A failure that passes, or is told not to be repeated, takes a token; a success brings back a share; else nothing."""
    budget = RetryBudget(10, 0.5)
    for _ in range(2):
        budget.failed(0)

    testing.play(retrying(1, budget=budget, **options), [act])

    assert budget.tokens == tokens


def test_a_budget_is_shared() -> None:
    """What one Retry loses, another one lacks."""
    budget = RetryBudget(6)
    one, other = retrying(9, budget=budget, backoff=at_once), retrying(9, budget=budget, backoff=at_once)

    first = testing.play(one, [failed(UNAVAILABLE)] * 3)
    second = testing.play(other, [failed(UNAVAILABLE)])

    assert (len(first.sent), len(second.sent)) == (3, 1)
    assert budget.tokens == 2


def test_each_has_a_budget_of_its_own() -> None:
    """Ten tokens, of which five failures leave half: an instance that was given none makes one."""
    one, other = retrying(9, backoff=at_once), retrying(9, backoff=at_once)

    assert [len(testing.play(retry, [failed(UNAVAILABLE)] * 5).sent) for retry in (one, other)] == [5, 5]
    assert len(testing.play(one, [failed(UNAVAILABLE)]).sent) == 1


def test_a_budget_by_ratio_is_told_of_calls() -> None:
    """One call in two may be sent again, by the time of the clock."""
    clock = FakeClock()
    retry = retrying(2, budget=RatioBudget(0.5, 0), backoff=at_once)

    def attempts() -> int:
        acts = [failed(UNAVAILABLE), ok()]
        return len(testing.play(retry, [*acts, ...], clock=clock).sent)

    assert [attempts() for _ in range(4)] == [1, 2, 1, 2]
    clock.advance(10)
    assert [attempts() for _ in range(2)] == [1, 2]


def test_a_retry_that_is_not_made_is_not_spent() -> None:
    """The budget is asked last: neither the deadline nor safety cost it anything."""
    budget, clock = RatioBudget(0, 1), FakeClock()
    options: dict[str, Any] = {"budget": budget, "codes": {UNAVAILABLE, INTERNAL}}
    testing.play(retrying(backoff=lambda _: 9.0, **options), [failed(UNAVAILABLE)], timeout=5, clock=clock)
    testing.play(Retry(**options), [failed(INTERNAL)], clock=clock)
    testing.play(retrying(1, **options), [failed(UNAVAILABLE)], clock=clock)

    assert len(testing.play(retrying(**options), [failed(UNAVAILABLE), ok()], clock=clock).sent) == 2


ACTS = st.sampled_from(
    [
        ok(),
        *(
            failed(code, pushback=pushback)
            for code in (UNAVAILABLE, UNAVAILABLE, INTERNAL, grpc.StatusCode.NOT_FOUND)
            for pushback in (None, None, "3000", "-1", "soon")
        ),
    ]
)


@given(
    st.lists(ACTS, min_size=1, max_size=8),
    st.integers(1, 6),
    st.sampled_from([None, True, False]),
    st.integers(2, 10),
    st.none() | st.just(9),
)
def test_against_a_slow_model(
    acts: list[Act], attempts: int, safe: bool | None, tokens: int, timeout: float | None
) -> None:
    """Whatever a server does, the pauses are those of gRFC A6, and so is what is left of the budget."""
    budget, clock = RetryBudget(tokens, 0.5), FakeClock()
    retry = retrying(
        attempts,
        codes={UNAVAILABLE, INTERNAL},
        safe=safe,
        budget=budget,
        backoff=exponential(1, jitter=0),
    )
    script: list[Any] = [*acts, ...]
    expected, left = by_the_book(acts, attempts, safe, tokens, timeout)
    acts_needed = len(expected)

    played = testing.play(
        retry, script if acts_needed > len(acts) else acts[:acts_needed], timeout=timeout, clock=clock
    )

    assert [sent.delay for sent in played.sent] == expected
    assert budget.tokens == left


def by_the_book(
    acts: list[Act], attempts: int, safe: bool | None, most: float, timeout: float | None
) -> tuple[list[float], float]:
    """The pauses before each attempt, and the tokens that are left."""
    tokens, pauses, steps, passed = most, [0.0], 0, 0.0
    while True:
        act = acts[min(len(pauses), len(acts)) - 1]
        asked = dict(act.trailing).get("grpc-retry-pushback-ms")
        if not act.fails:
            return pauses, min(tokens + 0.5, most)
        retryable = act.code in (UNAVAILABLE, INTERNAL)
        if retryable or asked in ("-1", "soon"):
            tokens = max(tokens - 1, 0)
        steps = 0 if asked else steps + 1
        pause = 3.0 if asked else min(2.0 ** (steps - 1), 5.0)
        passed += pause
        if (
            not retryable
            or asked in ("-1", "soon")
            or not safe
            or len(pauses) == attempts
            or (timeout is not None and passed >= timeout)
            or tokens <= most / 2
        ):
            return pauses, tokens
        pauses.append(pause)
