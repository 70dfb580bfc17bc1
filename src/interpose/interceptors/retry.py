"""Send again what failed for a reason that passes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from grpc import StatusCode

from interpose._call import DEFAULT_BUFFER, Call
from interpose._clock import FOREVER
from interpose._details import GONE
from interpose._flow import MAX_RESENDS, Chain, Flow
from interpose._method import Kind, Side
from interpose._outcome import Outcome
from interpose.interceptors.repeating import (
    ATTEMPT,
    BUFFER,
    BY_CONVENTION,
    MAX_METHODS,
    SOME_FAILURES,
    UNAVAILABLE,
    Convention,
    Safe,
    asked_by_server,
    cannot_connect,
    is_safe,
    may_pass,
    numbered,
    says_unconnected,
    was_not_executed,
    was_not_executed_by_convention,
)
from interpose.mechanisms.backoff import Backoff, exponential
from interpose.mechanisms.budget import BUDGET, Budget, RetryBudget
from interpose.mechanisms.once import Once
from interpose.mechanisms.options import (
    check_options,
    hook,
    is_flag,
    is_function_or_none,
    is_seconds,
    is_whole,
    must_be,
    option,
    optional,
    ruled,
)
from interpose.mechanisms.pushback import NO_MORE
from interpose.mechanisms.text import counted

__all__ = ["ATTEMPT", "BY_CONVENTION", "Retry", "RetryDetails", "RetryState"]

DELIVERED = "a response had been delivered"
UNSAFE = "it may have been executed, and nothing says that it is safe to do so twice"

_log = logging.getLogger("interpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDetails:
    """What `on_retry` is given before each retry.

    call: what is sent again. outcome: how the last attempt ended. number: of the retry, from 1; it begins anew when a
    stream that was resumed has delivered something. pause: in seconds.
    """

    call: Call
    outcome: Outcome
    number: int
    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryState:
    """What a `Retry` has done so far: retries; and how many more it would have sent, but its budget was used up."""

    retries: int
    over_budget: int


# - what holds of its options -

BACKOFF = must_be("a function like exponential(0.1, cap=5.0)", callable)


def _is_attempts(value: object) -> bool:
    return is_whole(value, 1, MAX_RESENDS)


def _is_safe(value: object) -> bool:
    return is_flag(value) or is_function_or_none(value) or isinstance(value, Convention)


def _is_time(value: object) -> bool:
    return is_seconds(value, FOREVER)


def _are_errors(errors: object) -> bool:
    return isinstance(errors, tuple) and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in errors)


@dataclass(eq=False, repr=False)
class Retry:
    """Send a call again while it fails with one of `codes`, after a pause that grows.

    A call that is not declared safe is sent again only if it is certain that it was not executed. It never left, or
    no connection was made; a GOAWAY says that the server did not look at it; or a limiter of ours refused it. What a
    server or a proxy says of itself, UNAVAILABLE and REFUSED_STREAM included, proves nothing. The log says once per
    method, at INFO, when that alone was in the way, and what to do.

    Never once a response message has been delivered, unless `resume` says how to go on. No retry outlives the deadline:
    if the pause would, the last failure is the answer now. The failure that the caller sees is the server's own, with a
    note with the number of attempts, and why there was no other. Each retry carries its number in the metadata, as
    `x-retry-attempt`.

    The server has a say. After `grpc-retry-pushback-ms` in its trailing metadata, or a `google.rpc.RetryInfo`, the
    pause is exactly that, and the backoff begins anew. A negative number, or none that can be read, means no retry.

    On a server the handler is called again when it failed with a status or with one of `errors`, and has not read of
    a request stream. The caller sees one RPC.

    attempts: how often a call is sent at most, the first time included.
    codes:    the status codes that are worth another attempt.
    backoff:  number of the retry → seconds to pause before it; see `mechanisms.backoff`.
    budget:   what keeps retries from multiplying an outage; see `mechanisms.budget`. It may be shared. None: a
              `RetryBudget()` of its own.
    safe:     may a call be executed twice? None: yes if its proto says so (`idempotency_level` NO_SIDE_EFFECTS or
              IDEMPOTENT). True, False, or a function of the call: you say. BY_CONVENTION: as None, but UNAVAILABLE
              without metadata in front of it is taken for "not executed", unless the connection or the server ended
              under the call, or a proxy answered with an HTTP status. Servers that pass their dependencies' failures
              on, and proxies, do not keep to that.
    retry_if: a function of the outcome. True: it is worth another attempt whatever its code, also OK; False: it is not;
              None: the codes decide. The call has to be safe all the same. What it raises is logged, and means None.
    per_attempt: seconds in which the server has to begin to answer (client; see `Call.answered_within`). An attempt
              that takes longer is retried, if the call is safe.
    buffer:   bytes of a request stream that are kept while it is sent (client); beyond them the call is sent once.
    resume:   a function of the call and the last response that was delivered, for response streams of calls with one
              request (client). It gives the call that asks for what comes after, or None to keep the failure. The
              call is the first one, as it came. With each message that comes, attempts and backoff begin anew. That it
              is given says that such calls are safe, unless `safe` denies it. If it raises, the failure is kept.
    errors:   exceptions of a handler that are worth calling it again (server). To name one says that it left nothing
              half done, unless `safe` denies it.
    on_retry: called with `RetryDetails` before each retry, to count them; what it raises is logged.

    The functions run where the RPC runs: on its thread, or in its event loop; for a stream on the thread that reads it, or
    on one of grpc's.
    What `safe` and `backoff` raise ends the call with the failure that it had.
    Defaults: 4 attempts, and 0.1 s before the first retry, are those of the example in gRFC A6; 256 KiB is the
    per-RPC retry buffer of gRPC's core.

    ValueError listing every fault of the options.

    gRPC's core retries on its own if the service config says so, and the two multiply: see `channel_options`.
    """

    from_service_config: ClassVar[Callable[..., Chain]]  # `service_config.from_service_config`, set there: it makes us

    attempts: int = option(4, must_be(f"a whole number from 1 (never again) to {MAX_RESENDS}", _is_attempts))
    _: KW_ONLY
    codes: Collection[StatusCode] = option(UNAVAILABLE, SOME_FAILURES)
    backoff: Backoff = field(default_factory=lambda: exponential(0.1, cap=5.0), metadata=ruled(BACKOFF))
    budget: Budget | None = option(None, BUDGET)
    safe: Safe = option(None, must_be("None, True, False, BY_CONVENTION or a function of the call", _is_safe))
    retry_if: Callable[[Outcome], bool | None] | None = option(None, hook("the outcome"))
    per_attempt: float | None = option(None, optional(f"above 0 and below {FOREVER:g} seconds", _is_time))
    buffer: int = option(DEFAULT_BUFFER, BUFFER)
    resume: Callable[[Call, Any], Call | None] | None = option(None, hook("(call, last response)"))
    errors: tuple[type[Exception], ...] = option(
        (), must_be("a tuple of exception classes, like (KeyError,)", _are_errors)
    )
    on_retry: Callable[[RetryDetails], object] | None = option(None, hook("RetryDetails"))

    def __post_init__(self) -> None:
        check_options(self)
        self._codes = frozenset(self.codes)
        self._budget = RetryBudget() if self.budget is None else self.budget
        self._unsafe = Once(MAX_METHODS)  # the methods of which it was said
        self._retries = self._over_budget = 0

    @staticmethod
    def channel_options(options: Iterable[tuple[str, Any]] | None = ()) -> list[tuple[str, Any]]:
        """These channel options, with gRPC's own retries off: `grpc.insecure_channel(target, Retry.channel_options())`.

        If a "grpc.service_config" among them has a retryPolicy, the log says once that it is off. Left on, core would
        send each attempt of ours several times. Only here can that be seen: a channel of grpcio does not show the options
        that it was made with, nor what service config it was given by name resolution.

        Core's silent repetition of what a server that goes away has not looked at is off with them: methods without
        a `Retry` see UNAVAILABLE then.
        """
        kept = [option for option in options or () if option[0] != "grpc.enable_retries"]
        if any(key == "grpc.service_config" and _has_retry_policy(config) for key, config in kept):
            _say_that_it_is_off()
        return [*kept, ("grpc.enable_retries", 0)]

    def __call__(self, call: Call) -> Flow:
        course = self._begin(call)
        outcome = yield course.call
        while (retry := self._next(course, outcome)) is not None:
            self._tell(retry)
            outcome = yield retry.call
        course.note(outcome)

    def snapshot(self) -> RetryState:
        """What it has done so far."""
        return RetryState(retries=self._retries, over_budget=self._over_budget)

    def _begin(self, call: Call) -> _Course:
        """What is sent at first, ready to be sent again."""
        self._budget.began(call.clock.now())
        course = _Course(call)
        if call.side is Side.CLIENT:
            if call.kind.request_streaming and call._asks.buffer is None:
                course.call = course.call.buffered(self.buffer)
            if self.per_attempt is not None:
                course.call = course.call.answered_within(self.per_attempt)
            if self._resumes(call):
                course.call = course.call.tap(responses=course.hear)
        return course

    def _next(self, course: _Course, outcome: Outcome) -> RetryDetails | None:
        """The retry that follows this outcome; None: the outcome is kept."""
        if outcome.ok and self.retry_if is None:  # most end here
            self._budget.succeeded(course.call.clock.now())
            return None
        course.delivered += outcome.responses
        course.obstacle = ""
        worth = self._is_worth_it(course.call, outcome)
        asked = None if outcome.ok and not worth else asked_by_server(outcome)
        self._report(course.call.clock.now(), outcome, worth, asked)
        if not worth:
            return None
        if course.number + 1 >= self.attempts:
            course.obstacle = self._used_up(course) if self.attempts > 1 else ""
            return None
        if not (course.received or outcome.replayable):
            course.obstacle = _gone(course.call, outcome)
            return None
        pause = self.backoff(course.step + 1) if asked is None else asked
        course.obstacle = self._no_use(course.call, pause)
        call = None if course.obstacle else self._again(course, outcome)
        if call is None:
            return None
        if not self._budget.spend(course.call.clock.now()):  # asked last: a yes is counted
            course.obstacle = "the budget for retries is used up"
            self._over_budget += 1
            return None
        self._retries += 1
        number = course.count(asked is None)
        call = course.watched(numbered(call, number), outcome).after(pause)
        return RetryDetails(call=call, outcome=outcome, number=number, pause=pause)

    def _used_up(self, course: _Course) -> str:
        """That all attempts were made; of a stream that went on, all since its last message."""
        if course.received:
            return f"{counted(self.attempts - 1, 'attempt')} brought no message"
        return f"all {self.attempts} were made"

    # - is it worth it? -

    def _is_worth_it(self, call: Call, outcome: Outcome) -> bool:
        """Could another attempt end better?"""
        if _is_over(call, outcome):
            return False
        said = self._said(outcome)
        if said is not None:
            return bool(said)
        return may_pass(outcome, self._codes) or self._is_named(call, outcome) or self._took_too_long(call, outcome)

    def _said(self, outcome: Outcome) -> bool | None:
        """What `retry_if` thinks of it."""
        if self.retry_if is None:
            return None
        try:
            return self.retry_if(outcome)
        except Exception:
            _log.exception("retry_if failed; the status code decides")
            return None

    def _is_named(self, call: Call, outcome: Outcome) -> bool:
        """Did the handler raise one of `errors`?"""
        return call.side is Side.SERVER and isinstance(outcome.error, self.errors)

    def _took_too_long(self, call: Call, outcome: Outcome) -> bool:
        """Was it `per_attempt` that passed, and not the deadline of the RPC?"""
        return (
            self.per_attempt is not None
            and outcome.code is StatusCode.DEADLINE_EXCEEDED
            and call.side is Side.CLIENT
            and (call.deadline is None or call.clock.now() < call.deadline)
        )

    def _report(self, now: float, outcome: Outcome, worth: bool, asked: float | None) -> None:
        """Report an attempt to the budget (gRFC A6); failures that do not pass make no difference to it."""
        if worth or asked == NO_MORE:
            self._budget.failed(now)
        elif outcome.ok:
            self._budget.succeeded(now)

    # - may it be sent again? -

    def _again(self, course: _Course, outcome: Outcome) -> Call | None:
        """What to send, if the call can be sent again."""
        if course.received:
            return self._resumed(course)
        if self._bears_it(course, outcome):
            return course.call
        course.obstacle = UNSAFE
        if self._unsafe.first(course.call.method.full_name):
            _log.info(
                "Retry does not send %s again, which ended with %s: %s. If it is, set idempotency_level in its proto, "
                'or write Retry(safe=True) for it; see "Retry" in the documentation',
                course.call.method,
                outcome.code.name,
                UNSAFE,
            )
        return None

    def _bears_it(self, course: _Course, outcome: Outcome) -> bool:
        """Is the call safe to execute twice, or certain not to have been executed once?"""
        call = course.call
        presumed = self._resumes(call) or self._is_named(call, outcome)
        return (
            is_safe(self.safe, call, presumed)
            or was_not_executed(call, outcome, course.sent, course.unconnected)
            or (self.safe is BY_CONVENTION and was_not_executed_by_convention(call, outcome))
        )

    def _resumes(self, call: Call) -> bool:
        """Is there a way to go on with the response stream of such a call?"""
        return self.resume is not None and call.side is Side.CLIENT and call.kind is Kind.UNARY_STREAM

    def _resumed(self, course: _Course) -> Call | None:
        """The call that goes on behind the last message."""
        course.obstacle = DELIVERED  # unless it goes on behind the last one
        whole = course.received == course.delivered  # no interceptor further out refused the last message
        if self.resume is None or not whole or not is_safe(self.safe, course.call, presumed=True):
            return None
        try:
            call = self.resume(course.call, course.last)
            return call if call is None else call.resumed()
        except Exception as error:
            _log.exception("resume failed; the stream ends with the failure it had")
            course.obstacle = f"resume raised {type(error).__name__}"
            return None

    def _no_use(self, call: Call, pause: float) -> str:
        """Why another attempt would be of no use; empty if it might be."""
        if pause == NO_MORE:
            return "the server asked not to be tried again"
        if call.deadline is not None and call.clock.now() + pause >= call.deadline:
            return f"a pause of {pause:.3g} s would outlive the deadline"
        return ""

    def _tell(self, retry: RetryDetails) -> None:
        if self.on_retry is not None:
            try:
                self.on_retry(retry)
            except Exception:
                _log.exception("on_retry failed; the call is sent again all the same")


class _Course:
    """How one RPC has gone so far.

    call: what was sent at first. number: of the last retry; step: of the backoff. sent: attempts of the RPC up to it;
    unconnected: could the channel not connect when it was sent? received, last: how many messages have come that could be
    resumed behind, and the last of them; delivered: how many have reached the caller. obstacle: why a retry that was
    worth it was not made.
    """

    __slots__ = ("call", "delivered", "last", "number", "obstacle", "received", "sent", "step", "unconnected")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.number = self.step = self.sent = self.received = self.delivered = 0
        self.last: Any = None
        self.obstacle = ""
        self.unconnected = False

    def hear(self, message: Any) -> None:
        """The stream makes progress: all begins anew."""
        self.received += 1
        self.last = message
        self.number = self.step = 0

    def count(self, by_backoff: bool) -> int:
        """One retry more; its number. After a pause that the server chose, the backoff begins anew."""
        self.number += 1
        self.step = self.step + 1 if by_backoff else 0
        return self.number

    def watched(self, call: Call, outcome: Outcome) -> Call:
        """The call that follows this outcome; if there was no connection, see whether there is one when it is sent.

        Looked at behind the failure only, one that has just come about would hide that there was none.
        """
        self.sent = max(self.sent, outcome.attempts)
        self.unconnected = False

        def look(_: object) -> None:
            self.unconnected = cannot_connect(call)

        return call.tap(requests=look) if says_unconnected(outcome) and call.side is Side.CLIENT else call

    def note(self, outcome: Outcome) -> None:
        """Note on the failure the number of attempts, and why there was no other."""
        if outcome.error is None or outcome.ok or not (outcome.attempts > 1 or self.obstacle):
            return
        why = f": {self.obstacle}" if self.obstacle else ""
        outcome.error.add_note(f"Retry: attempt {max(outcome.attempts, 1)} was the last{why}")


def _is_over(call: Call, outcome: Outcome) -> bool:
    """Does no caller wait for the RPC any more? It was cancelled here; or on a server, its client or the server has gone."""
    gone = call.side is Side.SERVER and outcome.details == GONE.get(outcome.code)
    return outcome.local and (outcome.code is StatusCode.CANCELLED or gone)


def _gone(call: Call, outcome: Outcome) -> str:
    """Why a call cannot be sent again, whatever its failure is."""
    if call.side is Side.SERVER:
        return "its handler had begun to answer" if outcome.responses else "its handler had read of its requests"
    return DELIVERED if outcome.responses else "more of its requests was sent than `buffer` keeps"


# --- options --------------------------------------------------------------------------------------------------------


def _has_retry_policy(config: Any) -> bool:
    """Does a service config want retries? One that cannot be read is for gRPC to judge."""
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        return any("retryPolicy" in method for method in json.loads(config)["methodConfig"])
    return False


_unsaid = [True]  # the thread that pops it says it


def _say_that_it_is_off() -> None:
    with suppress(IndexError):
        _unsaid.pop()
        _log.warning(
            "the retryPolicy of this channel's service config is switched off, or gRPC's core would retry as well, and "
            "the two multiply; Retry.from_service_config(…) takes it over"
        )
