"""What `Retry` and `Hedge` have in common: which calls may be executed twice, which failures pass, what servers ask."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from grpc import StatusCode

from interpose._call import Call
from interpose._method import Idempotency, Side
from interpose._outcome import Outcome
from interpose.errors import StatusError
from interpose.mechanisms import pushback

ATTEMPT = "x-retry-attempt"  # as go-grpc-middleware has it; `grpc-previous-rpc-attempts` is for gRPC's core alone

UNAVAILABLE = frozenset({StatusCode.UNAVAILABLE})

# What refuses a call on this side answers one of these (gRFC A54); any other local status is a fault that stays.
PASSING = frozenset({StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED})

REPEATABLE = frozenset({Idempotency.NO_SIDE_EFFECTS, Idempotency.IDEMPOTENT})

MAX_BUFFER = 2**31 - 1  # bytes; no message of gRPC is larger

Safe: TypeAlias = bool | Callable[[Call], bool] | None


def is_safe(safe: Safe, call: Call, presumed: bool = False) -> bool:
    """May the call be executed twice? presumed: what another option says, where `safe` is None."""
    if safe is None:
        return presumed or call.method.idempotency_level in REPEATABLE
    return safe if isinstance(safe, bool) else safe(call)


def numbered(call: Call, number: int) -> Call:
    """The call of a retry or of a further copy: a client tells the server which one it is."""
    return call if call.side is Side.SERVER else call.without_metadata(ATTEMPT).with_metadata((ATTEMPT, str(number)))


def asked_by_server(outcome: Outcome) -> float | None:
    """Seconds after which it wants the call again, or NO_MORE; None: it does not say."""
    return pushback.parse(outcome.trailing_metadata, lambda: outcome.error_details)


def may_pass(outcome: Outcome) -> bool:
    """Could it be otherwise next time? Not with a bug in a handler, or a fault on this side."""
    error = outcome.error
    return isinstance(error, StatusError) and (not error.local or outcome.code in PASSING)


def are_failures(codes: object) -> bool:
    """Is it a collection of status codes, all of them failures?"""
    return isinstance(codes, Collection) and all(
        isinstance(code, StatusCode) and code is not StatusCode.OK for code in codes
    )
