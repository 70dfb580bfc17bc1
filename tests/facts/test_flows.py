"""Where flows run, what they may wait for, and that a refusal waits for nobody."""

import asyncio
import collections
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import AsyncFlow, Call, Flow, Interceptor, Kind, Outcome, errors, intercept_channel, wait, when
from interpose.testing import Echo, failed
from interpose.testing.echo import decode, encode, path
from tests.facts.calling import FULL, Gate, aio_opened, answered, hooked, passing, requested
from tests.facts.calling import Watch as Told
from tests.facts.calling import again as retrying
from tests.facts.handling import (
    ALL,
    ASYNC,
    FEW,
    PLAIN,
    SYNC,
    Flood,
    Held,
    Shape,
    answering,
    blocked,
    each_sort,
    echoing,
    handling,
    refusing,
    serve,
    shapes,
)
from tests.facts.hosting import HOSTS, on_the_loop, reached, within
from tests.facts.serving import Watch
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode
OK = Code.OK
CANCELLED = Code.CANCELLED
UNAVAILABLE = Code.UNAVAILABLE

all_kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


# --- where they run ---------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-1", "R-12")
@each_sort
def test_a_flow_that_takes_its_time_delays_no_other_rpc(sort: str) -> None:
    """While one RPC's flow blocks its thread, or waits on the loop, another RPC is answered."""
    entered, release, held = threading.Event(), threading.Event(), Held()

    def slow(call: Call) -> Flow:
        if call.request == "slow" and sort == "async":
            yield from wait(held(None))
        elif call.request == "slow":
            entered.set()
            release.wait(PATIENCE)
        yield call

    with serve(sort, echoing(sort), slow) as rpc:
        pending = rpc.start("slow")
        assert (held.entered if sort == "async" else entered).wait(PATIENCE)
        reply = rpc.call("quick")
        overtaken = not pending.done()
        release.set()
        held.release()
        slowly = pending.result()

    assert reply.messages == ["quick"] and overtaken and slowly == "slow"


@pytest.mark.fact("S-1", "R-12")
@shapes([*SYNC, *PLAIN])
def test_flows_of_plain_handlers_run_in_the_pool(shape: Shape) -> None:
    """A flow begins and ends in a pool thread, never in the thread that serves."""
    begun, watch = list[str](), Watch()

    def where(call: Call) -> Flow:
        begun.append(threading.current_thread().name)
        yield call

    with serve(shape, handling(shape, answering("a")), where, watch) as rpc:
        reply = rpc.call()

    assert reply.ok
    assert all(name.startswith("ThreadPoolExecutor") for name in (*begun, *watch.threads))


@pytest.mark.fact("S-2", "R-6")
@shapes(ALL)
def test_an_interceptor_that_raises_is_named_and_its_text_kept(shape: Shape) -> None:
    """A fault of an interceptor is INTERNAL with its name; the text of the exception does not reach the client."""

    def broken(call: Call) -> Flow:
        raise ValueError("secret")
        yield call

    with serve(shape, handling(shape, answering("a")), broken) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and "broken" in reply.details and "secret" not in reply.details


@pytest.mark.fact("S-2", "R-13")
@pytest.mark.parametrize("fault", [ValueError("secret"), SystemExit(3), GeneratorExit()], ids=repr)
@each_sort
def test_a_condition_that_raises_fails_its_rpcs_only(sort: str, fault: BaseException) -> None:
    """A condition of `when` that raises ends the RPC with INTERNAL, and the server goes on serving."""

    def pick(method: Any) -> bool:
        if method.name == "stream_unary":
            raise fault
        return True

    handlers = echoing(sort) | handling(Shape(sort, "stream_unary"), answering("a"))
    with serve(sort, handlers, when(pick, Watch())) as rpc:
        failed = rpc.call(kind="stream_unary")
        reply = rpc.call("next")

    assert failed.code is Code.INTERNAL and "when(" in failed.details and "secret" not in failed.details
    assert reply.messages == ["next"]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-3", "R-11")
