"""Flows of Coalesce that are begun by hand, and the outcomes that they are told."""

import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import grpc.aio

from interpose import Call, Kind, Method, Outcome, errors
from interpose._clock import SYSTEM, Clock
from interpose._flow import Wait
from interpose.interceptors import Coalesce, CoalesceState
from interpose.testing.echo import path
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

NONE = CoalesceState(flights=0, waiting=0)


def always(**options: Any) -> Coalesce:
    """One for methods of which no proto says anything."""
    return Coalesce(**({"safe": True} | options))


class Asked:
    """A flow that was begun by hand, in a context of its own, as a shell does it.

    step: the call that it sends, what it waits for, or None once it has ended.
    """

    def __init__(self, interceptor: Any, call: Call) -> None:
        self._flow = interceptor(call)
        self._context = contextvars.copy_context()
        self.step: Any = None
        self.outcome: Any = None
        self.error: BaseException | None = None
        self._move(lambda: next(self._flow))

    @property
    def sends(self) -> bool:
        return type(self.step) is Call

    @property
    def waits(self) -> bool:
        return type(self.step) is Wait

    @property
    def told(self) -> bool:
        """Is there something new for a flow that waits?"""
        future: Future[Any] = self.step.awaitable
        return future.done()

    def end(self, outcome: Outcome) -> Outcome:
        """The call that it sent has ended; gives what it makes of it."""
        self._move(lambda: self._flow.send(outcome))
        self.outcome = self.outcome or outcome
        assert isinstance(self.outcome, Outcome)
        return self.outcome

    def go_on(self) -> Any:
        """What it waited for is there; gives its outcome if it has one."""
        answer = self.step.awaitable.result(PATIENCE)
        self._move(lambda: self._flow.send(answer))
        return self.outcome

    def fail(self, error: BaseException) -> None:
        """It waited in vain."""
        self._move(lambda: self._flow.throw(error))

    def drop(self) -> None:
        """Nobody wants it any more."""
        self.step = None
        self._flow.close()

    def _move(self, move: Callable[[], Any]) -> None:
        self.step = None
        try:
            self.step = self._context.run(move)
        except StopIteration as ended:
            self.outcome = ended.value
        except errors.StatusError as error:
            self.error = error


def call_of(
    request: str = "q",
    method: str = path(Kind.UNARY_UNARY),
    kind: Kind = Kind.UNARY_UNARY,
    clock: Clock = SYSTEM,
    **options: Any,
) -> Call:
    return Call(Method(method, kind, clock=clock), request=request.encode(), **options)


def answer(response: Any = "good", **more: Any) -> Outcome:
    """The outcome of a call that the server answered."""
    return Outcome(response=response, responses=1, **more)


def failure(code: grpc.StatusCode = UNAVAILABLE, **options: Any) -> Outcome:
    return Outcome.failure(errors.of(code)("as scripted", **options))
