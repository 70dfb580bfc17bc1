"""Clients that leave a server, servers that stop, and RPCs that are never served: each is one outcome, or none."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from interpose import Call, Flow
from interpose._attach import server_interceptor
from interpose._shell import handlers as handlers_of
from interpose.testing.echo import decode, encode
from tests.facts.handling import (
    ALL,
    ASYNC,
    FEW,
    SYNC,
    Flood,
    Held,
    Shape,
    answering,
    each_sort,
    echoing,
    handling,
    serve,
    shapes,
)
from tests.facts.serving import Watch
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode

STREAMS = [shape for shape in ALL if shape.streams]
UPLOADS = [shape for shape in ALL if shape.uploads]
SOON = 0.4  # seconds: a deadline that passes while a handler is at work


# --- while a handler works --------------------------------------------------------------------------------------------


@pytest.mark.fact("S-9", "S-21", "R-26", "R-33")
@shapes(ALL)
def test_a_cancelled_rpc_has_the_outcome_cancelled(shape: Shape) -> None:
    """The client cancels while a handler works: an async one is stopped, a plain one finds itself inactive."""
    watch, held = Watch(), Held()

    with serve(shape, handling(shape, held), watch) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        assert held.over.wait(PATIENCE)
        held.release()
        outcome = watch.only()

    assert outcome.code is Code.CANCELLED
    assert [type(error).__name__ for error in held.raised] == ["CancelledError"] * shape.waits
    assert held.active == [False] * (not shape.waits)


@pytest.mark.fact("S-9", "S-21", "R-26", "R-33")
@shapes(shape for shape in FEW if not shape.streams)
def test_a_deadline_has_the_outcome_deadline_exceeded(shape: Shape) -> None:
    """The deadline passes while a handler works: one outcome, DEADLINE_EXCEEDED."""
    watch, held = Watch(), Held()

    with serve(shape, handling(shape, held), watch) as rpc, rpc.cut_off() as (client, proxy):
        pending = client.start(timeout=SOON)
        assert held.entered.wait(PATIENCE)
        proxy.black_hole()
        assert held.over.wait(PATIENCE)
        held.release()
        outcome, code = watch.only(), pending.code()

    assert outcome.code is code is Code.DEADLINE_EXCEEDED


@pytest.mark.fact("S-21", "R-33")
@shapes(shape for shape in ASYNC if not shape.streams)
def test_a_handler_that_swallows_its_cancellation_is_cancelled(shape: Shape) -> None:
    """A handler that catches CancelledError and answers all the same has the outcome CANCELLED: nobody hears it."""
    watch, held = Watch(), Held()

    async def body(context: Any) -> str:
        try:
            return str(await held(context))
        except BaseException:
            return "answer"

    with serve(shape, handling(shape, body), watch) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        outcome = watch.only()

    assert outcome.code is Code.CANCELLED


@pytest.mark.fact("S-9", "S-21")
@shapes(FEW)
def test_the_peer_is_known_when_the_client_has_left(shape: Shape) -> None:
    """A flow may ask for the peer after an RPC whose client has left."""
    peers: list[Any] = []
    watch, held = Watch(), Held()

    def note(call: Call) -> Flow:
        yield call
        peers.append(call.peer)

    with serve(shape, handling(shape, held), watch, note, own=True) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        rpc.channel.close()
        assert held.over.wait(PATIENCE)
        held.release()
        watch.next()

    assert not pending.is_active() and peers[0].startswith("ipv4:127.0.0.1:")


# --- amid streams -----------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-9", "S-23", "R-34", "R-45")
@pytest.mark.parametrize(
    ("shape", "how", "size"),
    [
        pytest.param(shape, how, size, id=f"{shape}-{how}-{size}")
        for number, shape in enumerate(STREAMS)
        for how in ("cancel", "deadline", "close", "stop")
        for size in (1, 1_000_000)  # the latter is blocked by flow control
        if how != "deadline" or (size == 1) == (number % 2)  # which has to pass
    ],
)
def test_a_client_gone_mid_stream_is_one_outcome(shape: Shape, how: str, size: int) -> None:
    """However a client leaves, also while writing is blocked by flow control: one outcome, and the handler closed."""
    watch, flood = Watch(), Flood(shape, "x" * size)

    with serve(shape, flood.handlers, watch, own=how in ("close", "stop")) as rpc, rpc.cut_off() as (client, proxy):
        pending = (client if how == "deadline" else rpc).start("a", timeout=SOON if how == "deadline" else PATIENCE)
        assert flood.started.wait(PATIENCE)
        if how == "deadline":
            proxy.black_hole()
        if how == "cancel":
            pending.cancel()
        if how == "close":
            rpc.channel.close()
        if how == "stop":
            rpc.stop(0)
        outcome = watch.only()
        assert flood.closed.wait(PATIENCE)

    assert outcome.code is (Code.DEADLINE_EXCEEDED if how == "deadline" else Code.CANCELLED)
    assert outcome.responses >= 1 and not outcome.replayable


@pytest.mark.fact("S-23", "R-34")
@pytest.mark.parametrize("how", ["cancel", "stop"])
@shapes(shape for shape in ASYNC if shape.streams)
def test_the_peer_is_known_when_a_stream_was_left(shape: Shape, how: str) -> None:
    """A flow may ask for the peer after a stream whose client has gone."""
    peers: list[Any] = []
    watch = Watch()

    def note(call: Call) -> Flow:
        yield call
        peers.append(call.peer)

    for _ in range(3):
        flood = Flood(shape, "x" * 100_000)
        with serve(shape, flood.handlers, watch, note, own=how == "stop") as rpc:
            pending = rpc.start("a")
            assert flood.started.wait(PATIENCE)
            rpc.stop(0) if how == "stop" else pending.cancel()
            watch.next()

    assert len(peers) == 3 and all(peer.startswith("ipv4:127.0.0.1:") for peer in peers)


@pytest.mark.fact("R-35")
@shapes(UPLOADS)
def test_a_torn_upload_is_one_outcome(shape: Shape) -> None:
    """A client that cancels amid its upload leaves exactly one outcome behind, and the server serves on."""
    watch, first, release = Watch(), threading.Event(), threading.Event()

    def upload() -> Iterator[str]:
        yield "a"
        release.wait(PATIENCE)

    def see(call: Call) -> Flow:
        yield call.tap(requests=lambda _: first.set())

    with serve(shape, echoing(shape.sort) | handling(shape, answering("a")), watch, see) as rpc:
        pending = rpc.start(stream=upload())
        assert first.wait(PATIENCE)
        pending.cancel()
        watch.next()
        release.set()
        reply = rpc.call("next", kind="unary_unary")

    assert len(watch.outcomes) == watch.begun == 2 and reply.messages == ["next"]


@pytest.mark.fact("R-39")
@each_sort
def test_an_abandoned_generator_is_closed_without_the_garbage_collector(sort: str) -> None:
    """The handler's `finally` runs when the client has left; a plain one's before the flow is told."""
    shape = Shape(sort, "unary_stream")
    watch, flood, closed = Watch(), Flood(shape), list[bool]()

    def note(call: Call) -> Flow:
        yield call
        closed.append(flood.closed.is_set())

    gc.disable()
    try:
        with serve(shape, flood.handlers, watch, note) as rpc:
            pending = rpc.start("a")
            next(pending)
            pending.cancel()
            watch.next()
            seen = flood.closed.wait(PATIENCE)
    finally:
        gc.enable()

    assert seen and (shape.waits or closed == [True])


# --- what is never served ---------------------------------------------------------------------------------------------


@pytest.mark.fact("R-40")
@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_what_was_cancelled_while_queued_leaves_nothing_taken(sort: str) -> None:
    """RPCs cancelled before a worker took them: each flow that began has ended, and the server serves on."""
    watch, held, busy = Watch(), Held(), Shape(sort, "stream_unary")

    with serve(sort, echoing(sort) | handling(busy, held), watch, workers=1) as rpc:
        first = rpc.start("a", kind="stream_unary")
        assert held.entered.wait(PATIENCE)
        for pending in [rpc.start("a") for _ in range(3)]:
            pending.cancel()
        held.release()
        assert first.result(PATIENCE) == "late"
        reply = rpc.call("next")

    assert reply.messages == ["next"]
    assert watch.begun == len(watch.outcomes)


@pytest.mark.fact("S-12", "R-15", "R-58")
@each_sort
def test_what_the_limit_rejects_reaches_no_flow(sort: str) -> None:
    """RPCs over maximum_concurrent_rpcs are refused by grpc, and no flow begins for them."""
    watch, held = Watch(), Held()

    with serve(sort, handling(Shape(sort, "unary_unary"), held), watch, limit=1) as rpc:
        first = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        refused = [rpc.call("a").code for _ in range(3)]
        held.release()
        assert first.result(PATIENCE) == "late"

    assert refused == [Code.RESOURCE_EXHAUSTED] * 3
    assert watch.begun == len(watch.outcomes) == 1


@pytest.mark.fact("S-12", "R-16")
@pytest.mark.parametrize("name", ["Nothing", "a\u00e9", "x" * 3000, "with space"])
@each_sort
def test_unknown_methods_are_unimplemented(sort: str, name: str) -> None:
    """A method that nobody serves is UNIMPLEMENTED, and reaches no flow; the server serves on."""
    watch = Watch()

    with serve(sort, echoing(sort), watch) as rpc:
        unknown = rpc.call(name=name)
        reply = rpc.call("next")

    assert unknown.code is Code.UNIMPLEMENTED
    assert reply.messages == ["next"] and watch.begun == 1


class AnyName(grpc.GenericRpcHandler):
    """Serves every name that a peer makes up: with one handler for all, or with one for each."""

    def __init__(self, sort: str, same: bool) -> None:
        [self._function] = echoing(sort).values()
        self._same = self._made() if same else None

    def service(self, details: Any) -> Any:
        return self._same or self._made()

    def _made(self) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._function, decode, encode)


@pytest.mark.fact("S-12", "R-16")
@pytest.mark.parametrize("same", [True, False], ids=["one handler", "a handler each"])
@each_sort
def test_names_that_peers_make_up_fill_no_memory(sort: str, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generic handler that serves any name is remembered for a bounded number of names, and served for all."""
    monkeypatch.setattr(handlers_of, "MAX_METHODS", 8)
    watch = Watch()
    ours = server_interceptor(watch)

    with serve(sort, {}, interceptors=[ours], services=[AnyName(sort, same)]) as rpc:
        replies = [rpc.call("a", name=f"name{number % 20}").ok for number in range(30)]

    caches: list[Any] = [getattr(each, "_compiled", each) for each in (ours._sync, ours._aio)]
    assert all(replies) and len(watch.outcomes) == 30
    assert [len(cache._known) for cache in caches if cache._known] == [8]