@pytest.mark.parametrize("silent", [True, False], ids=["open and silent", "empty"])
@shapes(ALL)
def test_a_refusal_does_not_wait_for_the_client(shape: Shape, silent: bool) -> None:
    """A flow's refusal reaches a client that sends nothing, whether its stream stays open or is closed."""
    kinds, release = list[str](), threading.Event()

    def outer(call: Call) -> Flow:
        kinds.append(call.kind.value)
        yield call

    with serve(shape, handling(shape, answering("a")), outer, refusing) as rpc:
        reply = rpc.call(stream=blocked(release) if silent else iter(()))
        release.set()

    assert reply.code is Code.UNAUTHENTICATED and reply.details == "who are you?"
    assert kinds == [shape.kind]


@pytest.mark.fact("R-11", "R-57")
@shapes(shape for shape in (*SYNC, *PLAIN) if shape.uploads)
def test_refused_streams_hold_no_worker(shape: Shape) -> None:
    """With one worker, four silent streams that are refused do not keep a fifth RPC from being served."""
    release = threading.Event()

    def refuse(call: Call) -> Flow:
        if call.kind.request_streaming:
            raise errors.Unauthenticated
        yield call

    with serve(shape, echoing(shape.sort) | handling(shape, answering("a")), refuse, workers=1) as rpc:
        replies = [rpc.call(stream=blocked(release)) for _ in range(4)]
        reply = rpc.call("next", kind="unary_unary")
        release.set()

    assert [each.code for each in replies] == [Code.UNAUTHENTICATED] * 4 and reply.messages == ["next"]


# --- servers whose flows wait -----------------------------------------------------------------------------------------


@pytest.mark.fact("E-5")
@pytest.mark.parametrize("how", ["wait", "async def"])
@shapes(SYNC)
def test_a_flow_that_waits_is_named_on_a_sync_server(shape: Shape, how: str) -> None:
    """Nothing can be awaited on a sync server: INTERNAL, with the interceptor's name, and the server serves on."""

    async def store() -> str:
        return "token"

    def lookup(call: Call) -> Flow:
        if not call.metadata.get("x-plain"):
            yield from wait(store())
        yield call

    async def alookup(call: Call) -> AsyncFlow:
        yield call

    with serve(shape, handling(shape, answering("a")), lookup if how == "wait" else alookup) as rpc:
        failed = rpc.call()
        reply = rpc.call(metadata=(("x-plain", "1"),))

    assert failed.code is Code.INTERNAL and "lookup" in failed.details
    assert reply.ok is (how == "wait")


@pytest.mark.fact("E-5")
@shapes([*PLAIN, *ASYNC])
def test_flows_wait_before_and_after_the_handler(shape: Shape) -> None:
    """Plain flows and `async def` ones may wait before and after the handler, and change the call."""
    waited: list[str] = []

    async def store(what: str) -> str:
        await asyncio.sleep(0)
        waited.append(what)
        return what

    def plain(call: Call) -> Flow:
        value = yield from wait(store("plain before"))
        yield call.with_metadata(("x-value", value))
        yield from wait(store("plain after"))

    async def lifted(call: Call) -> AsyncFlow:
        await store("async before")
        outcome = yield call
        await store(f"async {outcome.code.name}")

    def body(context: Any) -> str:
        return str(dict(context.invocation_metadata())["x-value"])

    with serve(shape, handling(shape, body), plain, lifted) as rpc:
        reply = rpc.call()

    assert reply.messages == ["plain before"]
    assert waited == ["plain before", "async before", "async OK", "plain after"]


@pytest.mark.fact("E-5", "S-21")
@shapes(ASYNC)
def test_a_client_that_leaves_while_a_flow_waits(shape: Shape) -> None:
    """A client that cancels while a flow waits before the handler: the flow is told by CancelledError, and it ends."""
    held, watch = Held(), Watch()

    def lookup(call: Call) -> Flow:
        yield from wait(held(None))
        yield call

    with serve(shape, handling(shape, answering("a")), watch, lookup) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        outcome = watch.only()

    assert not outcome.ok
    assert [type(error) for error in held.raised] == [asyncio.CancelledError]


