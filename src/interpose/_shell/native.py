"""What both shells need to know of grpc: outcomes of what it refused, and the time that an attempt has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeAlias

import grpc
import grpc.aio

from interpose import errors
from interpose._call import Call
from interpose._clock import FOREVER, Clock
from interpose._flow import NO_WAITING, Driver, Layers, Wait
from interpose._kind import kind_of
from interpose._method import Kind, Method
from interpose._outcome import OK, Outcome, told_by
from interpose._shell.codec import encoder, guarded
from interpose._wording import made_here

EOF: Any = vars(grpc.aio)["EOF"]  # the stubs forget it

LOCALLY_CANCELLED = "Locally cancelled by application!"  # grpcio's words


class Pauses(set[Callable[[], object]]):
    """What to call when a channel closes: its RPCs that wait to be sent. Afterwards there is nothing to wait for."""

    closed = False

    def close(self) -> None:
        self.closed = True
        for end in list(self):
            end()


class Route:
    """What is compiled once per stub method."""

    __slots__ = ("clock", "encode", "layers", "method", "native", "pauses", "uploads")

    def __init__(
        self,
        method: Method,
        layers: Layers,
        make: Callable[[Any], Any],  # a serializer → the native multi-callable
        serializer: Callable[[Any], bytes] | None,
        clock: Clock,
        pauses: Pauses,
        packs: bool = True,  # does the shell serialize unary requests before it hands them over?
    ) -> None:
        self.method = method
        self.layers = layers
        self.uploads = method.kind.request_streaming
        self.encode = encoder(serializer)
        # One for messages and for those that are kept: a second one, made when it is first needed, might be made on a
        # channel that is closed, and there grpc ends the process (registered methods).
        # A stream is serialized on a thread of grpc's, a unary request where the application calls.
        self.native = make(encoder(guarded(serializer)) if self.uploads else self.encode if packs else serializer)
        self.clock = clock
        self.pauses = pauses


Hooked: TypeAlias = Callable[[Kind, Any, Any], Route]  # kind, path, native multi-callable → the way of one RPC


def options_of(details: Any) -> dict[str, Any]:
    """What the application said of a call, from what grpc gives a native interceptor."""
    names = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")
    return {name: getattr(details, name, None) for name in names}


def failure(
    error: BaseException,
    sent: int = 0,
    received: int = 0,
    elapsed: float = 0.0,
    replayable: bool = False,
    ended: Any = None,
) -> Outcome:
    """The outcome of an attempt that failed with a status, or that grpc refused, or that Ctrl-C ended."""
    if isinstance(error, errors.StatusError):
        code, details, _ = told_by(error)
        error.local = error.local or made_here(code, details, error._debug_error_string)
    else:
        code = grpc.StatusCode.INTERNAL if isinstance(error, Exception) else grpc.StatusCode.CANCELLED
        details = f"{type(error).__name__}: {error}"
    return Outcome(code, None, details, error, sent, received, elapsed, replayable, ended)


def expired() -> Outcome:
    """The outcome of an attempt with no time left: nothing is sent (grpc itself mostly would, with timeout=0)."""
    return Outcome.failure(errors.DeadlineExceeded("the deadline passed before the call was sent", local=True))


def cancelled() -> Outcome:
    """The outcome of an attempt that was not sent because the application had cancelled."""
    return Outcome.failure(errors.Cancelled(LOCALLY_CANCELLED, local=True))


def closing(outcome: Outcome, was_open: bool) -> Outcome:
    """The outcome of an attempt on a channel that is closed: CANCELLED, if it only was closed since the RPC began.

    grpc refuses what is sent on a closed channel with an exception, which is for those who call it then.
    """
    refused = was_open and isinstance(outcome.error, (ValueError, grpc.aio.UsageError))
    return cancelled() if refused else outcome


def answered(outcome: Outcome, method: Method) -> tuple[Outcome, Iterator[Any] | None]:
    """The outcome of an RPC, and the messages of a response stream that a flow answered in the server's place."""
    if outcome._code is not OK or outcome._response is None or not method.kind.response_streaming:
        return outcome, None
    try:
        return outcome, iter(outcome._response)
    except Exception:
        answer = kind_of(outcome._response)
        fault = f"an interceptor answered {method} with {answer}: a response stream needs an iterable of messages"
        return Outcome.failure(errors.Internal(fault, local=True)), None


