"""The word of a server on whether a call was executed: a pair of its trailing metadata.

A guard that refuses a call before any handler has run says so, and the client may send that call again whatever it does:

    raise errors.ResourceExhausted("100 calls per second", trailing_metadata=not_executed(call, pushback=0.8))

The word names the method that was refused. So it proves nothing of another call: a handler that passes its dependency's
error on, trailing metadata and all, does not vouch for itself.
"""

from __future__ import annotations

import re

import grpc

from interpose._call import Call
from interpose._metadata import Metadata, Pair
from interpose._outcome import Outcome
from interpose._wording import MISLEADING, meaning_of
from interpose.mechanisms import pushback as pushbacks

KEY = "interpose-not-executed"

# For code that ends calls that may be running, like a server at the end of its grace: not even a client that takes
# UNAVAILABLE for "not processed", `safe=BY_CONVENTION`, sends them again.
MAY_HAVE_RUN: Pair = (KEY, "unknown")

_METHOD = re.compile(r"[\x21-\x7e]{1,1024}")  # what can travel; a peer may ask for methods of any name


def not_executed(call: Call, pushback: float | None = None) -> tuple[Pair, ...]:
    """Trailing metadata with which a guard on a server refuses a call that no handler has seen.

    `Retry` takes it as proof that the call may be sent again, safe or not. It is sent only if the RPC really ends without
    a handler having been called: of an RPC that has reached one it is taken out.

    call: the one that is refused. pushback: seconds after which it is welcome, `NO_MORE` for never, None for no wish.
    ValueError for a pushback below 0.
    """
    word = ((KEY, call.method.full_name),) if _METHOD.fullmatch(call.method.full_name) else ()
    return word if pushback is None else (*word, pushbacks.pair(pushback))


def told_by_server(call: Call, trailing: Metadata) -> bool | None:
    """Was this call not executed, by the word of the server? True: it was not; False: it may have been; None: no word."""
    words = trailing.get_all(KEY)
    if not words:
        return None
    method = call.method.full_name.removeprefix("/")
    return all(isinstance(word, str) and word.removeprefix("/") == method for word in words)


def vouched(outcome: Outcome) -> Metadata:
    """The trailing metadata that a server may send with a failure: with a word that it can vouch for.

    "Not executed" is left out once a handler was called, and of an error that came from an outgoing call: that is the
    word of another server. "May have run" is put in where the text would mislead a client: it is grpc's own for a call
    that was not sent, which a handler passes on.
    """
    trailing = outcome.trailing_metadata
    if KEY in trailing and (outcome.attempts or is_downstream(outcome.error)):
        others = [pair for pair in trailing if pair[0].lower() != KEY or tuple(pair) == MAY_HAVE_RUN]
        trailing = Metadata.trusted(others)
    if meaning_of(outcome.code, outcome.details) in MISLEADING and MAY_HAVE_RUN not in trailing:
        trailing = trailing.with_pairs(MAY_HAVE_RUN)
    return trailing


def is_downstream(error: BaseException | None) -> bool:
    """Is it the failure of a call that was made here? What a stub raises, bare or intercepted, is grpc's own call object.

    A status that a handler or an interceptor raises for its caller never is.
    """
    return isinstance(error, (grpc.Call, grpc.aio.AioRpcError))
