"""A caller of the asyncio stack: it starts an RPC, does the steps of a scenario, and notes what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from tests.conformance.calls.remote import Remote
from tests.conformance.calls.scenario import Scenario
from tests.conformance.calls.seeing import Seen, Sight, kin, of, of_a_repr, raised, shown
from tests.support.patience import PATIENCE


class Caller:
    """One RPC."""

    def __init__(self, stub: Any, remote: Remote, scenario: Scenario) -> None:
        self._stub = stub
        self._remote = remote
        self._scenario = scenario
        self._log: list[str] = []  # which callback came, one after the other
        self._awaited: list[asyncio.Event] = []
        self._early: list[tuple[str, asyncio.Task[Seen]]] = []
        self._call: Any = None

    async def run(self) -> list[Sight]:
        """Do it all; gives what was seen."""
        try:
            async with asyncio.timeout(PATIENCE):
                sights = [("start", await self._start())]
                for step in self._scenario.steps:
                    sights.append((step, await self._do(step)))  # noqa: PERF401  one after the other
                sights += [(step, await asked) for step, asked in self._early]
            return [
                *sights,
                ("callbacks", {"came": tuple(self._log)}),
                ("server", {"saw": tuple(self._remote.requests)}),
            ]
        finally:
            await self._clean_up()

    async def _start(self) -> Seen:
        scenario = self._scenario
        given = {"one": ["question"], "given": [self._requests()], "said": []}[scenario.sends]
        self._call = self._stub(*given, timeout=scenario.timeout, metadata=self._remote.metadata)
        self._call.add_done_callback(self._to_be_called("the first one"))
        seen = {"kin": kin(self._call)}
        if not scenario.expires:
            await asyncio.wrap_future(self._remote.arrived)
        return seen

    async def _requests(self) -> AsyncIterator[str]:
        yield "first"
        yield "second"

    def _to_be_called(self, name: str) -> Callable[..., None]:
        came = asyncio.Event()
        self._awaited.append(came)

        def callback(*arguments: Any) -> None:
            self._log.append(f"{name} {'with the call' if arguments == (self._call,) else f'with {len(arguments)}'}")
            came.set()

        return callback

    # - steps -

    async def _do(self, step: str) -> Seen:
        who, _, what = step.rpartition(": ")
        if who == "server":
            await asyncio.wrap_future(self._remote.order(what))
            return {}
        if who == "early":
            self._early.append((step, asyncio.ensure_future(self._ask(what))))
            await asyncio.sleep(0)  # it begins
            return {}
        return await self._ask(what)

    async def _ask(self, step: str) -> Seen:
        name = step.replace(" ", "_")
        own = getattr(self, f"_do_{name}", None)
        try:
            if own is not None:
                return await own()
            value = getattr(self._call, name)()
            return shown(name, await value if asyncio.iscoroutine(value) else value, self._call)
        except (Exception, asyncio.CancelledError) as error:
            if _out_of_patience():
                raise
            return raised(error, self._call)

    async def _do_settle(self) -> Seen:
        for came in self._awaited:
            await came.wait()
        return {}

    async def _do_repr(self) -> Seen:
        return of_a_repr(self._call)

    async def _do_kinship(self) -> Seen:
        call = self._call
        return {"kin": kin(call), "hashable": hash(call) is not None, "awaitable": hasattr(call, "__await__")}

    async def _do_await(self) -> Seen:
        return of(await self._call, self._call)

    async def _do_read(self) -> Seen:
        return of(await self._call.read(), self._call)

    async def _do_iterate(self) -> Seen:
        return of(await anext(aiter(self._call)), self._call)

    async def _do_read_all(self) -> Seen:
        messages: list[str] = []
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                messages.append(message)
        except (Exception, asyncio.CancelledError) as error:
            if _out_of_patience():
                raise
            return {"value": tuple(messages)} | raised(error, self._call)
        return {"value": tuple(messages)}

    async def _do_iterate_all(self) -> Seen:
        messages: list[str] = []
        try:
            async for message in self._call:
                messages.append(message)  # noqa: PERF401  what came before a failure counts
        except (Exception, asyncio.CancelledError) as error:
            if _out_of_patience():
                raise
            return {"value": tuple(messages)} | raised(error, self._call)
        return {"value": tuple(messages)}

    async def _do_add_done_callback(self) -> Seen:
        self._call.add_done_callback(self._to_be_called(f"callback {len(self._awaited)}"))
        return {}

    async def _do_say(self) -> Seen:
        return of(await self._call.write("more"), self._call)

    async def _do_hush(self) -> Seen:
        return of(await self._call.done_writing(), self._call)

    async def _do_give_up(self) -> Seen:
        """Cancel a task that waits for the answer."""
        waits = self._read_on if self._scenario.kind.response_streaming else self._do_await
        waiting = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        return {"cancels": waiting.cancel()} | await self._ending_of(waiting)

    async def _read_on(self) -> Seen:
        # In the style that the scenario has used so far: the other one would be a usage error.
        before = [step for step in self._scenario.steps if step in ("read", "iterate")]
        return await (self._do_read_all() if before[:1] == ["read"] else self._do_iterate_all())

    async def _ending_of(self, waiting: asyncio.Task[Seen]) -> Seen:
        try:
            return await waiting
        except asyncio.CancelledError as error:
            if _out_of_patience():
                raise
            return raised(error, self._call)

    async def _clean_up(self) -> None:
        self._remote.release()
        if self._call is not None:
            self._call.cancel()
        for _, asked in self._early:
            asked.cancel()
            with suppress(asyncio.CancelledError):
                await asked
        self._call = None


def _out_of_patience() -> bool:
    """Is it we who are cancelled, and not the call?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
