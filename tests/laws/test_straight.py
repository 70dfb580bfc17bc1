"""The straight path of servers, which knows no driver, cannot be told from a driver's way."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interpose import Call, Flow, errors
from interpose._shell.handlers import Compiled
from interpose.aio.server import Handlers
from interpose.context import current_call, set_current_call
from interpose.sync.server import handlers
from tests.laws.family import LEAVES, NOT_FOUND, UNAVAILABLE, Log, Spec, build
from tests.laws.interpreter import METHOD
from tests.laws.test_chains import silence

__all__ = ["silence"]

ANSWERS, DECIDES, ABORTS, BREAKS = "answers", "decides", "aborts", "breaks"
Did = str | grpc.StatusCode


class Clock:
    """Time that stands."""

    def now(self) -> float:
        return 5.0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        return SimpleNamespace(cancel=lambda: None)


class Native:
    """grpc's own context, as far as it is asked; keeps what it is to send."""

    def __init__(self, leaves: bool) -> None:
        self.sent: list[Any] = []
        self.leaves = leaves

    def is_active(self) -> bool:
        return not self.leaves

    def cancel(self) -> None: ...

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5"

    def invocation_metadata(self) -> Any:
        return (("x-a", "1"),)

    def time_remaining(self) -> float | None:
        return None

    def set_code(self, code: Any) -> None:
        self.sent.append(code)

    def set_details(self, details: Any) -> None:
        self.sent.append(details)

    def set_trailing_metadata(self, trailing: Any) -> None:
        self.sent.append(tuple(trailing))


class SyncNative(Native):
    def abort(self, code: Any, details: Any) -> None:
        self.sent.append((code, details))


class AioNative(Native):
    async def abort(self, code: Any, details: Any) -> None:
        self.sent.append((code, details))
        raise grpc.aio.AbortError


def does(did: Did, request: Any, context: Any) -> str:
    """What a handler does that is called once more; its answer has what it can see."""
    if did == DECIDES:
        context.set_details("decided")
        context.set_trailing_metadata((("x-decided", "1"),))
    elif did == BREAKS:
        raise ValueError("a bug")
    elif isinstance(did, grpc.StatusCode):
        raise errors.of(did)("from the handler")
    current = current_call()
    assert current is not None
    seen = request, current.request, current.metadata, context.invocation_metadata()
    return f"the response to {context.peer()}, {seen}"


def otherwise(call: Call) -> Flow:
    """Asks for what any call asks for, in words of its own, so that a driver has to turn the flows."""
    yield call._ask()


def on_sync(stack: list[Any], script: list[Did], leaves: bool) -> tuple[Any, ...]:
    """What becomes of one RPC on a sync server."""
    left, native = list(script), SyncNative(leaves)

    def handle(request: Any, context: Any) -> Any:
        did = left.pop(0) if left else ANSWERS
        if did == ABORTS:
            context.abort(NOT_FOUND, "aborted")
        return does(did, request, context)

    compiled: Compiled = handlers(tuple(stack), Clock())  # type: ignore[arg-type]
    behave = compiled.compile(grpc.unary_unary_rpc_method_handler(handle), str(METHOD)).unary_unary
    try:
        ended: Any = behave("the request", native)
    except BaseException as error:
        ended = type(error), str(error)
    return ended, native.sent, len(left)


def on_aio(stack: list[Any], script: list[Did], leaves: bool) -> tuple[Any, ...]:
    """What becomes of one RPC on an asyncio server."""
    left, native = list(script), AioNative(leaves)

    async def handle(request: Any, context: Any) -> Any:
        did = left.pop(0) if left else ANSWERS
        if did == ABORTS:
            await context.abort(NOT_FOUND, "aborted")
        if leaves and (task := asyncio.current_task()) and not task.cancelling():
            task.cancel()
        return does(did, request, context)

    made = Handlers(tuple(stack), Clock())  # type: ignore[arg-type]
    behave = made.compile(grpc.unary_unary_rpc_method_handler(handle), str(METHOD)).unary_unary

    async def run() -> Any:
        try:
            return await asyncio.create_task(behave("the request", native))
        except BaseException as error:
            return type(error), str(error)

    with asyncio.Runner() as runner:
        return runner.run(run()), native.sent, len(left)


Play = Callable[[list[Any], list[Did], bool], tuple[Any, ...]]


def told(play: Play, specs: list[Spec], script: list[Did], leaves: bool, *more: Any) -> tuple[Any, ...]:
    """All that can be seen of it: by the client, by each flow, and afterwards."""
    log: Log = []
    ended = play([*(build(spec, log) for spec in specs), *more], script, leaves)
    return ended, log


dids = st.sampled_from([ANSWERS, DECIDES, ABORTS, BREAKS, NOT_FOUND, UNAVAILABLE])


@pytest.fixture(autouse=True)
def nothing_is_current() -> Iterator[None]:
    """What is played here makes its call the current one of this thread."""
    before = current_call()
    yield
    set_current_call(before)


@pytest.mark.parametrize("play", [on_sync, on_aio])
@given(st.lists(LEAVES, max_size=4), st.lists(dids, max_size=3), st.booleans())
@example([("passes",), ("replaces", None), ("passes",)], [UNAVAILABLE], False)
@example([("passes",), ("retries", 2), ("passes",)], [UNAVAILABLE, DECIDES], False)
@example([("passes",), ("refuses", True), ("passes",)], [NOT_FOUND], False)
@example([("passes",), ("adds", "x-a"), ("passes",)], [ABORTS], False)
@example([("passes",), ("says", "x-a"), ("says", "x-bb"), ("passes",)], [ANSWERS], False)
@example([("retries", 1), ("says", "x-a"), ("passes",)], [UNAVAILABLE, DECIDES], False)
@example([("passes",), ("passes",)], [ANSWERS], True)
@example([("passes",), ("breaks", "ValueError", True)], [ANSWERS], False)
@example([("passes",), ("breaks", "ValueError", False), ("passes",)], [], False)
@example([("passes",), ("returns", 3, True), ("passes",)], [], False)
@example([("passes",), ("returns", 1, True), ("passes",)], [BREAKS], False)
def test_the_straight_path_is_no_other_way(play: Play, specs: list[Spec], script: list[Did], leaves: bool) -> None:
    """Same response or status, same calls of the handler, and same sights in each flow, in the same order."""
    assert told(play, specs, script, leaves) == told(play, specs, script, leaves, otherwise)
