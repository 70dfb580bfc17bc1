"""reload: another stack for the calls that begin from now on, and the same state for rows that say the same."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from interpose import Kind, Side, describe, intercept_channel
from interpose.policy import Policy, PolicyError
from interpose.testing import PLACES, Place, failed, ok
from tests.facts.serving import SERVICE, serving
from tests.interceptors.driving import requests
from tests.policy import interceptors
from tests.policy.files import loaded, written
from tests.support.patience import PATIENCE

FIRST, SECOND = "tests.policy.interceptors:first", "tests.policy.interceptors:second"
ALLOWED = [FIRST, SECOND, "tests.policy.interceptors:awaiting", "tests.policy.interceptors:counted"]

UNARY = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
DOWN = failed(grpc.StatusCode.UNAVAILABLE)
BREAKER = {"CircuitBreaker": {"minimum": 2, "open_for": "1h"}}


def rewritten(policy: Policy, content: Any) -> bool:
    written(policy.path.parent, content, policy.path.name)
    return policy.reload()


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    interceptors.first_seen.clear()
    interceptors.second_seen.clear()


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_calls_go_by_the_file_as_it_is(place: Place, tmp_path: Path) -> None:
    """In every place: the stub or handler that was there before the reload has the new stack."""
    section = place.side.value
    policy = loaded(tmp_path, {section: [FIRST]}, allow=ALLOWED)

    with place.open(getattr(policy, section)) as rpc:
        assert rpc.call(*requests(place)).ok
        assert rewritten(policy, {section: [SECOND]})
        assert rpc.call(*requests(place)).ok
        assert rewritten(policy, {section: []})
        assert rpc.call(*requests(place)).ok

    assert (interceptors.first_seen, interceptors.second_seen) == (["OK"], ["OK"])


def test_a_file_that_says_the_same_changes_nothing(tmp_path: Path) -> None:
    """Blanks and line ends are no change."""
    policy = loaded(tmp_path, {"client": ["RequestId"]})

    assert not policy.reload()
    assert not rewritten(policy, '{"client":\n\n["RequestId"]}')
    assert rewritten(policy, {"client": ["RequestId", {"Deadline": "5s"}]})


def test_state_is_kept_where_the_row_says_the_same(tmp_path: Path) -> None:
    """An open breaker stays open, though other rows come, go and change around it; another option makes it a new one."""
    rows = {"client": ["RequestId", {"methods": {"*": [BREAKER]}}]}
    policy = loaded(tmp_path, rows)

    with UNARY.open(policy.client, script=[DOWN, DOWN, ok(), ...]) as rpc:
        for _ in range(2):
            rpc.call("a")
        assert rpc.call("a").code is grpc.StatusCode.UNAVAILABLE and len(rpc.attempts) == 2
        assert rewritten(policy, {"client": [{"Deadline": "9s"}, {"methods": {"*": [{"Retry": 2}, BREAKER]}}]})
        assert rpc.call("a").code is grpc.StatusCode.UNAVAILABLE and len(rpc.attempts) == 2
        assert rewritten(policy, {"client": [{"methods": {"*": [{"CircuitBreaker": {"minimum": 3}}]}}]})
        assert rpc.call("a").ok


def test_rows_that_are_equal_are_kept_one_by_one(tmp_path: Path) -> None:
    """Two limits of the same words are two, before and after."""
    twice = {"client": [{"RateLimit": "1/hour"}, {"RateLimit": "1/hour"}]}
    policy = loaded(tmp_path, twice)
    before = policy.client.interceptors

    assert before[0] is not before[1]
    assert rewritten(policy, {"client": [*twice["client"], "RequestId"]})
    assert policy.client.interceptors[:2] == before


def test_the_same_row_at_another_place_is_another(tmp_path: Path) -> None:
    """What stands before other methods, or on the other side, begins anew."""
    policy = loaded(tmp_path, {"client": [{"methods": {"/a.B/*": [BREAKER]}}], "server": [BREAKER]})
    (row,) = policy.client.interceptors[0].rows.values()  # type: ignore[union-attr]
    (breaker,) = row.when.interceptors

    assert breaker is not policy.server.interceptors[0]
    assert rewritten(policy, {"client": [{"methods": {"/a.C/*": [BREAKER]}}]})
    (row,) = policy.client.interceptors[0].rows.values()  # type: ignore[union-attr]
    assert row.when.interceptors[0] is not breaker


def test_a_file_with_faults_changes_nothing(tmp_path: Path) -> None:
    """Also where only one section has them: both stay as they are."""
    policy = loaded(tmp_path, {"client": [FIRST], "server": [FIRST]}, allow=ALLOWED)

    with pytest.raises(PolicyError, match=r"policy.json:\d+: server\[0\]: there is no interceptor \"Nothing\""):
        rewritten(policy, {"client": [SECOND], "server": ["Nothing"]})

    assert "first" in describe(policy.client) and "first" in describe(policy.server)


def test_what_does_not_fit_the_channel_is_refused_as_it_was_at_first(tmp_path: Path) -> None:
    """An async interceptor, on a sync channel."""
    policy = loaded(tmp_path, {"client": [FIRST]}, allow=ALLOWED)
    with grpc.insecure_channel("localhost:1") as channel:
        intercept_channel(channel, policy.client)

        with pytest.raises(PolicyError, match="awaiting is an `async def` generator, and this is the sync side"):
            rewritten(policy, {"client": ["tests.policy.interceptors:awaiting"]})

    assert "first" in describe(policy.client)


def test_a_row_that_no_method_comes_to_is_refused_while_the_server_runs(tmp_path: Path) -> None:
    """With the line of the row."""
    policy = loaded(tmp_path, {"server": []})

    with serving("sync", {"unary_unary": lambda request, context: request}, around=[policy.server]) as client:
        with pytest.raises(PolicyError, match="fits no method of this server") as caught:
            rewritten(policy, {"server": [{"methods": {f"/{SERVICE}/Nothing": ["RequestId"]}}]})
        assert client.call().ok

    [fault] = caught.value.faults
    assert (fault.line > 1, fault.path) == (True, f'server[0].methods["/{SERVICE}/Nothing"]')
    assert str(caught.value).count("policy.json") == 1


# --- under load -----------------------------------------------------------------------------------------------------

CALLERS = 4
CALLS = 30  # of each caller


def echo(request: Any, context: Any) -> Any:
    return request


def several(request: Any, context: Any) -> Any:
    yield from (request, request, request)


async def echo_async(request: Any, context: Any) -> Any:
    return request


async def several_async(request: Any, context: Any) -> Any:
    for _ in range(3):
        yield request


HANDLERS = {
    "sync": {"unary_unary": echo, "unary_stream": several},
    "async": {"unary_unary": echo_async, "unary_stream": several_async},
}


@pytest.mark.parametrize("sort", list(HANDLERS))
@pytest.mark.slow
def test_no_call_is_lost_while_the_file_changes(sort: str, tmp_path: Path) -> None:
    """Calls and streams of several threads, through both stacks, while these are replaced again and again.

    Each call ends well, and is seen to its end by the interceptor that it began with; a breaker that stands in both files
    is one and the same at the end.
    """
    counted = interceptors.counted = interceptors.Inflight()
    breaker = {"CircuitBreaker": {"failure_rate": 1}}
    section = ["tests.policy.interceptors:counted", breaker]
    policy = loaded(tmp_path, {"client": section, "server": section}, allow=ALLOWED)
    others = [
        {side: [*extra, *section, {"Deadline": "1h"}] for side in ("client", "server")}
        for extra in ([], ["RequestId"], [{"methods": {"*": [{"RateLimit": "1000000/second"}]}}])
    ]
    before = [policy.client.interceptors[1], policy.server.interceptors[1]]

    with (
        serving(sort, HANDLERS[sort], around=[policy.server]) as client,
        grpc.insecure_channel(client.target) as native,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        client.channel = intercept_channel(native, policy.client)

        def calls() -> int:
            unary = sum(client.call(kind="unary_unary").ok for _ in range(CALLS))
            return unary + sum(len(client.call(kind="unary_stream").messages) == 3 for _ in range(CALLS))

        done = [pool.submit(calls) for _ in range(CALLERS)]
        reloads = 0
        while not all(caller.done() for caller in done):
            assert rewritten(policy, others[reloads % len(others)])
            reloads += 1

    assert sum(caller.result() for caller in done) == 2 * CALLS * CALLERS
    assert reloads > 0
    assert counted.begun == counted.ended == 2 * 2 * CALLS * CALLERS
    for stack, kept in zip((policy.client, policy.server), before, strict=True):
        assert kept in stack.interceptors


def test_a_stream_ends_on_the_stack_that_it_began_with(tmp_path: Path) -> None:
    """Reloaded between its messages."""
    policy = loaded(tmp_path, {"server": [FIRST]}, allow=ALLOWED)
    go_on = threading.Event()

    def slow(request: Any, context: Any) -> Any:
        yield request
        assert go_on.wait(PATIENCE)
        yield request

    with serving("sync", {"unary_stream": slow}, around=[policy.server]) as client:
        stream = client.start(kind="unary_stream")
        assert next(stream) == "a"
        assert rewritten(policy, {"server": [SECOND]})
        go_on.set()
        assert list(stream) == ["a"]
        assert stream.code() is grpc.StatusCode.OK

    assert (interceptors.first_seen, interceptors.second_seen) == (["OK"], [])


# --- watching ---------------------------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """The lines of our log, each when it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: SimpleQueue[str] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put(record.getMessage())


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[SimpleQueue[str]]:
    caplog.set_level(logging.INFO, "interpose")
    handler = Heard()
    logging.getLogger("interpose").addHandler(handler)
    yield handler.lines
    logging.getLogger("interpose").removeHandler(handler)


