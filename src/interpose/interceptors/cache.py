"""An answer that was good a moment ago is good still: answer the same call again without sending it."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field

from interpose._call import Call
from interpose._clock import FOREVER
from interpose._flow import Flow
from interpose._outcome import Outcome
from interpose.interceptors.answers import (
    COPY,
    KEYS,
    SAFE,
    Copy,
    Key,
    Safe,
    Sameness,
    copied,
    given,
    hooked,
    listed,
    unhooked,
)
from interpose.mechanisms.lru import Lru
from interpose.mechanisms.options import FLAG, check_options, option, ruled, seconds, whole

CACHE = "x-cache"
HIT = (CACHE, "hit")

MOST = 10**6  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState:
    """What a `Cache` holds. entries: answers, those included that are out of date and not yet dropped."""

    entries: int


@dataclass(eq=False, repr=False)
class Cache:
    """Answer a call as the same call was answered up to `ttl` seconds ago. Nothing is sent then. Client.

    For methods with one request and one response whose proto says `idempotency_level = NO_SIDE_EFFECTS`; other calls
    pass untouched. Two calls are the same if the channel, the method, the bytes of the request, the values of the keys
    in `metadata` and the caller are. The caller is known by all metadata with "authorization" or "cookie" in its key, of
    the call and of the RPC whose handler makes it, and by the call's own credentials. So put it inside of interceptors
    that add such, and outside of `Retry`.

    Only answers of the server are kept, OK ones. A hit has their metadata, and `x-cache: hit` in the trailing metadata.

    ttl:         seconds for which an answer is given, from when its call was sent; there is no right one for all.
    max_entries: answers that are kept; of the rest the one used longest ago is dropped. Their size is not limited.
    metadata:    keys of which the answer depends, like ("accept-language", "x-tenant").
    shared:      True: the answer is the same for all callers, and is given to anybody.
    safe:        True, or a function of the call: also where the proto does not say so. False: never.
    copy:        makes each caller a response of its own. None: they all get the same object; for responses that cannot be
                 changed. A response that it cannot copy is not kept.

    `safe` and `copy` run where the RPC runs: on its thread, or in its event loop. What they raise is logged, and the call is
    sent. Defaults: max_entries 1000: a bound, and no advice, since the size of your responses is what counts.

    ValueError listing every fault of the options.
    """

    ttl: float = field(metadata=ruled(seconds(FOREVER)))
    _: KW_ONLY
    max_entries: int = option(1000, whole(1, MOST))
    metadata: Iterable[str] = option((), KEYS)
    shared: bool = option(False, FLAG)
    safe: Safe = option(None, SAFE)
    copy: Copy = option(copying.deepcopy, COPY)

    def __post_init__(self) -> None:
        self.metadata = listed(self.metadata)
        check_options(self)
        self._sameness = Sameness("Cache", self.metadata, self.shared, self.safe)
        self.clear()

    def __call__(self, call: Call) -> Flow:
        key = self._sameness.key(call)
        if key is None:
            yield call
            return None
        answers, now = self._answers, call.clock.now()
        kept = answers.get(key, now)
        answer = kept and copied(kept, self.copy)
        if answer is not None:
            return given(call, answer, HIT)
        outcome = yield unhooked(call)
        if outcome.ok and outcome.responses:  # not what an interceptor further in has made up
            kept = copied(outcome, self.copy)
            if kept is not None:
                answers.put(key, kept, now + self.ttl)  # from when it was sent: the server may have looked at once
        return hooked(call, outcome)

    def clear(self) -> None:
        """Forget all answers, those to calls that are under way included."""
        self._answers: Lru[Key, Outcome] = Lru(self.max_entries)

    def snapshot(self) -> CacheState:
        """What it holds at the moment."""
        return CacheState(entries=len(self._answers))
