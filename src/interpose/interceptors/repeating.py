"""What `Retry` and `Hedge` have in common: which calls may be executed twice, which failures pass, what servers ask."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from typing import TypeAlias

from grpc import StatusCode

from interpose._call import Call
from interpose._executed import is_downstream, told_by_server
from interpose._method import Idempotency, Side
from interpose._outcome import Outcome
from interpose._wording import EXONERATING, INCRIMINATING, Meaning, meaning_of, sent_by_peer
from interpose.errors import StatusError
from interpose.mechanisms import pushback
from interpose.mechanisms.options import flag_or_function, must_be, whole

ATTEMPT = "x-retry-attempt"  # as go-grpc-middleware has it; `grpc-previous-rpc-attempts` is for gRPC's core alone

UNAVAILABLE = frozenset({StatusCode.UNAVAILABLE})

# What refuses a call on this side answers one of these (gRFC A54); any other local status is a fault that stays.
PASSING = frozenset({StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED})

REPEATABLE = frozenset({Idempotency.NO_SIDE_EFFECTS, Idempotency.IDEMPOTENT})

MAX_BUFFER = 2**31 - 1  # bytes; no message of gRPC is larger
BUFFER = whole(0, MAX_BUFFER, " of bytes")
MAX_METHODS = 1024  # of which something is remembered; what a proxy passes on may have any name


class Convention(enum.Enum):
    """Another answer to what `safe` asks: `Retry(safe=BY_CONVENTION)`."""

    BY_CONVENTION = "UNAVAILABLE without metadata means that the call was not executed"


BY_CONVENTION = Convention.BY_CONVENTION

Declared: TypeAlias = bool | Callable[[Call], bool] | None
Safe: TypeAlias = Declared | Convention


def is_safe(safe: Safe, call: Call, presumed: bool = False) -> bool:
    """May the call be executed twice? presumed: what another option says, where `safe` leaves it open."""
    if safe is None or isinstance(safe, Convention):
        return presumed or call.method.idempotency_level in REPEATABLE
    return safe if isinstance(safe, bool) else safe(call)


def was_not_executed(call: Call, outcome: Outcome, before: int, unconnected: bool = False) -> bool:
    """Is it certain that no server has executed the call?

    before: the attempts that the RPC had made when it was sent. unconnected: is it known of that moment that the channel
    could not connect, and that the call does not wait until it can?

    It never left, for an interceptor further in refused it or there were no credentials; no connection was made; the
    connection ended before the server looked at it (GOAWAY); or a server of ours says that it refused it. A status that
    a server or a proxy sent proves nothing else: a handler may have passed on what its own dependency said. Nor does
    REFUSED_STREAM, which proxies send as well.
    """
    if not outcome.attempts:
        return outcome.local and not is_downstream(outcome.error)
    if call.side is Side.SERVER or outcome.attempts - before > 1:  # the handler ran; or an interceptor sent it twice
        return False
    told = told_by_server(call, outcome.trailing_metadata)
    if told is not None:
        return told
    if outcome.initial_metadata or outcome.trailing_metadata or sent_by_peer(_debug_text(outcome)):
        return False  # not grpc's own words, but a server's
    if says_unconnected(outcome):  # so a server may say of its dependency; but to that server there is a connection
        return unconnected or cannot_connect(call)
    return meaning_of(outcome.code, outcome.details) in EXONERATING


def says_unconnected(outcome: Outcome) -> bool:
    """Are these the words of a channel that could not connect?"""
    return meaning_of(outcome.code, outcome.details) is Meaning.UNCONNECTED


def cannot_connect(call: Call) -> bool:
    """Is the channel known to have no connection at the moment, since none could be made?"""
    return call.method.target is not None and call.method.target.cannot_connect()


def _debug_text(outcome: Outcome) -> str:
    return str(getattr(outcome.error, "_debug_error_string", ""))


def was_not_executed_by_convention(call: Call, outcome: Outcome) -> bool:
    """Was it UNAVAILABLE without metadata in front, and nothing says that the call may have been under way?"""
    return (
        outcome.code is StatusCode.UNAVAILABLE
        and not outcome.initial_metadata
        and meaning_of(outcome.code, outcome.details) not in INCRIMINATING
        and told_by_server(call, outcome.trailing_metadata) is not False
    )


def are_failures(codes: object) -> bool:
    """Is it a collection of status codes, all of them failures?"""
    return isinstance(codes, Collection) and all(
        isinstance(code, StatusCode) and code is not StatusCode.OK for code in codes
    )


SAFE = flag_or_function("the call")
FAILURES = must_be("a set like {StatusCode.UNAVAILABLE}, without OK", are_failures)
SOME_FAILURES = must_be(
    "a set like {StatusCode.UNAVAILABLE}, without OK", lambda codes: are_failures(codes) and len(codes) > 0
)


def numbered(call: Call, number: int) -> Call:
    """The call of a retry or of a further copy: a client says to the server which one it is."""
    return call if call.side is Side.SERVER else call.without_metadata(ATTEMPT).with_metadata((ATTEMPT, str(number)))


def asked_by_server(outcome: Outcome) -> float | None:
    """Seconds after which it wants the call again, or NO_MORE; None: it does not say."""
    return pushback.parse(outcome.trailing_metadata, lambda: outcome.error_details)


def may_pass(outcome: Outcome, codes: Collection[StatusCode]) -> bool:
    """Is it one of these codes, and could it be otherwise next time?

    Not with a bug in a handler, a fault on this side, or a message that is too large. What a proxy answers counts as
    UNAVAILABLE also where the core missed its HTTP status.
    """
    error, meaning = outcome.error, meaning_of(outcome.code, outcome.details)
    code = StatusCode.UNAVAILABLE if meaning is Meaning.WITHOUT_STATUS else outcome.code
    passes = isinstance(error, StatusError) and (not error.local or outcome.code in PASSING)
    return passes and meaning is not Meaning.TOO_LARGE and (code in codes or outcome.code in codes)
