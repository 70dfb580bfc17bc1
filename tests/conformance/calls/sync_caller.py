"""A caller of the sync stack: it starts an RPC, does the steps of a scenario, and notes what it sees."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from queue import SimpleQueue
from typing import Any

import grpc

from tests.conformance.calls.remote import Remote
from tests.conformance.calls.scenario import Scenario
from tests.conformance.calls.seeing import Seen, Sight, kin, of, of_a_repr, raised, shown
from tests.support.patience import PATIENCE

SHORTLY = 0.001  # seconds: to wait for what does not come


class Caller:
    """One RPC."""

    def __init__(self, stub: Any, remote: Remote, scenario: Scenario) -> None:
        self._stub = stub
        self._remote = remote
        self._scenario = scenario
        self._said: SimpleQueue[str | None] = SimpleQueue()
        self._log: list[str] = []  # which callback came, one after the other
        self._awaited: list[threading.Event] = []
        self._made = 0  # callbacks
        self._early: list[tuple[str, futures.Future[Seen]]] = []
        self._call: Any = None

    def run(self) -> list[Sight]:
        """Do it all; gives what was seen."""
        try:
            sights = [("start", self._start()), *((step, self._do(step)) for step in self._scenario.steps)]
            sights += [(step, future.result(PATIENCE)) for step, future in self._early]
            return [
                *sights,
                ("callbacks", {"came": tuple(self._log)}),
                ("server", {"saw": tuple(self._remote.requests)}),
            ]
        finally:
            self._clean_up()

    def _start(self) -> Seen:
        scenario = self._scenario
        for order in scenario.ahead:
            self._remote.order(order)
        begin = self._stub if scenario.form in ("call", "stream") else getattr(self._stub, scenario.form)
        try:
            given = begin(self._requests(), timeout=scenario.timeout, metadata=self._remote.metadata)
        except grpc.RpcError as error:
            self._call = error
            return raised(error, error)
        if scenario.form == "call":
            self._call = _Response(given)
            return of(given)
        response, self._call = given if scenario.form == "with_call" else ("", given)
        if not scenario.ahead and not scenario.expires:
            self._remote.arrived.result(PATIENCE)
            self._call.add_callback(self._to_be_called("callback"))
        return {"response": response, "kin": kin(self._call)}

    def _requests(self) -> Any:
        return {"one": "question", "given": iter(["first", "second"]), "said": self._heard()}[self._scenario.sends]

    def _heard(self) -> Iterator[str]:
        return iter(self._said.get, None)

    def _to_be_called(self, kind: str) -> Callable[..., None]:
        came = threading.Event()
        self._awaited.append(came)
        self._made += 1
        name = f"{kind} {self._made}"

        def callback(*arguments: Any) -> None:
            with_call = "with the call" if arguments and arguments[0] is self._call else f"with {len(arguments)}"
            self._log.append(f"{name} {with_call}")
            came.set()

        return callback

    # - steps -

    def _do(self, step: str) -> Seen:
        who, _, what = step.rpartition(": ")
        if isinstance(self._call, _Response):
            return {}
        if who == "server":
            self._remote.order(what).result(PATIENCE)
            return {}
        if who == "early":
            return self._ask_early(step, what)
        name = what.replace(" ", "_")
        own = getattr(self, f"_do_{name}", None)
        try:
            return shown(name, getattr(self._call, name)(), self._call) if own is None else own()
        except Exception as error:
            return raised(error, self._call)

    def _ask_early(self, step: str, name: str) -> Seen:
        future: futures.Future[Seen] = futures.Future()
        call = self._call

        def ask() -> None:
            try:
                future.set_result(shown(name, getattr(call, name)(), call))
            except Exception as error:
                future.set_result(raised(error, call))

        threading.Thread(target=ask, daemon=True).start()
        self._early.append((step, future))
        return {}

    def _do_settle(self) -> Seen:
        over = threading.Event()
        blocked = self._scenario.form in ("call", "with_call")
        if not blocked and self._call is not None and self._call.add_callback(over.set):
            assert over.wait(PATIENCE), "the call did not end"
        return {"all callbacks came": all(came.wait(PATIENCE) for came in self._awaited)}

    def _do_repr(self) -> Seen:
        return of_a_repr(self._call)

    def _do_kinship(self) -> Seen:
        call = self._call
        return {
            "kin": kin(call),
            "hashable": hash(call) is not None,
            "iterator": self._scenario.kind.response_streaming and iter(call) is call and hasattr(call, "next"),
        }

    def _do_next(self) -> Seen:
        return of(next(self._call), self._call)

    def _do_iterate_all(self) -> Seen:
        messages = []
        try:
            for message in self._call:
                messages.append(message)  # noqa: PERF402  what came before a failure counts
        except grpc.RpcError as error:
            return {"value": tuple(messages)} | raised(error, self._call)
        return {"value": tuple(messages)}

    def _do_add_callback(self) -> Seen:
        callback = self._to_be_called("callback")
        came = self._awaited.pop()
        taken = self._call.add_callback(callback)
        if taken:
            self._awaited.append(came)
        return of(taken)

    def _do_add_done_callback(self) -> Seen:
        before = len(self._log)
        self._call.add_done_callback(self._to_be_called("done callback"))
        return {"came at once": len(self._log) > before}

    def _do_result(self) -> Seen:
        return of(self._call.result(timeout=PATIENCE), self._call)

    def _do_result_soon(self) -> Seen:
        return of(self._call.result(timeout=SHORTLY), self._call)

    def _do_exception_soon(self) -> Seen:
        return of(self._call.exception(timeout=SHORTLY), self._call)

    def _do_traceback_soon(self) -> Seen:
        return of(self._call.traceback(timeout=SHORTLY), self._call)

    def _do_say(self) -> Seen:
        self._said.put("more")
        return {}

    def _do_hush(self) -> Seen:
        self._said.put(None)
        return {}

    def _do_drop(self) -> Seen:
        self._call = None
        gc.collect()
        self._remote.gone.result(PATIENCE)
        return self._do_settle()

    def _clean_up(self) -> None:
        if self._call is not None and hasattr(self._call, "cancel"):
            self._call.cancel()
        self._call = None
        self._said.put(None)
        self._remote.release()


class _Response:
    """In the place of a call object: a plain call gives only the response."""

    def __init__(self, value: Any) -> None:
        self.value = value
