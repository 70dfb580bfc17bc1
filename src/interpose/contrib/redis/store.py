"""`RedisStore`: the counts, and what happens while Redis does not answer."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from redis.exceptions import RedisError

from interpose._clock import Clock
from interpose._flow import wait
from interpose.contrib.redis.lines import FAILURES, client_of, is_asyncio, line_beside
from interpose.contrib.redis.script import Question, numbers_of
from interpose.interceptors.rate_limit import Early, Keys, Limiter, LocalStore, Rate, Unanswered, digest
from interpose.mechanisms.options import FLAG, check_options, is_number, must_be, one_of, option
from interpose.mechanisms.outage import Outage
from interpose.mechanisms.seldom import Seldom
from interpose.mechanisms.text import one_line

_log = logging.getLogger("interpose")

TIMEOUT = 0.05  # seconds
LONGEST_TIMEOUT = 60.0
PREFIX = "interpose"
MAX_PREFIX = 100  # characters
MAX_ASKED = 4096  # questions that are kept, of some 500 bytes
MAX_ERROR = 200  # characters of an error in the log

# Three failures in a row, and Redis is left alone for a second; then one call tries it.
FAILURES_IN_A_ROW = 3
LEFT_ALONE = 1.0


# --- what users see -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisState:
    """What a `RedisStore` has done so far.

    out: does Redis not answer, so that it is left alone but for one call a second? answered: decisions that came from it.
    failed: questions that it did not answer. left_alone: decisions made without asking.
    """

    out: bool
    answered: int
    failed: int
    left_alone: int


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_PREFIX and not {"{", "}"} & set(value)


def _is_timeout(value: object) -> bool:
    return is_number(value) and 0 < value <= LONGEST_TIMEOUT


@dataclass(eq=False, repr=False)
class RedisStore:
    """Counts in Redis, shared by all processes that use it: `RateLimit("100/second", store=RedisStore(client))`.

    All limits of a call are decided by one script in one round trip, by the clock of the Redis server. Limits of the same
    prefix, rate and key count together.

    The store has connections of its own, with the address and credentials of the client but without its retries. A
    client that sends a script again, because the reply was lost, would count a call twice.

    A decision that does not come in time, or fails, is made without Redis: see `fail`. After three failures in a row
    Redis is left alone; every second one call tries it, until it answers. The log has a warning at most once a minute.

    client:  a `redis.Redis` or `RedisCluster` for sync servers and channels, one of `redis.asyncio` for asyncio ones, or
             a URL like "redis://host:6379/0". Redis 5 or later, or Valkey.
    asyncio: of which kind the client for a URL is.
    prefix:  what all keys begin with, so that applications can share a server.
    timeout: seconds that Redis has to answer; a new connection has that long for each of its steps.
    fail:    "open": the call passes unchecked. "closed": it is refused with UNAVAILABLE. "local": each process counts for
             itself.
    share:   the part of each rate that a process has then, above 0 up to 1: with 4 processes 0.25.

    Defaults: 0.05 s, many times what a round trip takes in one network, and little for a caller; share 1, the whole rate.

    On a cluster all limits of a call lie on one node: for limits of the same key chosen by it, otherwise by the prefix.

    ValueError listing every fault of these.
    """

    client: Any
    _: KW_ONLY
    asyncio: bool = option(False, FLAG)
    prefix: str = option(PREFIX, must_be(f"a text of 1 to {MAX_PREFIX} characters without braces", _is_prefix))
    timeout: float = option(TIMEOUT, must_be(f"above 0 and up to {LONGEST_TIMEOUT:g} seconds", _is_timeout))
    fail: Literal["open", "closed", "local"] = option("open", one_of("open", "closed", "local"))
    share: float = option(1.0, must_be("above 0 and up to 1", lambda share: is_number(share) and 0 < share <= 1))

    def __post_init__(self) -> None:
        self._given, fault = client_of(self.client, self.asyncio)
        check_options(self, (not fault, fault))
        self._asyncio = is_asyncio(self._given)
        self._line: Any = None
        self._outage = Outage(FAILURES_IN_A_ROW, LEFT_ALONE)
        self._warned = Seldom(60)
        self._answered = self._failed = self._left_alone = 0

    def limiter(self, rates: Sequence[Rate], *, one_key: bool, patience: float) -> Limiter:
        """The counts of these rates."""
        local = None
        if self.fail == "local":
            shares = [rate.share(self.share) for rate in rates]
            local = LocalStore().limiter(shares, one_key=one_key, patience=patience)
        return _RedisLimiter(self, rates, one_key, local)

    def unfit(self, asyncio: bool) -> str | None:
        """Why it cannot serve on this side; None if it can."""
        if asyncio is self._asyncio:
            return None
        if asyncio:
            return "its RedisStore has a sync client, which would block the event loop: give it one of redis.asyncio"
        return "its RedisStore has a client of redis.asyncio, and there is no event loop: give it a redis.Redis"

    def snapshot(self) -> RedisState:
        """What it has done so far."""
        return RedisState(
            out=self._outage.on, answered=self._answered, failed=self._failed, left_alone=self._left_alone
        )

    def close(self) -> None:
        """Close its connections. It opens new ones if it is used again. TypeError for a client of redis.asyncio."""
        if self._asyncio:
            raise TypeError("RedisStore: its client is one of redis.asyncio; write `await store.aclose()`")
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def aclose(self) -> None:
        """Close its connections. It opens new ones if it is used again. TypeError for a sync client."""
        if not self._asyncio:
            raise TypeError("RedisStore: its client is a sync one; write `store.close()`")
        line, self._line = self._line, None
        if line is not None:
            await line.aclose()

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self.prefix!r}, fail={self.fail!r})"

    # - for the limiters -

    def may_ask(self, now: float) -> bool:
        """May Redis be asked? If not, the decision is made without."""
        if not self._outage.may_ask(now):
            self._left_alone += 1
            return False
        return True

    def answer_to(self, question: Question) -> Generator[Any, Any, list[int]]:
        """What Redis answers: by how many microseconds the call comes too early, for each limit."""
        if self._line is None:  # made when it is first needed, for that to a cluster connects at once
            self._line = line_beside(self._given, self.timeout, self._asyncio)
        reply: Any = self._line.ask(question)
        if self._asyncio:
            reply = yield from wait(reply)
        if not (isinstance(reply, list) and len(reply) == question.count and isinstance(reply[0], int)):
            raise RedisError(f"the script has answered {reply!r:.100}")
        self._answered += 1
        if self._outage.answered():
            _log.warning("RedisStore: Redis answers again")
        return reply

    def failed(self, error: BaseException, now: float) -> None:
        """It has not answered."""
        self._failed += 1
        self._outage.failed(now)
        count = self._warned.happened(now)
        if count:
            why = one_line(f"{type(error).__name__}: {error}", MAX_ERROR)
            _log.warning("RedisStore: %d failures since the last warning; %s. %s", count, why, _MEANWHILE[self.fail])

    def without(self, local: Limiter | None, keys: Keys, patience: int, clock: Clock) -> Early | None:
        """The decision without Redis."""
        if self.fail == "closed":
            raise Unanswered(LEFT_ALONE)
        return None if local is None else local.take(keys, patience, clock)  # type: ignore[return-value]  # a local one waits for nothing


_MEANWHILE = {
    "open": "Calls pass unchecked meanwhile (fail='open')",
    "closed": "Calls are refused meanwhile (fail='closed')",
    "local": "Each process counts for itself meanwhile (fail='local')",
}


# --- limiters -------------------------------------------------------------------------------------------------------


class _RedisLimiter:
    """The counts of one `RateLimit`."""

    def __init__(self, store: RedisStore, rates: Sequence[Rate], one_key: bool, local: Limiter | None) -> None:
        self._store = store
        self._local = local
        self._asked: dict[Keys, Question] = {}
        self._numbers = [numbers_of(rate) for rate in rates]
        # In braces is what a cluster chooses the node by.
        named = f"{store.prefix}:{{%s}}" if one_key else f"{{{store.prefix}}}:%s"
        self._names = [f"{named}:{rate.count}/{round(rate.per * 10**6)}/{rate.at_once}" for rate in rates]

    def take(self, keys: Keys, patience: int, clock: Clock) -> Generator[Any, Any, Early | None]:
        """The decision, as part of a flow: with a sync client it waits for nothing."""
        store = self._store
        if not store.may_ask(clock.now()):
            return store.without(self._local, keys, patience, clock)
        try:
            question = self._asked.get(keys) if patience == 0 else None
            question = question or self._question(keys, patience)
            reply = (yield from store.answer_to(question)) if question.count else []
        except FAILURES as error:
            store.failed(error, clock.now())
            return store.without(self._local, keys, patience, clock)
        if question.count == 1 == len(keys):
            return (1000 * reply[0],)
        told = iter(reply)
        return tuple(0 if key is None else 1000 * next(told) for key in keys)

    def _question(self, keys: Keys, patience: int) -> Question:
        """The command for these keys. Those of callers that come again and again are made once."""
        asked = [
            # No secret that a key is made of goes to Redis.
            (name % digest(key), numbers)
            for key, name, numbers in zip(keys, self._names, self._numbers, strict=True)
            if key is not None
        ]
        names, numbers = [name for name, _ in asked], [numbers for _, numbers in asked]
        question = Question(len(asked), (len(asked), *names, *numbers, patience // 1000))
        if patience == 0:
            if len(self._asked) >= MAX_ASKED:
                self._asked.clear()
            self._asked[keys] = question
        return question

    def __len__(self) -> int:
        return 0 if self._local is None else len(self._local)
