"""Readiness: the health service follows checks, and does not flap."""

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import interpose
from interpose import Call, Kind, Method, Side
from interpose.interceptors.concurrency_limit import ConcurrencyLimit, Fixed
from interpose.serving import readiness
from interpose.serving.readiness import IN_A_ROW, Readiness
from interpose.testing import play
from tests.serving.driving import Client, Shop, Status, serve


def told(opinions: list[bool]) -> list[bool]:
    """What is told when a check answers this, look after look."""
    said: list[bool] = []
    answers = iter(opinions)
    looks = Readiness([lambda: next(answers)], lambda check: check(), said.append)
    for _ in opinions:
        looks.look()
    return said


@pytest.mark.parametrize(
    ("opinions", "said"),
    [
        ("+", [True]),
        ("-", [False]),
        ("+--", [True]),
        ("+---", [True, False]),
        ("+--+--+--", [True]),
        ("+---++-++-++", [True, False]),
        ("+---+++", [True, False, True]),
    ],
)
def test_three_looks_in_a_row_change_what_is_told(opinions: str, said: list[bool]) -> None:
    """The first counts at once; a check that wavers changes nothing."""
    assert told([opinion == "+" for opinion in opinions]) == said


@given(st.lists(st.booleans(), max_size=40))
def test_it_never_flaps(opinions: list[bool]) -> None:
    """Each thing told differs from the one before, and so many looks lie between two."""
    said = told(opinions)

    assert all(one is not other for one, other in pairwise(said))
    assert len(said) <= 1 + max(len(opinions) - 1, 0) // IN_A_ROW


def test_a_check_that_raises_or_hangs_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot answer is not ready; and one that hangs is not asked again meanwhile."""
    said: list[bool] = []
    free = threading.Event()
    asked: list[int] = []

    def raising() -> bool:
        raise OSError("no database")

    def hanging() -> bool:
        asked.append(1)
        return free.wait(10)

    failing = Readiness([raising], lambda check: check(), said.append)
    failing.look()
    stuck = Readiness([hanging], lambda check: check(), said.append, patience=0.01)
    for _ in range(3):
        stuck.look()
    free.set()

    assert said == [False, False]
    assert asked == [1]
    assert [record.message.split(", by")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "not ready"
    ] * 2


def test_every_check_counts_also_those_of_one_name() -> None:
    """Two lambdas, one of which fails."""
    said: list[bool] = []

    Readiness([lambda: False, lambda: True], lambda check: check(), said.append).look()

    assert said == [False]


def test_a_limit_that_refuses_is_not_ready() -> None:
    """It is full and has refused a call since the last look; ready again when it has not."""
    limit = ConcurrencyLimit(Fixed(1), queue=0)
    check = readiness.following(limit)
    call = Call(Method("/shop.v1.Orders/Place", Kind.UNARY_UNARY), Side.SERVER)

    idle = check()
    holder: Any = limit(call)
    next(holder)
    full = check()
    play(limit, script=[], side=Side.SERVER)
    refusing = check()
    after = check()

    assert (idle, full, refusing, after) == (True, True, False, True)
    holder.close()


@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "asyncio"])
def test_health_follows_a_check(path: Path, on_loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that watches is told of each change once, for each service; on asyncio a check may be async."""
    monkeypatch.setattr(readiness, "EVERY", 0.01)
    state = [False]

    def check() -> bool:
        return state[0]

    async def async_check() -> bool:
        return state[0]

    def script(client: Client) -> Any:
        watches = [client.watch(), client.watch("test.Shop")]
        seen = []
        for ready in (True, False):
            seen.append([next(watch).status for watch in watches])
            state[0] = ready
        seen.append([next(watch).status for watch in watches])
        return seen

    seen = serve(Shop(asyncio=on_loop).app, script, path, ready=[async_check if on_loop else check])

    assert seen == [[Status.NOT_SERVING] * 2, [Status.SERVING] * 2, [Status.NOT_SERVING] * 2]


def test_what_is_no_check_is_refused() -> None:
    """All that can be wrong with it, at once."""
    with pytest.raises(ValueError, match=r"ready must be a list of functions .*; ready needs health"):
        interpose.serve("a:b", ready=[5], health=False)
