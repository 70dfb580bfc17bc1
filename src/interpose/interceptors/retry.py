"""Send again what failed for a reason that passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from grpc import StatusCode

from interpose._call import Call
from interpose._clock import SYSTEM, Clock
from interpose._flow import MAX_RESENDS, Flow
from interpose._method import Idempotency, Side
from interpose._outcome import Outcome
from interpose.errors import StatusError
from interpose.mechanisms.backoff import Backoff, exponential
from interpose.mechanisms.options import insist, is_clock, is_flag, is_function_or_none, is_whole

ATTEMPT = "x-retry-attempt"  # as go-grpc-middleware has it; `grpc-previous-rpc-attempts` is for gRPC's core alone

UNAVAILABLE = frozenset({StatusCode.UNAVAILABLE})

# What refuses a call on this side answers one of these (gRFC A54); any other local status is a fault that stays.
PASSING = frozenset({StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED})

REPEATABLE = frozenset({Idempotency.NO_SIDE_EFFECTS, Idempotency.IDEMPOTENT})

_log = logging.getLogger("interpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDetails:
    """What `on_retry` is told before each retry.

    call: what is sent again. outcome: how the last attempt ended. number: of the retry, from 1. pause: in seconds.
    """

    call: Call
    outcome: Outcome
    number: int
    pause: float


class Retry:
    """Send a call again while it fails with one of `codes`, after a pause that grows.

    Never once a response message has been delivered. A request stream is kept while it is sent, up to 256 KiB; beyond
    that the call is sent once. No retry outlives the deadline: if the pause would, the last failure is the answer now.
    The failure that the caller sees is the server's own, with a note that tells the number of attempts.
    On a client each retry carries its number in the metadata, as `x-retry-attempt`. On a server the handler is called
    again, when it failed with a status; the caller sees one RPC.

    attempts: how often a call is sent at most, the first time included.
    codes:    the status codes that are worth another attempt.
    backoff:  number of the retry → seconds to pause before it; see `mechanisms.backoff`.
    safe:     may a call be executed twice? None: yes if its proto says so (`idempotency_level` NO_SIDE_EFFECTS or
              IDEMPOTENT). True, False, or a function of the call: you say. A call that is not safe is retried on
              UNAVAILABLE alone, and only if the server had sent no metadata: then, by convention, it was not processed.
    clock:    where deadlines are read; the one that was given to the channel or server.
    on_retry: called with `RetryDetails` before each retry, to count them; what it raises is logged.

    gRPC's core retries on its own if the service config says so, and the two multiply: make channels with the option
    ("grpc.enable_retries", 0).
    """

    def __init__(
        self,
        attempts: int = 4,
        *,
        codes: Collection[StatusCode] = UNAVAILABLE,
        backoff: Backoff = exponential(0.1, cap=5.0),  # noqa: B008  it keeps no state
        safe: bool | Callable[[Call], bool] | None = None,
        clock: Clock = SYSTEM,
        on_retry: Callable[[RetryDetails], object] | None = None,
    ) -> None:
        insist(
            "Retry",
            (
                is_whole(attempts, 1, MAX_RESENDS),
                f"attempts must be a whole number from 1 (never again) to {MAX_RESENDS}, not {attempts!r}",
            ),
            (_are_failures(codes), f"codes must be a set like {{StatusCode.UNAVAILABLE}}, without OK, not {codes!r}"),
            (callable(backoff), f"backoff must be a function like exponential(0.1, cap=5.0), not {backoff!r}"),
            (
                is_flag(safe) or is_function_or_none(safe),
                f"safe must be None, True, False or a function of the call, not {safe!r}",
            ),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
            (
                is_function_or_none(on_retry),
                f"on_retry must be a function of RetryDetails, not {on_retry!r}",
            ),
        )
        self._attempts = attempts
        self._codes = frozenset(codes)
        self._backoff = backoff
        self._safe = safe
        self._clock = clock
        self._on_retry = on_retry

    def __call__(self, call: Call) -> Flow:
        if call.side is Side.CLIENT and call.kind.request_streaming and call._asks.buffer is None:
            call = call.buffered()
        outcome = yield call
        for number in range(1, self._attempts):
            if not self._repeatable(call, outcome):
                break
            pause = self._backoff(number)
            if call.deadline is not None and self._clock.now() + pause >= call.deadline:
                break
            self._tell(call, outcome, number, pause)
            outcome = yield _numbered(call, number).after(pause)
        if not outcome.ok and outcome.attempts > 1 and outcome.error is not None:
            outcome.error.add_note(f"Retry: attempt {outcome.attempts} was the last")

    def _repeatable(self, call: Call, outcome: Outcome) -> bool:
        """Is this failure worth another attempt, and does the call bear one?"""
        return (
            outcome.code in self._codes
            and outcome.replayable
            and _may_pass(outcome)
            and (_was_not_processed(outcome) or self._is_safe(call))
        )

    def _is_safe(self, call: Call) -> bool:
        if self._safe is None:
            return call.method.idempotency_level in REPEATABLE
        return self._safe if isinstance(self._safe, bool) else self._safe(call)

    def _tell(self, call: Call, outcome: Outcome, number: int, pause: float) -> None:
        if self._on_retry is not None:
            try:
                self._on_retry(RetryDetails(call=call, outcome=outcome, number=number, pause=pause))
            except Exception:
                _log.exception("on_retry failed; the call is sent again all the same")


def _numbered(call: Call, number: int) -> Call:
    """The call of a retry: a client tells the server which one it is."""
    return call if call.side is Side.SERVER else call.without_metadata(ATTEMPT).with_metadata((ATTEMPT, str(number)))


def _may_pass(outcome: Outcome) -> bool:
    """Could it be otherwise next time? Not with a bug in a handler, or a fault on this side."""
    error = outcome.error
    return isinstance(error, StatusError) and (not error.local or outcome.code in PASSING)


def _was_not_processed(outcome: Outcome) -> bool:
    return outcome.code is StatusCode.UNAVAILABLE and not outcome.initial_metadata


def _are_failures(codes: object) -> bool:
    return (
        isinstance(codes, Collection)
        and len(codes) > 0
        and all(isinstance(code, StatusCode) and code is not StatusCode.OK for code in codes)
    )
