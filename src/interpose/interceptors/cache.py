"""An answer that was good a moment ago is good still: answer the same call again without sending it."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterable
from dataclasses import dataclass

from interpose._call import Call
from interpose._clock import FOREVER, SYSTEM, Clock
from interpose._flow import Flow
from interpose._outcome import Outcome
from interpose.interceptors.answers import (
    Copy,
    Key,
    Safe,
    Sameness,
    copied,
    given,
    hooked,
    listed,
    requirements,
    unhooked,
)
from interpose.mechanisms.lru import Lru
from interpose.mechanisms.options import insist, is_clock, is_seconds, is_whole

CACHE = "x-cache"
HIT = (CACHE, "hit")

MOST = 10**6  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState:
    """What a `Cache` holds. entries: answers, those included that are out of date and not yet dropped."""

    entries: int


class Cache:
    """Answer a call as the same call was answered up to `ttl` seconds ago. Nothing is sent then. Client.

    For methods with one request and one response whose proto says `idempotency_level = NO_SIDE_EFFECTS`; other calls
    pass untouched. Two calls are the same if the channel, the method, the bytes of the request, the values of the keys
    in `metadata` and whoever asks are. Who asks: all metadata with "authorization" or "cookie" in its key, of the call
    and of the RPC whose handler makes it, and the call's own credentials. So put it inside of interceptors that add
    such, and outside of `Retry`.

    Only answers of the server are kept, OK ones. A hit has their metadata, and `x-cache: hit` in the trailing metadata.

    ttl:         seconds for which an answer is given, from when its call was sent; there is no right one for all.
    max_entries: answers that are kept; of the rest the one used longest ago is dropped. Their size is not limited.
    metadata:    keys of which the answer depends, like ("accept-language", "x-tenant").
    shared:      True: the answer is the same whoever asks, and is given to anybody.
    safe:        True, or a function of the call: also where the proto does not say so. False: never.
    copy:        makes each caller a response of its own. None: they all get the same object; for responses that nobody
                 can change.
    clock:       where the time is read.
    """

    def __init__(
        self,
        ttl: float,
        *,
        max_entries: int = 1000,
        metadata: Iterable[str] = (),
        shared: bool = False,
        safe: Safe = None,
        copy: Copy = copying.deepcopy,
        clock: Clock = SYSTEM,
    ) -> None:
        names = listed(metadata)
        insist(
            "Cache",
            (is_seconds(ttl, FOREVER), f"ttl must be above 0 and below {FOREVER:g} seconds, not {ttl!r}"),
            (
                is_whole(max_entries, 1, MOST),
                f"max_entries must be a whole number from 1 to {MOST}, not {max_entries!r}",
            ),
            *requirements(metadata if names is None else names, shared, safe, copy),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
        )
        self._ttl = ttl
        self._max_entries = max_entries
        self._sameness = Sameness("Cache", names or (), shared, safe)
        self._copy = copy
        self._clock = clock
        self.clear()

    def __call__(self, call: Call) -> Flow:
        key = self._sameness.key(call)
        if key is None:
            yield call
            return None
        answers, now = self._answers, self._clock.now()
        kept = answers.get(key, now)
        answer = kept and copied(kept, self._copy)
        if answer is not None:
            return given(call, answer, HIT)
        outcome = yield unhooked(call)
        if outcome.ok and outcome.responses:  # not what an interceptor further in has made up
            kept = copied(outcome, self._copy)
            if kept is not None:
                answers.put(key, kept, now + self._ttl)  # from when it was sent: the server may have looked at once
        return hooked(call, outcome)

    def clear(self) -> None:
        """Forget all answers, those to calls that are under way included."""
        self._answers: Lru[Key, Outcome] = Lru(self._max_entries)

    def snapshot(self) -> CacheState:
        """What it holds at the moment."""
        return CacheState(entries=len(self._answers))
