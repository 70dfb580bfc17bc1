"""The intended differences: each row of the table in docs/call-objects.md has a reason, and really occurs."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Kind, errors, intercept_channel
from tests.conformance.calls.comparing import Side
from tests.conformance.calls.differences import ROWS, SHOWN_APART, Row
from tests.conformance.calls.remote import DETAILS, SERVICE, TRAILING, Puppet, Remote, serving, stubs
from tests.conformance.calls.scenario import Scenario
from tests.conformance.calls.ways import passes
from tests.support.patience import PATIENCE

PAGE = Path(__file__).parents[3] / "docs" / "call-objects.md"
OCCURRENCES = [(row, aio, scenario) for row in ROWS for aio, scenario in row.examples]
SHOWN: set[str] = set()

NEVER = 0.05  # seconds to wait for what does not come
TRIES = 50  # where raw grpcio decides by chance

both_streams = pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
both_uploads = pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)


def shows(row: str) -> Callable[[Any], Any]:
    """Marks the test that shows a row of the table."""
    SHOWN.add(row)
    return lambda test: test


# --- the table --------------------------------------------------------------------------------------------------------


def rows_of_the_page() -> dict[str, list[str]]:
    """The cells of each row of the table, by its id."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| `[a-z-]+` \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("` "): row[1:] for row in cells}


def test_the_page_has_every_row_and_no_other() -> None:
    """The table of the page and the registry name the same differences."""
    assert sorted(rows_of_the_page()) == sorted([*(row.id for row in ROWS), *SHOWN_APART])


def test_every_row_is_complete() -> None:
    """A row says where it is, what grpcio does, what Interpose does, and why."""
    stacks = {row.id: row.stacks for row in ROWS}
    for name, cells in rows_of_the_page().items():
        assert len(cells) == 4 and all(cells), name
        assert cells[0] == stacks.get(name, cells[0]) and cells[0] in ("sync", "asyncio", "both"), name


def test_every_row_is_shown() -> None:
    """Each row that no scenario shows has a test of its own."""
    assert set(SHOWN_APART) == SHOWN


@pytest.mark.parametrize(
    ("row", "aio", "scenario"), OCCURRENCES, ids=[f"{row.id}-{'aio' if aio else 'sync'}" for row, aio, _ in OCCURRENCES]
)
def test_a_row_occurs(sync_side: Side, aio_side: Side, row: Row, aio: bool, scenario: Scenario) -> None:
    """What the row explains is seen in its example, however the channel is wrapped, and nothing unexplained is."""
    side = aio_side if aio else sync_side

    for way, found in side.compare(scenario).items():
        assert any(row.accounts_for(seen) for seen in found), f"{row.id} is not seen on {way}: is the row stale?"
    assert side.unexplained(scenario) == []


# --- rows that no scenario shows: sync --------------------------------------------------------------------------------


class Pair:
    """A raw channel and a wrapped one, to a server that obeys."""

    def __init__(self, puppet: Puppet, raw: Any, ours: Any) -> None:
        self.puppet = puppet
        self.raw = raw
        self.ours = ours

    def begin(
        self, channel: Any, kind: Kind, requests: Any = "question", timeout: float = PATIENCE
    ) -> tuple[Any, Remote]:
        """Start an RPC that does not block; gives its call and its far end."""
        remote = self.puppet.remote()
        method = stubs(channel)[kind]
        return getattr(method, "future", method)(requests, timeout=timeout, metadata=remote.metadata), remote


@pytest.fixture
def pair() -> Iterator[Pair]:
    """On the sync stack."""
    with serving() as (target, puppet):
        raw, native = grpc.insecure_channel(target), grpc.insecure_channel(target)
        with raw, intercept_channel(native, passes) as ours:
            yield Pair(puppet, raw, ours)


@pytest.fixture
async def aio_pair() -> AsyncIterator[Pair]:
    """On the asyncio stack."""
    with serving() as (target, puppet):
        raw, native = grpc.aio.insecure_channel(target), grpc.aio.insecure_channel(target)
        async with raw, intercept_channel(native, passes) as ours:
            yield Pair(puppet, raw, ours)


@contextmanager
def dying_threads() -> Iterator[threading.Event]:
    """Set once a thread dies of an exception."""
    died = threading.Event()
    before, threading.excepthook = threading.excepthook, lambda _: died.set()
    try:
        yield died
    finally:
        threading.excepthook = before


def broken(*_: Any) -> None:
    """A callback of an application."""
    raise LookupError("of the application")


@shows("callbacks-that-raise")
def test_a_callback_that_raises(pair: Pair) -> None:
    """After a callback that raises the next one is called; in grpcio it ends the thread that calls them."""
    told: dict[Any, threading.Event] = {pair.raw: threading.Event(), pair.ours: threading.Event()}
    with dying_threads() as died:
        for channel, called in told.items():
            call, remote = pair.begin(channel, Kind.UNARY_UNARY)
            call.add_callback(broken)
            call.add_callback(called.set)
            remote.order("OK")
            assert call.result(PATIENCE) == "answer"
        assert died.wait(PATIENCE)

    assert told[pair.ours].wait(PATIENCE)
    assert not told[pair.raw].is_set()


@shows("cause-of-a-broken-stream")
@both_uploads
def test_the_cause_of_a_broken_request_stream(pair: Pair, kind: Kind) -> None:
    """What the application's request stream raised is the cause of the failure; grpcio only logs it."""
    causes = []
    for channel in (pair.raw, pair.ours):
        call, remote = pair.begin(channel, kind, requests=map(broken, ["first"]))
        with pytest.raises(grpc.RpcError) as caught:
            next(call) if kind.response_streaming else call.result(PATIENCE)
        causes.append(type(caught.value.__cause__))
        remote.release()

    assert causes == [type(None), LookupError]


@shows("no-time-left")
def test_a_call_that_has_no_time_is_not_sent(pair: Pair) -> None:
    """With `timeout=0` nothing is sent; grpcio mostly does, and now and then gives the answer."""
    for _ in range(TRIES):
        call, remote = pair.begin(pair.raw, Kind.UNARY_UNARY, timeout=0)
        remote.order("OK")
        if call.code() is grpc.StatusCode.OK:
            break
    else:
        pytest.fail("grpcio sends nothing without time: is the row stale?")
    call, unsent = pair.begin(pair.ours, Kind.UNARY_UNARY, timeout=0)

    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert call.exception().local
    assert not unsent.arrived.done()


@shows("debug-text")
def test_the_debug_text_of_a_cancelled_call(pair: Pair) -> None:
    """A wrapped call that was cancelled has no debug text, and says so at once."""
    call, remote = pair.begin(pair.ours, Kind.UNARY_UNARY)
    call.cancel()
    remote.release()

    assert call.debug_error_string() == ""


@shows("metadata-behind-a-cancel")
def test_trailing_metadata_of_a_cancelled_stream(pair: Pair) -> None:
    """A call that is cancelled has no trailing metadata; grpcio shows them if they were on their way already."""

    def cancelled(channel: Any) -> tuple[Any, ...]:
        call, remote = pair.begin(channel, Kind.UNARY_STREAM)
        over = threading.Event()
        call.add_callback(over.set)
        for step in ("message", "OK"):
            remote.order(step).result(PATIENCE)
        remote.gone.result(PATIENCE)
        call.cancel()
        assert over.wait(PATIENCE)
        return tuple(map(tuple, call.trailing_metadata()))

    raw = {cancelled(pair.raw) for _ in range(TRIES)}

    assert TRAILING in raw
    assert cancelled(pair.ours) == ()


# --- rows that no scenario shows: asyncio -----------------------------------------------------------------------------


@shows("dropped-streams")
@both_streams
async def test_a_dropped_response_stream(aio_pair: Pair, kind: Kind) -> None:
    """A response stream that nobody holds any more is cancelled; grpc.aio lets it run on."""
    ends = []
    for channel in (aio_pair.raw, aio_pair.ours):
        call, remote = aio_pair.begin(channel, kind, requests=None if kind.request_streaming else "question")
        await asyncio.wrap_future(remote.arrived)
        del call
        gc.collect()
        ends.append(
            (await asyncio.wait([asyncio.wrap_future(remote.gone)], timeout=NEVER if not ends else PATIENCE))[0]
        )
        remote.release()

    assert [bool(gone) for gone in ends] == [False, True]


@shows("broken-request-streams")
@both_uploads
async def test_a_broken_request_stream(aio_pair: Pair, kind: Kind) -> None:
    """A request stream that raises ends the call with UNKNOWN and is the cause; grpc.aio says that it was cancelled."""
    raised: list[BaseException] = []
    for channel in (aio_pair.raw, aio_pair.ours):
        call, remote = aio_pair.begin(channel, kind, requests=map(broken, ["first"]))
        with pytest.raises(BaseException) as caught:  # noqa: PT011  CancelledError and RpcError have nothing else in common
            await (call.read() if kind.response_streaming else call)
        raised.append(caught.value)
        remote.release()

    raw, ours = raised
    assert isinstance(raw, asyncio.CancelledError)
    assert isinstance(ours, errors.Unknown)
    assert isinstance(ours.__cause__, LookupError)


@shows("requests-that-cannot-be-serialized")
@both_streams
async def test_a_request_that_cannot_be_serialized(aio_pair: Pair, kind: Kind) -> None:
    """A request that cannot be serialized fails the call with INTERNAL; grpc.aio sends an empty one in its place."""
    ends = []
    for channel in (aio_pair.raw, aio_pair.ours):
        method = getattr(channel, kind.value)(f"/{SERVICE}/{kind.value}", broken, bytes.decode)
        remote = aio_pair.puppet.remote()
        remote.order("read all")
        remote.order("OK")
        call = method(
            ["question"] if kind.request_streaming else "question", timeout=PATIENCE, metadata=remote.metadata
        )
        try:
            end = await call.read()
        except grpc.aio.AioRpcError as error:
            end = error.details()
        ends.append((end, tuple(remote.requests)))
        remote.release()

    assert ends == [(grpc.aio.EOF, ("",)), ("Exception serializing request!", ())]


@shows("metadata-that-is-refused")
async def test_metadata_that_the_core_refuses(aio_pair: Pair) -> None:
    """A wrapped call with metadata that cannot be sent raises what the core said, and is over with INTERNAL."""
    call = stubs(aio_pair.ours)[Kind.UNARY_UNARY]("question", metadata=(("x-key", "line\nbreak"),))
    with pytest.raises(Exception, match=r"execute_batch|start_batch"):
        await call

    assert call.done()
    assert await call.code() is grpc.StatusCode.INTERNAL


@shows("connection-of-an-ended-call")
@both_uploads
async def test_the_connection_of_a_cancelled_call(aio_pair: Pair, kind: Kind) -> None:
    """`wait_for_connection` of a wrapped call that was cancelled is cancelled."""
    call, _ = aio_pair.begin(aio_pair.ours, kind, requests=None)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call.wait_for_connection(), PATIENCE)


@shows("status-behind-a-failed-write")
async def test_the_status_behind_a_write_that_failed(aio_pair: Pair) -> None:
    """When the server has ended the call a `write` fails with the server's status; grpc.aio may make up INTERNAL."""

    async def written(channel: Any) -> tuple[grpc.StatusCode, str]:
        call, remote = aio_pair.begin(channel, Kind.STREAM_UNARY, requests=None)
        await call.write("first")
        await asyncio.wrap_future(remote.arrived)
        remote.order("NOT_FOUND")
        remote.gone.result(PATIENCE)  # without letting the loop go on: it must not learn of the end
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):  # the latter if it has learnt of the end
            async with asyncio.timeout(PATIENCE):
                while True:
                    await call.write("more")
        return await call.code(), await call.details()

    assert await written(aio_pair.ours) == (grpc.StatusCode.NOT_FOUND, DETAILS)
    for _ in range(TRIES):
        if (await written(aio_pair.raw))[0] is grpc.StatusCode.INTERNAL:
            break
    else:
        pytest.fail("grpc.aio keeps the server's status: is the row stale?")
