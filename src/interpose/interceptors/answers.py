"""Answers that serve more than one call: which calls are the same, and what each of them is given.

What `Cache` and `Coalesce` have in common.
"""

from __future__ import annotations

import copy as copying
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any, TypeAlias

from interpose import context
from interpose._call import Call
from interpose._messages import compose, show_initial_metadata
from interpose._metadata import Metadata
from interpose._method import Idempotency, Kind, Side, Target
from interpose._outcome import Outcome
from interpose.mechanisms.options import flag_or_function, is_function_or_none, must_be

# Parts of metadata keys that identify the caller. In any part of a key: gateways send "grpcgateway-authorization".
IDENTITIES = ("authorization", "cookie")

DIGEST = 32  # bytes

# Equal for calls that may have the same answer. Nothing in it can be read but the target.
Key: TypeAlias = "tuple[Target | None, Any, weakref.ref[Any] | None, bytes]"
Safe: TypeAlias = bool | Callable[[Call], bool] | None
Copy: TypeAlias = Callable[[Any], Any] | None

_log = logging.getLogger("interpose")


class Sameness:
    """Which calls may have the same answer, and which may not be asked that at all.

    owner: the interceptor, for the log. names: metadata keys that count. shared: the caller does not count.
    """

    def __init__(self, owner: str, names: Iterable[str], shared: bool, safe: Safe) -> None:
        self._owner = owner
        self._names = frozenset(name.lower() for name in names)
        self._shared = shared
        self._safe = safe
        self._secret = os.urandom(blake2b.MAX_KEY_SIZE)  # a digest of a weak password shows nothing without it

    def key(self, call: Call) -> Key | None:
        """Equal for two calls if the answer to one is one to the other; None for a call that needs its own."""
        if call.kind is not Kind.UNARY_UNARY or call.side is Side.SERVER or not self._is_safe(call):
            return None
        try:
            # Two stubs may decode differently; those that encode alike decode alike.
            key = (call.method.target, call.method.serializer, self._credentials(call), self._digest(call))
            hash(key)
        except Exception:  # a request or metadata that cannot be sent: let it be sent, and fail for what it is
            return None
        return key

    def _is_safe(self, call: Call) -> bool:
        """May another call's answer be given to this one, as far as the method goes?"""
        if self._safe is None:
            return call.method.idempotency_level is Idempotency.NO_SIDE_EFFECTS
        if isinstance(self._safe, bool):
            return self._safe
        try:
            return bool(self._safe(call))
        except Exception:
            _log.exception("%s: safe failed; %s is sent", self._owner, call.method)
            return False

    def _credentials(self, call: Call) -> weakref.ref[Any] | None:
        """Equal for the same object while it lives, and to nothing else afterwards. It is not kept alive."""
        return None if self._shared or call.credentials is None else weakref.ref(call.credentials)

    def _digest(self, call: Call) -> bytes:
        digest = blake2b(key=self._secret, digest_size=DIGEST)
        for part in self._parts(call):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()

    def _parts(self, call: Call) -> Iterator[bytes]:
        yield call.method.full_name.encode(errors="surrogatepass")
        yield call.encoded()
        yield from self._said(call.metadata)
        # The caller of the handler that makes this call: an interceptor further in may hand that on.
        incoming = context.current_call()
        yield from self._said(Metadata() if incoming is None else incoming.metadata)

    def _said(self, metadata: Metadata) -> Iterator[bytes]:
        """The pairs that count. Keys in any order, values of a key in theirs."""
        pairs = [(name.lower(), value) for name, value in metadata if self._counts(name.lower())]
        yield b"%d" % len(pairs)
        for name, value in sorted(pairs, key=lambda pair: pair[0]):
            yield name.encode()
            yield value if isinstance(value, bytes) else value.encode(errors="surrogatepass")

    def _counts(self, name: str) -> bool:
        return name in self._names or (not self._shared and any(part in name for part in IDENTITIES))


# --- answers --------------------------------------------------------------------------------------------------------


def unhooked(call: Call) -> Call:
    """The call without taps and maps of the response: what comes is still everybody's. `hooked` makes up for it."""
    return call._ask(responses=()) if call._asks.responses else call


def hooked(call: Call, outcome: Outcome) -> Outcome:
    """The outcome as taps and maps of the call leave it; raises the status that one of them ends it with."""
    hook = compose(call._asks.responses)
    if hook is None or not (outcome.ok and outcome.responses):  # what an interceptor makes up passes none
        return outcome
    return outcome.with_response(hook(outcome.response))


def given(call: Call, answer: Outcome, mark: tuple[str, str]) -> Outcome:
    """A copied answer, for a call that was not sent: marked, and seen by the call's taps as if it had come now."""
    if not answer.ok:
        return answer
    show_initial_metadata(call, answer.initial_metadata)
    marked = answer.trailing_metadata.without(mark[0]).with_pairs(mark)
    return hooked(call, answer._copy("_trailing_metadata", marked))


def copied(outcome: Outcome, copy: Copy) -> Outcome | None:
    """An outcome that shares nothing that can change with this one, nor its native call; None if that cannot be made."""
    try:
        error = _again(outcome.error)
        response = outcome.response if copy is None or not outcome.ok else copy(outcome.response)
    except Exception:
        _log.exception("an outcome could not be copied: no other call is given it")
        return None
    return Outcome(
        outcome.code,
        response,
        outcome.details,
        error,
        responses=outcome.responses,
        replayable=True,
        initial_metadata=outcome.initial_metadata,
        trailing_metadata=outcome.trailing_metadata,
    )


def _again(error: BaseException | None) -> BaseException | None:
    """Another of the kind, to be raised, and noted upon, on its own."""
    if error is None:
        return None
    twin = copying.copy(error)
    twin.__cause__ = error.__cause__
    if hasattr(error, "__notes__"):
        twin.__notes__ = list(error.__notes__)
    return twin


# --- options --------------------------------------------------------------------------------------------------------


def listed(names: Any) -> Any:
    """Metadata keys, read once; what is no list of anything is left as it is."""
    return tuple(names) if isinstance(names, Iterable) and not isinstance(names, (str, bytes)) else names


def _is_key(key: Any) -> bool:
    try:
        Metadata([(key, b"" if str(key).lower().endswith("-bin") else "")])
    except ValueError:
        return False
    return True


def _are_keys(names: Any) -> bool:
    return isinstance(names, tuple) and all(map(_is_key, names))


# What both insist on.
KEYS = must_be("a tuple of metadata keys, like ('x-tenant',)", _are_keys)
SAFE = flag_or_function("the call")
COPY = must_be("a function of a response, or None", is_function_or_none)
