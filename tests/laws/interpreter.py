"""A shell without I/O: it turns the pure driver, and answers its steps from a script."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import grpc

from interpose import Call, Interceptor, Kind, Metadata, Method, Outcome, errors
from interpose._flow import Driver, Race, Wait, layers

OK = grpc.StatusCode.OK

METHOD = Method("/laws.Court/Judge", Kind.UNARY_UNARY)
CALL = Call(METHOD, request="the request")


class Given:
    """An awaitable whose end is known: a value, or what it raises."""

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    def __await__(self) -> Generator[Any, Any, Any]:
        raise AssertionError("the pure driver never awaits")


def answer(code: grpc.StatusCode = OK, *, replayable: bool = True, text: str = "") -> Outcome:
    """What a peer could have answered."""
    if code is OK:
        return Outcome(OK, text or "the response", requests=1, responses=1, elapsed=0.5, replayable=replayable)
    error = errors.of(code)(text or "from the peer", trailing_metadata=(("x-from", "peer"),))
    return Outcome(code, None, error.details(), error, requests=1, elapsed=0.5, replayable=replayable)


class Player:
    """Plays a script, an outcome per attempt; when it has run out, the peer answers OK. Keeps what was sent."""

    def __init__(self, script: Iterable[Outcome] = ()) -> None:
        self._script = list(script)
        self.sent: list[Call] = []
        self.started: list[Driver] = []

    def play(self, *stack: Interceptor, call: Call = CALL) -> Outcome:
        """One RPC from its start to its end."""
        return self._turn(Driver(layers(stack, call.method)), call)

    def _turn(self, driver: Driver, call: Call) -> Outcome:
        return self.go_on(driver, driver.start(call))

    def go_on(self, driver: Driver, step: Any) -> Outcome:
        """Turn a driver from this step to its end."""
        self.started.append(driver)
        while type(step) is not Outcome:
            if type(step) is Wait:
                step = self._wait(driver, step)
            elif type(step) is Race:
                step = driver.tell(self._race(step))
            else:
                assert type(step) is Call
                assert step._asks.hedging is None
                step = driver.tell(self._send(step))
        return step

    def _send(self, call: Call) -> Outcome:
        self.sent.append(call)
        return self._script.pop(0) if self._script else answer()

    def _wait(self, driver: Driver, step: Wait) -> Any:
        given: Any = step.awaitable
        return driver.answer(given.value) if given.error is None else driver.fail(given.error)

    def _race(self, race: Race) -> Outcome:
        """The lanes one after the other, each to its end, until one is good."""
        attempts = 0
        outcome = answer(grpc.StatusCode.INTERNAL)
        for lane in race.lanes:
            outcome = self._turn(*lane())
            attempts += outcome.attempts
            if outcome.ok:
                break
        outcome._attempts = attempts
        return outcome


def seen(outcome: Outcome) -> tuple[Any, ...]:
    """All that a flow can see in an outcome, comparable."""
    error = outcome.error
    return (
        outcome.code,
        outcome.details,
        outcome.response,
        outcome.attempts,
        outcome.requests,
        outcome.responses,
        outcome.elapsed,
        outcome.replayable,
        outcome.local,
        outcome.initial_metadata,
        outcome.trailing_metadata,
        type(error),
        tuple(getattr(error, "__notes__", ())),
    )


def wished(call: Call) -> tuple[Any, ...]:
    """All that a flow can ask for in a call, comparable."""
    return call.method, call.metadata, call.timeout, call.delay, call.request, call._asks


__all__ = ["CALL", "METHOD", "OK", "Given", "Metadata", "Player", "answer", "seen", "wished"]
