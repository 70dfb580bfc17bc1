"""Hedging beside grpc-java's, which is gRPC's own: the same service config and server, and what the table says of both."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interpose.interceptors.retry import ATTEMPT
from tests.interop.java.clients import Client, Ending, Java, Job, Peer, ours_asyncio, ours_sync, running_java
from tests.interop.java.scenarios import SCENARIOS, Scenario, Story, table
from tests.support.patience import PATIENCE

# Seconds of the hedging delay. What goes wrong at one pace is played again at the next, where the pauses of a busy
# machine count for less.
PACES = (0.2, 0.5, 1.2, 2.4)

EARLY, LATE = 0.3, 0.45  # delays by which a time may miss what is expected

HEADERS = {"java": "grpc-previous-rpc-attempts", "sync": ATTEMPT, "asyncio": ATTEMPT}


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Java]:
    """grpc-java in one process for all tests, warm."""
    with running_java(tmp_path_factory.mktemp("java")) as program:
        for scenario in SCENARIOS[3], SCENARIOS[-2]:
            play(scenario, "java", program, PACES[0] / 4)
        yield program


# They play in real time: the suite runs a third of them, `make interop` all.
PLAYED = [
    pytest.param(scenario, id=scenario.name, marks=[pytest.mark.rare] if number % 3 else [])
    for number, scenario in enumerate(SCENARIOS)
]


@pytest.mark.needs("java")
@pytest.mark.parametrize("scenario", PLAYED)
def test_side_by_side(scenario: Scenario, java: Java) -> None:
    """grpc-java and both stacks do what the table says: when they send, who answers, who is cancelled, how it ends."""
    clients: dict[str, Client] = {"java": java, "sync": ours_sync, "asyncio": ours_asyncio}

    for pace in PACES:
        with ThreadPoolExecutor(len(clients)) as pool:
            playing = {name: pool.submit(play, scenario, name, client, pace) for name, client in clients.items()}
        surprises = {name: played.result() for name, played in playing.items()}
        if not any(surprises.values()):
            break

    assert surprises == {name: [] for name in clients}


def test_a_difference_is_one() -> None:
    """Where the table says that we differ, what grpc-java does would not pass for ours, and the reason is told."""
    differing = [scenario for scenario in SCENARIOS if scenario.ours is not None]

    for scenario in differing:
        pairs = zip(scenario.java, scenario.ours or (), strict=True)
        assert not all(matches(ours, java) for java, ours in pairs) and scenario.because, scenario.name


def test_the_page_shows_the_table() -> None:
    """docs/hedge-compared.md has the table that is tested; `python -m tests.interop.java.scenarios` prints it."""
    page = Path(__file__).parents[3] / "docs" / "hedge-compared.md"

    assert table() in page.read_text("utf-8")


def play(scenario: Scenario, name: str, client: Client, pace: float) -> list[str]:
    """Let a client play it; gives what was otherwise than in the table, in words."""
    peer = Peer(scenario.script(pace))
    expected = scenario.stories(name)
    with peer.serve() as target:
        job = Job(
            target,
            scenario.kind,
            scenario.config(pace),
            requests=[f"call {number}" for number in range(len(expected))],
            timeout=PATIENCE if scenario.timeout is None else scenario.timeout * pace,
            cancel_after=None if scenario.cancel_after is None else scenario.cancel_after * pace,
        )
        endings = client(job, lambda: peer.settle(pace))
    return [
        surprise
        for request, ending, story in zip(job.requests, endings, expected, strict=True)
        for surprise in compare(story, seen(peer, request, ending, pace), numbers(peer, request, HEADERS[name]))
    ]


def seen(peer: Peer, request: str, ending: Ending, pace: float) -> Story:
    """What came of a call, as server and client saw it."""
    arrived = peer.arrived(request)
    times = [(time - arrived[0][0]) / pace for time, _ in arrived]
    details = [] if ending.code == "OK" else [ending.details or ""]
    return Story(
        sent=tuple(round(time, 2) for time in times),
        ends=round(ending.elapsed / pace, 2),
        answer=" ".join(ending.messages + details),
        code=ending.code,
        cancelled=tuple(number for number, (_, attempt) in enumerate(arrived) if attempt.cancelled),
    )


def numbers(peer: Peer, request: str, header: str) -> list[list[str | bytes]]:
    """What the attempts say in the header that numbers them."""
    return [attempt.values(header) for _, attempt in peer.arrived(request)]


def compare(expected: Story, story: Story, numbered: list[list[str | bytes]]) -> list[str]:
    """What is otherwise than expected."""
    surprises = [] if matches(expected, story) else [f"expected {expected}, but {story}"]
    wanted = [[] if number == 0 else [str(number)] for number in range(len(numbered))]
    # Those that are sent at once may arrive in any order.
    if sorted(numbered) != sorted(wanted) or (len(set(expected.sent)) == len(wanted) and numbered != wanted):
        surprises.append(f"the attempts were numbered {numbered}")
    return surprises


def matches(expected: Story, story: Story) -> bool:
    return (
        story.code == expected.code
        and expected.answer in {None, story.answer}
        and story.cancelled == expected.cancelled
        and len(story.sent) == len(expected.sent)
        and all(map(near, gaps(expected), gaps(story)))
        and near(expected.ends, story.ends)
    )


def gaps(story: Story) -> list[float]:
    """The delays between one attempt and the next."""
    return [later - earlier for earlier, later in zip(story.sent, story.sent[1:], strict=False)]


def near(expected: float, time: float) -> bool:
    return expected - EARLY <= time <= expected + LATE
