"""How often: refuse or delay calls that come faster than a limit, for each caller."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

from grpc import StatusCode

from interpose import errors
from interpose._call import NOTHING, Call
from interpose._clock import SYSTEM, Clock
from interpose._executed import not_executed
from interpose._flow import Flow, wait
from interpose._kind import kind_of
from interpose._metadata import Pair
from interpose._method import Side
from interpose.interceptors.keys import by_identity
from interpose.mechanisms import pushback
from interpose.mechanisms.gcra import Gcra, Together
from interpose.mechanisms.options import FLAG, check_options, hook, insist, is_flag, is_whole, must_be, option, optional
from interpose.mechanisms.rate import Rate
from interpose.mechanisms.seldom import Seldom
from interpose.mechanisms.text import counted

__all__ = [
    "Limit",
    "LocalStore",
    "Rate",
    "RateLimit",
    "RateLimitState",
    "RateLimited",
    "RefusalDetails",
]

_log = logging.getLogger("interpose")

NANOSECONDS = 10**9  # in a second

MAX_KEYS = 100_000  # of one store; 25 MB at most
MAX_KEY = 16  # characters; a longer key is kept as its digest, so that no peer decides how much memory it takes
MAX_CACHED = 256  # characters of a key whose digest is remembered, like the name of a method
MAX_LIMITS = 16  # for one call
LONGEST_WAIT = 3600.0  # seconds

LIMIT, REMAINING, RESET = "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"

Key: TypeAlias = Callable[[Call], str | None]
Keys: TypeAlias = tuple[str | None, ...]  # of one call: one per rate; None: that rate does not count it
Early: TypeAlias = tuple[int, ...]  # by how many nanoseconds a call comes too early, for each limit; 0 or less: in time
Decision: TypeAlias = Early | None  # None: the store does not answer, and the call passes unchecked


def bounded(key: object) -> str | None:
    """The key as it is kept: of no more than `MAX_KEY` characters. TypeError for one that is no text."""
    if isinstance(key, str):
        if len(key) <= MAX_KEY:
            return key
        return digest(key) if len(key) <= MAX_CACHED else digest.__wrapped__(key)
    if key is None:
        return None
    raise TypeError(f"RateLimit: key must give a text, or None for a call that is not limited, not {kind_of(key)}")


@lru_cache(4096)
def digest(key: str) -> str:
    """A text of `MAX_KEY` characters, 96 bits, that no other key has."""
    code = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=MAX_KEY * 6 // 8).digest()
    return urlsafe_b64encode(code).decode("ascii")


# --- what users see -------------------------------------------------------------------------------------------------


class RateLimited(errors.ResourceExhausted):
    """RESOURCE_EXHAUSTED, made here: the call came faster than a limit lets it, and no handler was called.

    retry_in: seconds until one may pass.
    """

    retry_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate with a key of its own: `Limit("1000/second", key=by_method)`.

    rate: a `Rate`, or a text like "100/second". key: None: that of the `RateLimit`.
    """

    rate: Rate | str
    key: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalDetails:
    """What `on_refuse` is given of a call that came too early.

    limit: the rate that it has to wait for longest. key: whose count that is. retry_in: seconds
    until one may pass. dry_run: it was let pass all the same.
    """

    call: Call
    limit: Rate
    key: str
    retry_in: float
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitState:
    """What a `RateLimit` has done so far.

    admitted: calls that passed, those that were delayed, unchecked or only dry-run refused included. delayed: of them
    had to wait. unchecked: of them passed because the store did not answer. refused: calls that came too early, and those
    that were refused because the store did not answer.
    keys: counts that are kept in this process.
    """

    limits: tuple[Rate, ...]
    admitted: int
    delayed: int
    unchecked: int
    refused: int
    keys: int


# --- stores ---------------------------------------------------------------------------------------------------------


class Unanswered(Exception):
    """The store does not answer, and no call may pass unchecked. retry_in: seconds until it is asked again."""

    def __init__(self, retry_in: float) -> None:
        super().__init__(retry_in)
        self.retry_in = retry_in


class Limiter(Protocol):
    """The counts of one `RateLimit`."""

    def take(self, keys: Keys, patience: int, clock: Clock) -> Decision | Generator[Any, Any, Decision]:
        """Let one more call pass under all keys, unless it comes more than `patience` nanoseconds too early for one.

        keys: one per rate; None: that rate does not count the call. clock: that of the call. None as the answer: let it
        pass unchecked. A store that has to be waited for gives a part of a flow, for `yield from`. `Unanswered` if it
        does not know.
        """
        ...

    def __len__(self) -> int:
        """How many counts it keeps in this process."""
        ...