@pytest.mark.fact("E-5", "S-21")
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "blocked by flow control"])
@shapes(shape for shape in ASYNC if shape.streams)
def test_a_flow_that_waits_after_the_client_has_left_is_let_finish(shape: Shape, size: int) -> None:
    """A flow may wait after a stream whose client has gone; only a cancel that arrives meanwhile ends its wait."""
    flood, written, cut_short = Flood(shape, "a" * size), threading.Event(), list[BaseException]()

    async def store() -> None:
        await asyncio.sleep(0)
        written.set()

    def audit(call: Call) -> Flow:
        yield call
        try:
            yield from wait(store())
        except errors.Cancelled as error:  # write() had failed before the cancel was heard of
            cut_short.append(error)
            written.set()

    with serve(shape, flood.handlers, audit) as rpc:
        pending = rpc.start("a")
        assert flood.started.wait(PATIENCE)
        pending.cancel()
        assert flood.closed.wait(PATIENCE)
        seen = written.wait(PATIENCE)

    assert seen and (shape.writes or not cut_short)


@pytest.mark.fact("E-5")
@each_sort
def test_a_store_that_raises_is_the_flows_to_catch(sort: str) -> None:
    """What an awaitable raises comes back at the `yield from wait(…)`; on a sync server, that it cannot wait."""

    async def store() -> str:
        raise LookupError("no store")

    def lookup(call: Call) -> Flow:
        try:
            yield from wait(store())
        except (LookupError, TypeError) as error:
            raise errors.Unavailable(type(error).__name__) from error
        yield call

    with serve(sort, echoing(sort), lookup) as rpc:
        reply = rpc.call()

    assert reply.code is Code.UNAVAILABLE and reply.details == ("TypeError" if sort == "sync" else "LookupError")


@pytest.mark.fact("E-5", "A-5")
@shapes(FEW)
def test_a_flow_may_answer_in_place_of_the_handler(shape: Shape) -> None:
    """An outcome that a flow returns without a yield is what the client gets, streams too."""
    called: list[Any] = []

    def cached(call: Call) -> Flow:
        return Outcome.success(["a", "b"] if shape.streams else "a", trailing_metadata=(("x-cache", "hit"),))
        yield call

    with serve(shape, handling(shape, called.append), cached) as rpc:
        reply = rpc.call()

    assert reply.messages == (["a", "b"] if shape.streams else ["a"]) and not called
    assert reply.trailing["x-cache"] == "hit"


# --- clients whose flows wait -----------------------------------------------------------------------------------------