def test_a_file_that_is_watched_is_read_when_it_changes(heard: SimpleQueue[str], tmp_path: Path) -> None:
    """Written, with a fault, gone for a while, and replaced by way of a link as a ConfigMap is."""
    policy = loaded(tmp_path, {"client": [FIRST]}, allow=ALLOWED)
    other = written(tmp_path, {"client": []}, "other.json")

    with policy.watch(every=0.001):
        written(tmp_path, {"client": [SECOND]})
        while heard.get(timeout=PATIENCE) != f"{policy.path} is in force":  # a file may be seen half written
            pass
        assert "second" in describe(policy.client)
        written(tmp_path, {"client": ["Nothing", "RequestId"]})
        while "there is no interceptor" not in heard.get(timeout=PATIENCE):
            pass
        policy.path.unlink()
        policy.path.symlink_to(other)
        while heard.get(timeout=PATIENCE) != f"{policy.path} is in force":
            pass
    assert policy.client.interceptors == ()


@pytest.mark.parametrize("every", [0, -1, 4000, "1s", True])
def test_looks_have_a_pause(every: Any, tmp_path: Path) -> None:
    """Not none, and not an hour and more."""
    with pytest.raises(ValueError, match="watch: every must be above 0 and up to 3600 seconds"):
        loaded(tmp_path, {"client": []}).watch(every)