class Store(Protocol):
    """Where counts are kept: `LocalStore`, or `interpose.contrib.redis.RedisStore`."""

    def limiter(self, rates: Sequence[Rate], *, one_key: bool, patience: float) -> Limiter:
        """The counts of these rates. one_key: all have the same key. patience: the longest wait, in seconds."""
        ...


class LocalStore:
    """Counts in the memory of this process.

    max_keys: how many are kept at most, up to 250 bytes each; of the rest the one used longest ago is forgotten, and that
              caller may send a whole burst again. By default 100,000, which take 25 MB at most.

    ValueError for a number that is no whole one from 1 to 10^8.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        insist(
            "LocalStore",
            (is_whole(max_keys, 1, 10**8), f"max_keys must be a whole number from 1 to 10^8, not {max_keys!r}"),
        )
        self._max_keys = max_keys

    def limiter(self, rates: Sequence[Rate], *, one_key: bool = True, patience: float = 0.0) -> Limiter:
        """The counts of these rates, in this process."""
        share = max(1, self._max_keys // len(rates))
        made = list[tuple[Gcra, int]]()
        for rate in rates:
            parts, step = rate.ticks(NANOSECONDS)
            made.append((Gcra(step, rate.at_once, share, math.ceil(patience * NANOSECONDS) * parts), parts))
        return _One(*made[0]) if len(made) == 1 and ONE_STEP else _Several(made)


# Without a GIL a decision is several steps.
ONE_STEP: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class _One:
    """One rate. This is what most calls go through."""

    def __init__(self, rate: Gcra, parts: int) -> None:
        self._rate = rate
        self._take = rate.take
        self._parts = parts

    def quick(self, key: str | None, clock: Clock) -> bool:
        """Let one more pass, if it is in time."""
        return key is None or self._take(key, nanoseconds(clock) * self._parts) <= 0

    def take(self, keys: Keys, patience: int, clock: Clock) -> Early:
        (key,) = keys
        if key is None:
            return (0,)
        parts = self._parts
        return (-(-self._take(key, nanoseconds(clock) * parts, patience * parts) // parts),)

    def __len__(self) -> int:
        return len(self._rate)


class _Several:
    """Several rates."""

    def __init__(self, rates: Sequence[tuple[Gcra, int]]) -> None:
        self._rates = rates
        self._together = Together(rates)

    def take(self, keys: Keys, patience: int, clock: Clock) -> Early:
        return tuple(self._together.take(keys, nanoseconds(clock), patience))

    def __len__(self) -> int:
        return sum(len(rate) for rate, _ in self._rates)


def nanoseconds(clock: Clock) -> int:
    """The time of a clock in whole nanoseconds."""
    return time.monotonic_ns() if clock is SYSTEM else round(clock.now() * NANOSECONDS)


# --- the interceptor ------------------------------------------------------------------------------------------------


def _is_wait(value: object) -> bool:
    return is_flag(value) or (isinstance(value, (int, float)) and 0 <= value <= LONGEST_WAIT)


@dataclass(eq=False, repr=False)
class RateLimit:
    """Refuse calls that come faster than a limit, for each caller; or on a client, delay them.

    `RateLimit("100/second")`: a caller may send 100 calls at once, and one more every 10 ms. Never more than the
    burst plus the rate times the time, in any stretch of time. One RPC is one call, however many messages it streams.
    What comes too early ends with RESOURCE_EXHAUSTED (`RateLimited`) before the handler is called or a message of a
    stream is read. The client learns when to come back, by `grpc-retry-pushback-ms` and google.rpc.RetryInfo. It also
    learns that the call was not executed, so `Retry` sends it again then, if RESOURCE_EXHAUSTED is among its codes.

    limits: a rate like "100/second", "10/minute", "5 per 2 hours", a `Rate`, a `Limit` with a key of its own, or several
            of these. A call has to meet them all; if it does not, it is counted by none.
    burst:  how many calls may come at once, for limits that are given as text. None: as many as in the period.
    key:    whose count it is: `by_identity`, `by_peer`, `by_method`, `by_metadata(…)`, or your function of the call that
            gives a text, or None for a call that is not limited.
    store:  where counts are kept: `LocalStore()`, of this process, or a `RedisStore` that many processes share.
    wait:   True: a call that comes too early waits for its turn, up to its deadline and an hour at most; in the order in
            which they came. A number: up to that number of seconds. Only what would wait longer is refused. A turn that was
            given is used up, also if the call is cancelled meanwhile. For clients: on a sync server each call that
            waits keeps a thread.
    trailers: send the limit on admitted calls too (server): `ratelimit-limit`, `ratelimit-remaining` and
            `ratelimit-reset` (seconds until the whole burst is there again) in the trailing metadata. That costs some
            10 microseconds on the wire. Refused calls always have them.
    dry_run: count, log and call `on_refuse`, but let every call pass at once.
    on_refuse: called with `RefusalDetails` for each call that came too early; what it raises is logged.

    The log has a warning at most once a minute, with the number of calls that were refused.

    `key` and `on_refuse` run where the RPC runs: on its thread, or in its event loop. What `key` raises ends the call with
    INTERNAL.

    ValueError listing every fault of the options.
    """

    limits: Rate | Limit | str | Iterable[Rate | Limit | str]
    _: KW_ONLY
    burst: int | None = None
    key: Key = option(by_identity, must_be("a function of the call, like by_peer", callable))
    store: Store | None = option(
        None, optional("a LocalStore or a RedisStore", lambda one: callable(getattr(one, "limiter", None)))
    )
    wait: bool | float = option(
        False, must_be(f"True, False or a number of seconds from 0 to {LONGEST_WAIT:g}", _is_wait)
    )
    trailers: bool = option(False, FLAG)
    dry_run: bool = option(False, FLAG)
    on_refuse: Callable[[RefusalDetails], object] | None = option(None, hook("RefusalDetails"))

    def __post_init__(self) -> None:
        self._rates, self._keys, faults = _limits(self.limits, self.burst, self.key)
        check_options(self, *((False, fault) for fault in faults))
        self._one_key = all(one is self._keys[0] for one in self._keys)
        self._patience = LONGEST_WAIT if self.wait is True else float(self.wait)
        self._store = LocalStore() if self.store is None else self.store
        self._limiter = self._store.limiter(self._rates, one_key=self._one_key, patience=self._patience)
        # Not where what is left has to be sent.
        self._quick = None if self.trailers else getattr(self._limiter, "quick", None)
        self._warned = Seldom(60)
        self._admitted = self._delayed = self._unchecked = self._refused = 0

    def __call__(self, call: Call) -> Flow:
        # What most calls are: in time, for one limit that is counted here.
        if (
            self._quick is not None
            and call._asks is NOTHING
            and self._quick(bounded(self._keys[0](call)), call._method.clock)
        ):
            self._admitted += 1
            yield call
            return None
        return (yield from self._considered(call))

    def _considered(self, call: Call) -> Flow:
        if call.delay:  # a retry that waits: it comes when it is sent
            yield from _until_sent(call)
            call = call.after(0.0)
        keys, patience = self._keys_of(call), self._patience_of(call)
        try:
            early = self._limiter.take(keys, patience, call.clock)
            if isinstance(early, Generator):
                early = yield from early
        except Unanswered as unanswered:
            self._refuse_unchecked(call, unanswered)
            early = None
        if early is None:
            self._unchecked += 1
        elif (by := max(early)) > 0:
            call = self._too_early(call, keys, early, by, patience)
        self._admitted += 1
        outcome = yield call
        if self.trailers and early is not None and call.side is Side.SERVER:
            return outcome.with_trailing_metadata(*_told(self._rates, keys, early))
        return None

    def unfit(self, asyncio: bool) -> str | None:
        """Why it cannot run on this side, as far as its store says; None if it can."""
        ask = getattr(self._store, "unfit", None)
        return None if ask is None else ask(asyncio)

    def check_served(self, served: Any) -> Iterable[str]:
        """The same, for a server that looks at its interceptors when it starts. served: says whether it is an asyncio one."""
        fault = self.unfit(served.asyncio)
        return () if fault is None else (f"RateLimit: {fault}",)

    def snapshot(self) -> RateLimitState:
        """What it has done so far."""
        return RateLimitState(
            limits=self._rates,
            admitted=self._admitted,
            delayed=self._delayed,
            unchecked=self._unchecked,
            refused=self._refused,
            keys=len(self._limiter),
        )

    def _keys_of(self, call: Call) -> Keys:
        if self._one_key:
            return (bounded(self._keys[0](call)),) * len(self._keys)
        return tuple(bounded(key(call)) for key in self._keys)

    def _patience_of(self, call: Call) -> int:
        """How many nanoseconds the call may wait."""
        if self.dry_run or not self._patience:
            return 0
        deadline = call.deadline
        left = self._patience if deadline is None else min(self._patience, deadline - call.clock.now())
        return max(int(left * NANOSECONDS), 0)

    def _too_early(self, call: Call, keys: Keys, early: Early, by: int, patience: int) -> Call:
        """The call as it waits for its turn. Raises if it cannot, unless this is a dry run."""
        if by <= patience:
            self._delayed += 1
            return call.after(by / NANOSECONDS)
        self._refused += 1
        rate, key = next(
            (rate, key) for rate, key, one in zip(self._rates, self._keys, early, strict=True) if one == by
        )
        retry_in = by / NANOSECONDS
        self._warn(rate, call.clock.now())
        if self.on_refuse is not None:
            details = RefusalDetails(call=call, limit=rate, key=str(key(call)), retry_in=retry_in, dry_run=self.dry_run)
            self._tell(details)
        if not self.dry_run:
            raise refusal(call, retry_in, _told(self._rates, keys, early))
        return call

    def _refuse_unchecked(self, call: Call, unanswered: Unanswered) -> None:
        """Nothing is known of the call. Raises, unless this is a dry run."""
        if self.dry_run:
            return
        self._refused += 1
        trailing = not_executed(call, unanswered.retry_in)
        raise errors.Unavailable("the rate limit cannot be checked", trailing_metadata=trailing, local=True)

    def _warn(self, rate: Rate, now: float) -> None:
        count = self._warned.happened(now)
        if count:
            did = "would have refused" if self.dry_run else "has refused"
            _log.warning(
                "RateLimit %s %s since its last warning; the last one met %s", did, counted(count, "call"), rate
            )

    def _tell(self, details: RefusalDetails) -> None:
        assert self.on_refuse is not None
        try:
            self.on_refuse(details)
        except Exception:
            _log.exception("on_refuse failed; the call is refused all the same")


def refusal(call: Call, retry_in: float, told: Iterable[Pair] = ()) -> RateLimited:
    """What a call ends with that came too early."""
    details = f"too many calls: try again in {math.ceil(retry_in * 1000) / 1000:.3f} s"
    rich = pushback.retry_info(StatusCode.RESOURCE_EXHAUSTED.value[0], details, retry_in)
    pairs = (*not_executed(call, retry_in), (errors.RICH_KEY, rich), *told)
    error = RateLimited(details, trailing_metadata=pairs, local=True)
    error.retry_in = retry_in
    return error


def _told(rates: Sequence[Rate], keys: Keys, early: Early) -> tuple[Pair, ...]:
    """What the client gets of the limit that is nearest: one value per key, for grpc-js joins several to one text."""
    limits = [(rate, by / NANOSECONDS) for rate, key, by in zip(rates, keys, early, strict=True) if key is not None]
    if not limits:
        return ()
    left, rate, by = min(
        ((_left(rate, by), rate, by) for rate, by in limits), key=lambda one: (one[0], one[1].count / one[1].per)
    )
    reset = by + rate.at_once * rate.per / rate.count
    return (LIMIT, str(rate.count)), (REMAINING, str(left)), (RESET, str(math.ceil(reset)))


def _left(rate: Rate, early: float) -> int:
    """How many more may come at once."""
    return 0 if early > 0 else math.floor(-early * rate.count / rate.per + 1e-6)


def _until_sent(call: Call) -> Generator[Any, Any, None]:
    """Wait out the delay of a call."""
    sent: Future[None] = Future()
    alarm = call.clock.call_later(call.delay, lambda: sent.set_result(None))
    try:
        yield from wait(sent)
    finally:
        alarm.cancel()


# --- options --------------------------------------------------------------------------------------------------------


def _limits(limits: object, burst: object, key: Key) -> tuple[tuple[Rate, ...], tuple[Key, ...], list[str]]:
    """Rates, the key of each, and what is wrong with them."""
    several = isinstance(limits, Iterable) and not isinstance(limits, (str, bytes))
    given: list[Any] = list(limits) if several else [limits]  # type: ignore[call-overload]  # Iterable, as was just asked
    rates, keys, faults = list[Rate](), list[Key](), list[str]()
    if not 1 <= len(given) <= MAX_LIMITS:
        faults.append(f"limits must be from 1 to {MAX_LIMITS} limits, like '100/second', not {limits!r:.100}")
    for one in given:
        limit = one if isinstance(one, Limit) else Limit(one)
        if not (limit.key is None or callable(limit.key)):
            faults.append(f"key of a Limit must be None or a function of the call, like by_peer, not {limit.key!r}")
        try:
            rates.append(_rate(limit.rate, burst))
            keys.append(key if limit.key is None else limit.key)
        except ValueError as error:
            faults.append(str(error).removeprefix("Rate: "))
    return tuple(rates), tuple(keys), faults


def _rate(given: object, burst: object) -> Rate:
    if isinstance(given, str):
        return Rate.of(given, burst)  # type: ignore[arg-type]  # it judges the burst itself
    if not isinstance(given, Rate):
        raise ValueError(f"{given!r:.100} is no limit: write it like '100/second', or as Rate(100)")
    if burst is not None:
        raise ValueError(f"burst is for limits that are given as text; write Rate({given.count}, burst={burst!r})")
    return given