def unless_cancelled(outcome: Outcome, by_application: bool) -> Outcome:
    """A call that its application cancelled is CANCELLED, whatever a flow makes of it: `wait_for` and its like count on it."""
    return cancelled() if by_application and outcome._code is not grpc.StatusCode.CANCELLED else outcome


def deadline_of(timeout: float | None, clock: Clock) -> float | None:
    """The absolute deadline of an RPC, fixed when the stub is called."""
    return None if timeout is None or timeout >= FOREVER else clock.now() + timeout


def time_left(call: Call, now: float) -> float | None:
    """Seconds that an attempt may take: what it asks for, within what is left of the RPC."""
    timeout, deadline = call._timeout, call._deadline
    if timeout is not None and timeout >= FOREVER:
        timeout = None
    if deadline is None:
        return timeout
    left = deadline - now
    return left if timeout is None or left < timeout else timeout


def pause_of(call: Call, now: float) -> tuple[float, bool]:
    """How long a delayed call waits, no longer than to the RPC's deadline; and whether it can be sent then."""
    delay, deadline = call._asks.delay, call._deadline
    left = delay + 1 if deadline is None else deadline - now
    return (delay, True) if delay < left else (max(left, 0.0), False)


def exception_of(outcome: Outcome, native: type) -> BaseException:
    """What a stub raises for a failure: typed, and an instance of grpc's own class as well."""
    error = outcome.error
    if error is None:
        error = errors.of(outcome.code)(outcome.details, trailing_metadata=outcome.trailing_metadata)
    return errors.nativized(error, native) if isinstance(error, errors.StatusError) else error


def debug_text(outcome: Outcome) -> str:
    """What gRPC's core said about a failure: the peer's address, the cause."""
    return str(getattr(outcome.error, "_debug_error_string", ""))


def impatient(call: Call) -> errors.DeadlineExceeded:
    """What an attempt fails with that the server did not begin to answer."""
    return errors.DeadlineExceeded(f"no answer had begun after {call._asks.patience:g} s", local=True)


def wait_of(step: Wait, deadline: float | None, now: float) -> float:
    """How long a flow waits for a Future, in seconds: as it said, and no longer than to the deadline of the RPC."""
    ends = [end for end in (step.deadline, deadline) if end is not None]
    return max(min(ends) - now, 0.0) if ends else FOREVER


def completion_of(future: Future[Any], driver: Driver) -> tuple[Callable[[Any], Any], Any]:
    """How a driver gets what a Future that is done gave."""
    try:
        return driver.answer, future.result()
    except BaseException as error:
        return driver.fail, error


def wait_timed_out() -> errors.DeadlineExceeded:
    """What is raised into a flow whose Future has not come in time."""
    return errors.DeadlineExceeded("the deadline passed while an interceptor waited", local=True)


def locally_cancelled() -> errors.Cancelled:
    """What a flow or a part of an RPC gets when the application has cancelled it."""
    return errors.Cancelled(LOCALLY_CANCELLED, local=True)


def no_waiting(step: Wait) -> TypeError:
    """What is raised into a flow that waits for an awaitable on a sync channel or server."""
    close = getattr(step.awaitable, "close", None)
    if close is not None:  # a coroutine that will never be awaited
        close()
    if type(step.awaitable).__name__ == "async_generator_asend":  # of the interceptor itself
        return TypeError(f"interceptor {step.asker} is an `async def` generator, and this server is a sync one")
    return TypeError(
        f"interceptor {step.asker} waits for {kind_of(step.awaitable)}, and {NO_WAITING}: "
        "pass it the plain value, from the sync version of what made it"
    )