# --- servers that stop ------------------------------------------------------------------------------------------------


@pytest.mark.fact("R-45")
@shapes([SYNC[0], Shape("plain", "unary_unary"), *ASYNC])
def test_stop_lets_an_rpc_finish_within_grace(shape: Shape) -> None:
    """An RPC in flight when the server stops with grace is answered, and has one outcome, OK."""
    watch, held = Watch(), Held()

    with serve(shape, handling(shape, held), watch, own=True) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        stopper = threading.Thread(target=rpc.stop, args=(PATIENCE,))
        stopper.start()
        held.release()
        messages = list(pending) if shape.streams else [pending.result(PATIENCE)]
        stopper.join(PATIENCE)

    assert messages == ["late"] and pending.code() is Code.OK
    assert [outcome.code for outcome in watch.outcomes] == [Code.OK]


@pytest.mark.fact("R-45")
@shapes(ALL)
def test_stop_without_grace_is_one_outcome(shape: Shape) -> None:
    """An RPC in flight when the server stops at once fails for its client, and has one outcome that is not OK."""
    watch, held = Watch(), Held()

    with serve(shape, handling(shape, held), watch, own=True) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        rpc.stop(0)
        code = pending.code()
        held.release()
        outcome = watch.only()

    assert code in {Code.UNAVAILABLE, Code.CANCELLED}
    assert outcome.code is Code.CANCELLED if shape.waits else not outcome.ok