@pytest.mark.fact("E-5")
@all_kinds
@on_the_loop
async def test_an_async_generator_is_an_interceptor(kind: Kind) -> None:
    """An `async def` generator may await before, between and after its yields."""
    steps: list[Any] = []

    async def careful(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        outcome = yield call.buffered()
        await asyncio.sleep(0)
        steps.append(outcome.code)
        outcome = yield call.buffered()
        steps.append(outcome.code)
        await asyncio.sleep(0)
        steps.append("end")

    echo = Echo([failed(UNAVAILABLE)])
    async with aio_opened(echo, careful) as link:
        messages = await link.call(kind, "a", "b")

    assert messages == FULL[kind]
    assert steps == [UNAVAILABLE, OK, "end"]
    assert len(echo.attempts) == 2


@pytest.mark.fact("E-5")
@all_kinds
@pytest.mark.parametrize("fault", [errors.Unauthenticated("no token"), ValueError("secret")], ids=["refuses", "fails"])
@on_the_loop
async def test_an_async_generator_may_refuse_and_fail(kind: Kind, fault: Exception) -> None:
    """A status it raises ends the RPC; any other exception is INTERNAL with its name, and without its text."""
    echo = Echo()

    async def guard(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        raise fault
        yield call

    refused = isinstance(fault, errors.Unauthenticated)
    async with aio_opened(echo, guard) as link:
        with pytest.raises(errors.Unauthenticated if refused else errors.Internal) as caught:
            await link.call(kind)

    assert ("no token" if refused else "guard raised ValueError") in caught.value.details()
    assert "secret" not in caught.value.details()
    assert not echo.attempts


@pytest.mark.fact("E-5", "A-13")
@all_kinds
@pytest.mark.parametrize("when_cancelled", ["before", "after"])
@on_the_loop
async def test_an_async_generator_hears_of_a_cancel(kind: Kind, when_cancelled: str) -> None:
    """Before its yield it is thrown CancelledError; after it, it is told, and runs to its end."""
    gate, watch, waits, finished = Gate(), Told(), asyncio.Event(), asyncio.Event()
    outcomes: list[Outcome] = []

    async def careful(call: Call) -> AsyncFlow:
        try:
            if when_cancelled == "before":
                waits.set()
                await asyncio.Event().wait()
            outcomes.append((yield call))
            await asyncio.sleep(0)
        finally:
            finished.set()

    async with aio_opened(gate, watch, careful) as link:
        call = link.start(kind)
        await (within(waits.wait()) if when_cancelled == "before" else reached(gate.begun))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        await within(finished.wait())
        outcome = await watch.told()

    assert outcome.code is CANCELLED
    assert [each.code for each in outcomes] == [CANCELLED] * (when_cancelled == "after")


@pytest.mark.fact("E-5")
@all_kinds
@on_the_loop
async def test_a_flow_waits_for_a_value_and_for_what_raises(kind: Kind) -> None:
    """`yield from wait(…)` gives what an awaitable gives, or raises, and a plain value as it is."""
    echo = Echo()

    async def token(fault: Exception | None = None) -> str:
        await asyncio.sleep(0)
        if fault:
            raise fault
        return "fetched"

    def bearer(call: Call) -> Flow:
        fetched = yield from wait(token())
        plain = yield from wait("plain")
        try:
            yield from wait(token(LookupError("no token")))
        except LookupError as error:
            yield call.with_metadata(("x-token", fetched), ("x-token", plain), ("x-error", str(error.args[0])))

    async with aio_opened(echo, bearer) as link:
        await link.call(kind)

    assert echo.attempts[0].values("x-token") == ["fetched", "plain"]
    assert echo.attempts[0].values("x-error") == ["no token"]


# --- what it costs ----------------------------------------------------------------------------------------------------


@contextmanager
def counting_tasks() -> Iterator[collections.Counter[str]]:
    """The tasks that are made on this loop, by the names of their coroutines."""
    loop = asyncio.get_running_loop()
    made: collections.Counter[str] = collections.Counter()

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
        if inspect.iscoroutine(work):  # and not the end of a generator that the collector has found meanwhile
            made[work.__qualname__] += 1
        return asyncio.Task(work, loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        yield made
    finally:
        loop.set_task_factory(None)


async def written(call: Any) -> list[str]:
    for message in ("a", "b"):
        await call.write(message)
    await call.done_writing()
    return await answered(call)


@pytest.mark.fact("E-2")
@all_kinds
@pytest.mark.parametrize("flow", [passing, hooked, retrying], ids=["passing", "hooked", "retry"])
@on_the_loop
async def test_no_task_of_our_own(kind: Kind, flow: Interceptor) -> None:
    """Where no flow waits an intercepted call makes no task that a bare one does not make; on the direct path it makes none."""
    made = {}
    HOSTS["sync"].services = [Echo().handlers(asyncio=False)]
    native = grpc.aio.insecure_channel(HOSTS["sync"].target)
    for name, channel in (("bare", native), ("ours", intercept_channel(native, flow))):
        stub = getattr(channel, kind.value)(path(kind), encode, decode)
        with counting_tasks() as made[name]:
            for _ in range(3):
                await answered(stub(requested(kind, "a", "b")))
            if kind.request_streaming and flow is not retrying:
                await written(stub())
    await native.close()

    assert sum(made["bare"].values()) > 0
    assert made["ours"] <= made["bare"]
