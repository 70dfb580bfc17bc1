"""Context variables: what a flow or a handler sets is seen within, and by nobody else."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, wait
from interpose.testing import Echo
from tests.facts.calling import EVERY, Link, Uploads, Way, in_time, opened, ways
from tests.facts.handling import ALL, UNARY, Flood, Shape, handling, sending, serve, shapes
from tests.facts.hosting import LOOP
from tests.facts.serving import Watch
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


# --- clients ----------------------------------------------------------------------------------------------------------


def perform(link: Link, request: Any, seen: dict[str, str]) -> None:
    """Make a call where the application has set the variable, and note what there is to be seen of it."""
    tenant.set("application")
    stub = link.stub()
    if link.way.streams:
        for _ in stub(request):
            seen["stream"] = tenant.get()
    elif link.way.stack == "blocking":
        stub(request)
    else:
        stub.future(request).result(PATIENCE)
    seen["caller"] = tenant.get()


async def aperform(link: Link, request: Any, seen: dict[str, str]) -> None:
    """The same on asyncio."""
    tenant.set("application")
    call = link.stub()(request)
    seen["after the call"] = tenant.get()
    if link.way.streams:
        async for _ in call:
            seen["stream"] = tenant.get()
    else:
        await call
    seen["caller"] = tenant.get()


def on_stack(way: Way, work: Callable[[], Any], awork: Callable[[], Any]) -> None:
    _ = LOOP.run(awork()) if way.aio else in_time(work)


@pytest.mark.fact("R-10", "C-11")
@ways(EVERY)
def test_what_a_flow_sets_stays_in_its_flows(way: Way) -> None:
    """What a flow sets is seen later and by the flows within, not by the caller, its request stream or its loop."""
    seen: dict[str, str] = {}

    def setting(call: Call) -> Flow:
        seen["before"] = tenant.get()
        tenant.set("flow")
        yield call
        seen["outer flow"] = tenant.get()

    def inner(call: Call) -> Flow:
        seen["inner flow"] = tenant.get()
        yield call

    def messages() -> Iterator[str]:
        seen["messages"] = tenant.get()
        yield "a"

    request: Any = messages() if way.uploads else "a"
    with opened(way, Echo(), setting, inner) as link:
        on_stack(way, lambda: perform(link, request, seen), lambda: aperform(link, request, seen))

    assert seen.pop("inner flow") == seen.pop("outer flow") == "flow"
    assert set(seen.values()) == {"application"}


@pytest.mark.fact("R-10")
@ways(way for way in EVERY if way.aio)
def test_what_a_flow_waits_for_runs_in_the_flows_context(way: Way) -> None:
    """What an awaitable sets stays in its flow; the flow began with what the application had set."""
    seen: list[str] = []

    async def look() -> None:
        seen.append(tenant.get())
        tenant.set("awaitable")

    def looking(call: Call) -> Flow:
        seen.append(tenant.get())
        yield from wait(look())
        seen.append(tenant.get())
        yield call
        seen.append(tenant.get())

    async def application() -> None:
        tenant.set("application")
        call = link.stub()(iter("a") if way.uploads else "a")
        _ = [message async for message in call] if way.streams else await call
        seen.append(tenant.get())

    with opened(way, Echo(), looking) as link:
        LOOP.run(application())

    assert seen == ["application", "application", "awaitable", "awaitable", "application"]


@pytest.mark.fact("C-11", "R-10")
@ways(way for way in EVERY if not way.aio and way.uploads and not way.streams)
def test_messages_of_a_later_attempt_run_in_the_applications_context_too(way: Way) -> None:
    """A request stream sees the application's context variables in every attempt, also in one that a timer sent."""
    uploads, seen = Uploads(1), list[str]()

    def retry(call: Call) -> Flow:
        tenant.set("flow")
        outcome = yield call.buffered()
        if not outcome.ok:
            yield call.buffered().after(0.01)

    def messages() -> Iterator[str]:
        for message in "abcd":
            seen.append(tenant.get())
            yield message
            if message == "a":
                uploads.seconds.wait(PATIENCE)

    def application() -> None:
        tenant.set("application")
        link.call(argument=messages())

    with opened(way, uploads, retry) as link:
        in_time(application)

    assert seen == ["application"] * 4
    assert uploads.complete == [list("abcd")]


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("R-14", "S-24")
@shapes(ALL)
def test_what_a_flow_sets_reaches_its_handler_and_no_other_rpc(shape: Shape) -> None:
    """What a flow sets is seen by the whole handler and by the flow afterwards, and by no later RPC."""
    before, after = list[str](), list[str]()

    def set_tenant(call: Call) -> Flow:
        before.append(tenant.get())
        tenant.set(f"tenant-{len(before)}")
        yield call
        after.append(tenant.get())

    def answers(_: Any) -> Iterator[str]:
        for _ in range(3):
            yield tenant.get()

    times = 3 if shape.streams else 1
    handlers = sending(shape, answers) if shape.streams else handling(shape, lambda _: tenant.get())
    with serve(shape, handlers, set_tenant, workers=1) as rpc:
        replies = [rpc.call().messages for _ in range(3)]

    names = ["tenant-1", "tenant-2", "tenant-3"]
    assert replies == [[name] * times for name in names]
    assert before == ["nobody"] * 3 and after == names


@pytest.mark.fact("R-14", "S-24")
@shapes(UNARY)
def test_what_a_handler_sets_reaches_no_other_rpc(shape: Shape) -> None:
    """What a handler sets is gone when its thread serves the next RPC."""

    def body(_: Any) -> str:
        seen = tenant.get()
        tenant.set("left behind")
        return seen

    with serve(shape, handling(shape, body), Watch(), workers=1) as rpc:
        replies = [rpc.call().messages for _ in range(3)]

    assert replies == [["nobody"]] * 3


@pytest.mark.fact("S-23")
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "blocked by flow control"])
@shapes(Shape(sort, "unary_stream") for sort in ("sync", "plain", "async"))
def test_a_context_variable_can_be_reset_across_a_yield(shape: Shape, size: int) -> None:
    """A flow and a generator may reset a variable's token after their yield when the client left (Python 3.12)."""
    faults, watch, flood = list[BaseException](), Watch(), Flood(shape, "a" * size)

    def reset(token: Any) -> None:
        try:
            tenant.reset(token)
        except ValueError as error:
            faults.append(error)

    def scoped(call: Call) -> Flow:
        token = tenant.set("flow")
        yield call
        reset(token)

    def plain(argument: Any, context: Any) -> Iterator[str]:
        token = tenant.set("handler")
        try:
            yield from flood.messages()
        finally:
            reset(token)
            flood.closed.set()

    async def waiting(argument: Any, context: Any) -> AsyncIterator[str]:
        token = tenant.set("handler")
        try:
            for message in flood.messages():
                yield message
        finally:
            reset(token)
            flood.closed.set()

    with serve(shape, {shape.kind: waiting if shape.waits else plain}, watch, scoped) as rpc:
        pending = rpc.start("a")
        assert flood.started.wait(PATIENCE)
        pending.cancel()
        outcome = watch.only()
        assert flood.closed.wait(PATIENCE)

    if sys.version_info >= (3, 12) or not shape.waits:  # before, a task's context cannot be had, only a copy
        assert not faults
    assert outcome.code is grpc.StatusCode.CANCELLED
