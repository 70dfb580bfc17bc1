"""Clients that guards keep out, over the wire: with all guards, with one missing, and wherever calls are counted."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose.demo import claims, guards, report
from interpose.demo.guards import AN_HOUR, AT_ONCE, CALLS, CLIENTS, CROWD, GOOD, GUEST, HASTY, STRANGER, Guarded
from interpose.demo.run import STACKS, Story
from interpose.demo.run import _guarded as run_guarded
from interpose.demo.stack import Stack

pytestmark = pytest.mark.slow  # whole runs of the demo's scenes

Code = grpc.StatusCode


@pytest.fixture
def guarded(ended: Any) -> Guarded:
    """What came of it in the whole demo; `ended` stands in conftest."""
    seen: Guarded = ended.story.guarded
    return seen


def met(folder: Path) -> Story:
    """A story of these encounters alone."""
    found = asyncio.run(run_guarded(folder / "orders.sqlite", lambda name, steps: lambda: None))
    return Story(1, [], guarded=found)


def broken(story: Story) -> list[str]:
    """The claims about guards that do not hold."""
    about = ("no handler ran for", "a caller that came", "of a crowd", "behind all of these")
    return [claim.text for claim in claims.judge(story) if not claim.holds and claim.text.startswith(about)]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Redis."""
    monkeypatch.setattr("shutil.which", lambda name: None)


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_each_client_meets_each_server(guarded: Guarded) -> None:
    """With all its calls, each of which has ended."""
    assert [(one.client, one.server) for one in guarded.encounters] == [(c, s) for c in CLIENTS for s in STACKS]
    assert all(len(one.codes) == CALLS[one.client] for one in guarded.encounters)


def test_each_is_refused_with_its_code(guarded: Guarded) -> None:
    """Whichever server it asked; what passed has reached a handler, and nothing else has."""
    refused = {client: {code for one in guarded.of(client) for code in one.refused} for client in CLIENTS}

    assert refused == {
        STRANGER: {Code.UNAUTHENTICATED},
        GUEST: {Code.PERMISSION_DENIED},
        HASTY: {Code.RESOURCE_EXHAUSTED},
        CROWD: {Code.UNAVAILABLE},
        GOOD: set(),
    }
    assert all(one.runs == one.answered for one in guarded.encounters)
    assert [one.answered for one in guarded.of(CROWD)] == [AT_ONCE, AT_ONCE]


# --- where calls are counted ------------------------------------------------------------------------------------------


@pytest.mark.needs("redis")
def test_in_redis_both_servers_have_one_limit(tmp_path: Path) -> None:
    """Which is said."""
    story = met(tmp_path)

    assert broken(story) == []
    assert story.guarded is not None
    assert (story.guarded.counts, story.guarded.shared) == ("in Redis, which both servers share", True)
    assert sum(one.answered for one in story.guarded.of(HASTY)) == AN_HOUR


@pytest.mark.usefixtures("alone")
def test_without_redis_each_server_counts_for_itself(tmp_path: Path) -> None:
    """So it answers twice as much in all; and why, is said too."""
    story = met(tmp_path)

    assert broken(story) == []
    assert story.guarded is not None
    assert (story.guarded.counts, story.guarded.shared) == (
        "by each server for itself: there is no redis-server here",
        False,
    )
    assert [one.answered for one in story.guarded.of(HASTY)] == [AN_HOUR, AN_HOUR]
    assert "Calls are counted by each server for itself: there is no redis-server here." in report._guarded(story)


async def where() -> str:
    """In words, where calls are counted."""
    async with guards.counting() as counts:
        return counts.where


def test_a_redis_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no reason to fail."""
    monkeypatch.setattr("shutil.which", lambda name: "/bin/false")

    assert asyncio.run(where()) == "by each server for itself: /bin/false does not start"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is this."""
    monkeypatch.setattr("shutil.which", lambda name: "/bin/false")
    monkeypatch.delitem(sys.modules, "interpose.contrib.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)

    assert asyncio.run(where()) == "by each server for itself: the package redis is not installed"


# --- something is missing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "claim"),
    [
        ("Authenticate", "no handler ran for a caller without a token"),
        ("Authorize", "no handler ran for a caller without a token"),
        ("RateLimit", "a caller that came too often"),
        ("ConcurrencyLimit", "of a crowd"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_a_guard_that_is_missing_is_noticed(
    missing: str, claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim about it does not hold."""
    whole: Callable[..., Stack] = guards.guards

    def lacking(store: Any, runs: Any) -> Stack:
        return tuple(part for part in whole(store, runs) if type(part).__name__ != missing)

    monkeypatch.setattr("interpose.demo.run.guards", lacking)

    assert any(text.startswith(claim) for text in broken(met(tmp_path)))


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_per_client(ended: Any) -> None:
    """Not wider than a terminal."""
    lines = list(report.as_text(ended.story, []))
    table = [line for line in lines if line.startswith(tuple(report.MET.values()))]

    assert [line[:40].strip() for line in table] == list(report.MET.values())
    assert all(len(line) <= 100 for line in table)
    assert table[1].split()[-2:] == ["PERMISSION_DENIED", "0"]


def test_as_json(ended: Any) -> None:
    """All that the table has, and each server by itself."""
    told = report.as_json(ended.story, [])["guards"]

    assert Counter(one["server"] for one in told["clients"]) == dict.fromkeys(STACKS, len(CLIENTS))
    assert told["clients"][0]["refused"] == {"UNAUTHENTICATED": CALLS[STRANGER]}
    assert told["clients"][0]["back_in"] == []
