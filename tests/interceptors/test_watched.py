"""What Rpcz says of breakers, limits and budgets."""

import json
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from interpose import Side, chain, when
from interpose.interceptors import (
    AccessLog,
    Authenticate,
    BearerToken,
    Cache,
    CircuitBreaker,
    ConcurrencyLimit,
    Hedge,
    RateLimit,
    RatioBudget,
    Retry,
    RetryBudget,
    Rpcz,
    Token,
)
from interpose.interceptors.watched import Card, cards, watchable
from interpose.mechanisms.budget import Unlimited
from interpose.testing import FakeClock, failed, ok, play

DOWN = failed(grpc.StatusCode.UNAVAILABLE)


def shown(*items: Any, now: float = 1000.0) -> list[Card]:
    watched, faults = watchable(items)
    assert not faults
    return cards(watched, now)


def card(*items: Any) -> Card:
    [only] = shown(*items)
    return only


def test_a_breaker_has_a_card_for_each_key() -> None:
    """The open ones first, with what they counted and when they try again."""
    clock = FakeClock()
    breaker = CircuitBreaker(minimum=2, clock=clock, key=lambda call: str(call.metadata.get("target")))
    for target, act in (("well", ok()), ("ill", DOWN), ("ill", DOWN)):
        play(breaker, [act], metadata=[("target", target)], clock=clock)

    assert [(one["name"], one["state"], one["level"]) for one in shown(breaker)] == [
        ("ill", "open", "bad"),
        ("well", "closed", "ok"),
    ]
    assert shown(breaker)[0]["facts"] == {"calls": 2, "failures": 2, "retry_in": 30.0}
    breaker.disable()
    assert {one["level"] for one in shown(breaker)} == {"warn"}


def test_a_concurrency_limit_says_how_full_it_is() -> None:
    """The partitions, whose names callers may have chosen, are only counted."""
    limit, states = ConcurrencyLimit(1, partition=lambda call: "tenant-4711"), list[Card]()

    def look(call: Any) -> Any:
        states.append(card(limit))
        yield call

    play(chain(limit, look), [ok()], side=Side.SERVER)

    assert [(one["state"], one["level"]) for one in (*states, card(limit))] == [("1 of 1", "warn"), ("0 of 1", "ok")]
    assert states[0]["facts"]["partitions"] == 1
    assert "4711" not in json.dumps(states)


def test_a_rate_limit_says_what_it_refused() -> None:
    """And its limits, as text."""
    clock = FakeClock()
    limit = RateLimit(["1/second", "100/hour"])
    for _ in range(3):
        play(limit, [ok(), ...], clock=clock)

    assert (card(limit)["state"], card(limit)["level"]) == ("2 refused", "warn")
    assert card(limit)["facts"]["limits"] == "1/second, 100/hour"


def test_budgets_have_cards_beside_those_who_ask_them() -> None:
    """One that is shared is there once."""
    shared = RetryBudget(10)
    retry, hedge = Retry(safe=True, budget=shared), Hedge(safe=True, budget=shared)
    for _ in range(4):
        shared.failed(0)
    play(retry, [DOWN])

    found = [(one["what"], one["state"], one["level"]) for one in shown(retry, hedge, shared)]
    assert found == [
        ("budget of Retry", "used up", "bad"),
        ("Retry", "0 sent again", "warn"),
        ("Hedge", "0 copies, 0 won", "ok"),
    ]
    assert [one["state"] for one in shown(Retry())] == ["0 sent again", "retries allowed"]

    ratio = RatioBudget(minimum=2)
    ratio.began(1000.0)
    ratio.spend(1000.0)
    assert (card(ratio)["state"], card(ratio)["facts"]) == ("1 sent again", {"calls": 1, "retries": 1})
    assert card(Unlimited())["state"] == "Unlimited()"


def test_what_has_no_state_is_left_out() -> None:
    """So a whole stack can be given, chains and conditions too; and another `Rpcz` is none."""
    stack = [AccessLog(), chain(Cache(30), when("/a.B/*", RateLimit("1/second"))), Rpcz()]

    assert [one["what"] for one in shown(*stack[:2])] == ["Cache", "RateLimit"]
    assert len(Rpcz(stack).snapshot()["watched"]) == 2
    assert watchable([chain(), [3]])[1] == ["watch must have interceptors, budgets, and what has a snapshot(), not [3]"]


def test_those_who_find_out_who_calls() -> None:
    """What they decided, what their verifiers know, and a token that is good for ever, which JSON has no number for."""

    @dataclass(frozen=True)
    class Keys:
        age: float
        error: str | None

    @dataclass(frozen=True)
    class Tokens:
        kept: int
        error: str | None
        keys: Keys

    class Verifier:
        def __call__(self, credentials: Any) -> Any:
            raise RuntimeError

        def snapshot(self) -> Tokens:
            return Tokens(3, "it timed out", Keys(7.5, None))

    verifier, token = Verifier(), BearerToken(lambda: Token("t"), insecure=True)
    authenticate = Authenticate(verifier)
    play(authenticate, [], side=Side.SERVER, metadata=[("authorization", "Bearer t")])
    play(token, [ok()])

    found = {one["what"].rpartition(".")[2]: one for one in shown(authenticate, token)}
    assert (found["Authenticate"]["state"], found["Authenticate"]["level"]) == ("faults: 1", "warn")
    assert (found["Verifier"]["state"], found["Verifier"]["level"]) == ("the last fetch failed", "warn")
    assert found["Verifier"]["facts"] == {"kept": 3, "error": "it timed out", "keys_age": 7.5, "keys_error": None}
    assert found["BearerToken"]["facts"]["expires_in"] == "for ever"
    assert json.dumps(list(found.values()), allow_nan=False)


@dataclass(frozen=True)
class State:
    out: bool
    note: str
    often: float


class Own:
    """Something of a user's."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def snapshot(self) -> Any:
        if isinstance(self._state, Exception):
            raise self._state
        return self._state


def test_what_users_made_is_shown_by_its_fields() -> None:
    """As a store that does not answer; what looks like a secret is taken out, and control characters too."""
    own = Own(State(out=True, note="redis://me:hunter2@host\x1b[2J", often=0.5))

    assert card(own) == {
        "what": "Own",
        "name": "",
        "state": "does not answer",
        "level": "bad",
        "facts": {"out": True, "note": "redis://[REDACTED]@host\\x1b[2J", "often": 0.5},
    }
    assert card(Own("well"))["facts"] == {"state": "well"}


def test_one_that_fails_to_tell_has_that_as_its_state() -> None:
    """The others are there all the same."""
    told = shown(Own(ValueError("password=hunter2")), Cache(30))

    assert [(one["what"], one["state"], one["level"]) for one in told] == [
        ("Own", "its state cannot be read: ValueError", "bad"),
        ("Cache", "", "ok"),
    ]


def test_the_store_of_a_limit_is_watched_too() -> None:
    """Where it has a state: that of a Redis which is shared says whether it answers."""

    class Store(Own):
        def limiter(self, *_: Any, **__: Any) -> Any:
            return []

    limit = RateLimit("1/second", store=Store(State(out=False, note="", often=1)))

    assert [one["what"] for one in shown(limit)] == ["RateLimit", "store of RateLimit"]


@pytest.mark.parametrize("item", [7, "Retry", CircuitBreaker], ids=str)
def test_what_cannot_be_watched(item: Any) -> None:
    """A number, a text, a class that one forgot to call."""
    assert len(watchable([item])[1]) == 1
