"""Counts of `RateLimit` in Redis, which many processes share. Needs the extra `redis`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

try:
    import redis
    import redis.asyncio
    import redis.asyncio.sentinel
    import redis.sentinel
    from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
    from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode, RedisCluster
    from redis.exceptions import NoScriptError, RedisError
    from redis.retry import Retry
except ImportError as missing:
    raise ImportError('counts in Redis need a package more: pip install "interpose[redis]"') from missing

from interpose._clock import SYSTEM, Clock
from interpose._flow import wait
from interpose.interceptors.rate_limit import Early, Limiter, LocalStore, Rate, Unanswered, digest
from interpose.mechanisms.breaker import Breaker, Mode, Policy, Refusal, State, Transition
from interpose.mechanisms.options import insist, is_clock, is_flag
from interpose.mechanisms.seldom import Seldom
from interpose.mechanisms.text import one_line
from interpose.mechanisms.window import calls

_log = logging.getLogger("interpose")

TIMEOUT = 0.05  # seconds
LONGEST_TIMEOUT = 60.0
PREFIX = "interpose"
MAX_PREFIX = 100  # characters
MAX_ERROR = 200  # characters of an error in the log

# Three failures in a row, and Redis is left alone for a second; then one call tries it.
FAILURES_IN_A_ROW = 3
LEFT_ALONE = 1.0
POLICY = Policy(1.0, FAILURES_IN_A_ROW, calls(FAILURES_IN_A_ROW), LEFT_ALONE, 1)

FAILURES = (RedisError, OSError, RuntimeError)  # RuntimeError: of asyncio, for a loop that is closed

SENTINELS = (redis.sentinel.SentinelConnectionPool, redis.asyncio.sentinel.SentinelConnectionPool)
BLOCKING = (redis.BlockingConnectionPool, redis.asyncio.BlockingConnectionPool)
POOLS = (redis.ConnectionPool, redis.asyncio.ConnectionPool)  # the others inherit from these

# Options of a connection that a pool puts there itself, by how they begin.
OF_ITS_POOL = ("maint_", "orig_", "himport_", "connection_pool", "retry")
# Options that the nodes of a cluster have from the application.
OF_A_CLUSTER = ("username", "password", "credential_provider", "client_name", "encoding", "decode_", "protocol", "ssl_")


def _no_maintenance() -> Any:
    """Notices of maintenance would lengthen time-outs; None for a redis-py that knows none (before 7)."""
    try:
        from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415
    except ImportError:
        return None
    return MaintNotificationsConfig(enabled=False)


MAINTENANCE = _no_maintenance()

# GCRA for all limits of a call at once, as in interpose.mechanisms.gcra. A time is two whole numbers, microseconds and a
# rest in ticks of them: Lua's numbers are exact up to 2^53 only, and `tostring` rounds at 14 digits. `at` is when it was
# written: if that lies ahead, the server's clock has gone back, and the time with it. A script that fails has written
# nothing, for out of memory it fails at its first write.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function later(whole, rest, other, other_rest)
  if whole > other or (whole == other and rest > other_rest) then return whole, rest end
  return other, other_rest
end

local limits, early, wait = {}, {}, 0
for i, key in ipairs(KEYS) do
  local j = 5 * i - 4
  local limit = {parts = tonumber(ARGV[j]), step = tonumber(ARGV[j + 1]), step_rest = tonumber(ARGV[j + 2]),
                 first = tonumber(ARGV[j + 3]), first_rest = tonumber(ARGV[j + 4])}
  local whole, rest = limit.first, limit.first_rest
  local kept = redis.call('GET', key)
  local next, part, at = string.match(kept or '', '^(%d+) (%d+) (%d+)$')
  if next then
    whole, rest = later(whole, rest, tonumber(next) - math.max(tonumber(at), now), tonumber(part))
  end
  limit.whole, limit.rest, limits[i] = whole, rest, limit
  if rest > 0 then whole = whole + 1 end
  early[i] = whole
  if whole > wait then wait = whole end
end

if wait <= tonumber(ARGV[#ARGV]) then
  for i, key in ipairs(KEYS) do
    local limit = limits[i]
    local whole, rest = later(limit.first, limit.first_rest, limit.whole - wait, limit.rest)
    whole, rest = whole + wait + limit.step, rest + limit.step_rest
    if rest >= limit.parts then whole, rest = whole + 1, rest - limit.parts end
    local kept = string.format('%.0f %.0f %.0f', now + whole, rest, now)
    redis.call('SET', key, kept, 'PX', string.format('%.0f', math.floor(whole / 1000) + 1))
  end
end
return early
"""
SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()  # noqa: S324  by it Redis knows a script


# --- what users see -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisState:
    """What a `RedisStore` has done so far.

    mode: CLOSED while Redis is asked, OPEN while it is left alone, HALF_OPEN while one call tries it. answered: decisions
    that came from Redis. failed: questions that it did not answer. left_alone: decisions made without asking.
    """

    mode: Mode
    answered: int
    failed: int
    left_alone: int


class RedisStore:
    """Counts in Redis, shared by all processes that use it: `RateLimit("100/second", store=RedisStore(client))`.

    All limits of a call are decided by one script in one round trip, by the clock of the Redis server. Limits of the same
    prefix, rate and key count together.

    The store has connections of its own, with the address and credentials of the client but without its retries: a client
    that sends a script again, because the reply was lost, would count a call twice.

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
    clock:   where the time is read for that.

    On a cluster all limits of a call lie on one node: for limits of the same key chosen by it, otherwise by the prefix.
    """

    def __init__(
        self,
        client: Any,
        *,
        asyncio: bool = False,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        fail: Literal["open", "closed", "local"] = "open",
        share: float = 1.0,
        clock: Clock = SYSTEM,
    ) -> None:
        given, fault = _client(client, asyncio)
        insist(
            "RedisStore",
            (not fault, fault),
            (is_flag(asyncio), f"asyncio must be True or False, not {asyncio!r}"),
            (
                isinstance(prefix, str) and 0 < len(prefix) <= MAX_PREFIX and not {"{", "}"} & set(prefix),
                f"prefix must be a text of 1 to {MAX_PREFIX} characters without braces, not {prefix!r:.200}",
            ),
            (
                _is_number(timeout) and 0 < timeout <= LONGEST_TIMEOUT,
                f"timeout must be above 0 and up to {LONGEST_TIMEOUT:g} seconds, not {timeout!r}",
            ),
            (fail in {"open", "closed", "local"}, f"fail must be 'open', 'closed' or 'local', not {fail!r}"),
            (_is_number(share) and 0 < share <= 1, f"share must be above 0 and up to 1, not {share!r}"),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
        )
        self._asyncio = isinstance(given, (redis.asyncio.Redis, AsyncRedisCluster))
        self._given = given
        self._timeout = timeout
        self._own: Any = None  # our client
        self._prefix = prefix
        self._fail = fail
        self._share = share
        self._clock = clock
        self._breaker = Breaker(POLICY, _tell)
        self._warned = Seldom(60)
        self._answered = self._failed = self._left_alone = 0

    def limiter(self, rates: Sequence[Rate], *, one_key: bool, patience: float, clock: Clock) -> Limiter:
        """The counts of these rates."""
        local = None
        if self._fail == "local":
            shares = [rate.share(self._share) for rate in rates]
            local = LocalStore().limiter(shares, one_key=one_key, patience=patience, clock=clock)
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
            mode=self._breaker.mode, answered=self._answered, failed=self._failed, left_alone=self._left_alone
        )

    def close(self) -> None:
        """Close its connections (sync clients). It opens new ones if it is used again."""
        own, self._own = self._own, None
        if own is not None:
            own.close()
            if not _is_cluster(own):
                own.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close its connections (clients of redis.asyncio). It opens new ones if it is used again."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()
            if not _is_cluster(own):
                await own.connection_pool.disconnect()

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r}, fail={self._fail!r})"

    # - for the limiters -

    def client(self) -> Any:
        """Our client; made when it is first needed, for that of a cluster connects at once."""
        if self._own is None:
            self._own = _beside(self._given, self._timeout, self._asyncio)
        return self._own

    def admit(self) -> State | None:
        """May Redis be asked? What to give to `report`."""
        admitted = self._breaker.admit(self._clock.now())
        if isinstance(admitted, Refusal):
            self._left_alone += 1
            return None
        return admitted

    def report(self, admitted: State, healthy: bool | None) -> None:
        """It has answered, failed, or (None) the call did not wait for it."""
        if healthy:
            self._answered += 1
        self._breaker.report(admitted, healthy, self._clock.now())

    def failed(self, error: BaseException) -> None:
        """It has not answered."""
        self._failed += 1
        count = self._warned.happened(self._clock.now())
        if count:
            why = one_line(f"{type(error).__name__}: {error}", MAX_ERROR)
            _log.warning("RedisStore: %d failures since the last warning; %s. %s", count, why, _MEANWHILE[self._fail])

    def without(self, local: Limiter | None, keys: Sequence[str | None], patience: int) -> Early | None:
        """The decision without Redis."""
        if self._fail == "closed":
            raise Unanswered(LEFT_ALONE)
        return None if local is None else local.take(keys, patience)  # type: ignore[return-value]  # a local one waits for nothing


_MEANWHILE = {
    "open": "Calls pass unchecked meanwhile (fail='open')",
    "closed": "Calls are refused meanwhile (fail='closed')",
    "local": "Each process counts for itself meanwhile (fail='local')",
}


def _tell(transition: Transition) -> None:
    if transition.after is Mode.CLOSED:
        _log.warning("RedisStore: Redis answers again")


# --- limiters -------------------------------------------------------------------------------------------------------


class _RedisLimiter:
    """The counts of one `RateLimit`."""

    def __init__(self, store: RedisStore, rates: Sequence[Rate], one_key: bool, local: Limiter | None) -> None:
        self._store = store
        self._local = local
        self._numbers = [_numbers(rate) for rate in rates]
        # In braces stands what a cluster chooses the node by.
        named = f"{store._prefix}:{{%s}}" if one_key else f"{{{store._prefix}}}:%s"
        self._names = [f"{named}:{rate.count}/{round(rate.per * 10**6)}/{rate.at_once}" for rate in rates]

    def take(self, keys: Sequence[str | None], patience: int) -> Generator[Any, Any, Early | None]:
        """The decision, as part of a flow: with a sync client it waits for nothing."""
        store = self._store
        question = self._question(keys, patience)
        if not question[0]:
            return (0,) * len(keys)
        admitted = store.admit()
        if admitted is None:
            return store.without(self._local, keys, patience)
        healthy = None
        try:
            try:
                reply = yield from wait(store.client().evalsha(SHA, *question))
            except NoScriptError:  # a server that has restarted
                reply = yield from wait(store.client().eval(SCRIPT, *question))
            early = self._early(keys, reply)
            healthy = True
        except FAILURES as error:
            healthy = False
            store.failed(error)
            return store.without(self._local, keys, patience)
        finally:
            store.report(admitted, healthy)
        return early

    def _question(self, keys: Sequence[str | None], patience: int) -> list[Any]:
        """Number of keys, keys, and arguments of the script."""
        names, numbers = list[Any](), list[int]()
        for key, name, own in zip(keys, self._names, self._numbers, strict=True):
            if key is not None:
                names.append(name % digest(key))  # no secret that a key is made of goes to Redis
                numbers += own
        return [len(names), *names, *numbers, patience // 1000]

    def _early(self, keys: Sequence[str | None], reply: Any) -> Early:
        """What the script has answered, in nanoseconds."""
        if not (isinstance(reply, list) and all(isinstance(early, int) for early in reply)):
            raise RedisError(f"the script has answered {reply!r:.100}")
        told = iter(reply)
        return tuple(0 if key is None else 1000 * next(told) for key in keys)

    def __len__(self) -> int:
        return 0 if self._local is None else len(self._local)


def _numbers(rate: Rate) -> list[int]:
    """A rate as the script takes it: ticks of a microsecond; step and earliest time as microseconds and ticks."""
    parts, step = rate.ticks(10**6)
    return [parts, *divmod(step, parts), *divmod(-(rate.at_once - 1) * step, parts)]


# --- connections ----------------------------------------------------------------------------------------------------


def _client(given: Any, asyncio: bool) -> tuple[Any, str]:
    """A client of Redis, from one or from a URL; and what is wrong with it."""
    if isinstance(given, str):
        return _from_url(given, asyncio)
    if isinstance(given, (redis.Redis, redis.asyncio.Redis)):
        pool = given.connection_pool
        if not isinstance(pool, POOLS):
            return (
                given,
                f"client must have a ConnectionPool, a BlockingConnectionPool or one of a Sentinel, not {pool!r}",
            )
        return given, ""
    if isinstance(given, (RedisCluster, AsyncRedisCluster)):
        return given, ""
    return given, f"client must be a redis.Redis, one of redis.asyncio, a RedisCluster or a URL, not {given!r:.100}"


def _from_url(url: str, asyncio: bool) -> tuple[Any, str]:
    hint = 'write it like "redis://host:6379/0", "rediss://…" or "unix:///run/redis.sock"'
    try:
        parts = urlsplit(url)
        client = (redis.asyncio.Redis if asyncio else redis.Redis).from_url(url)
    except ValueError as error:
        return None, f"the URL is not one of Redis: {error}; {hint}"
    # Without a host redis-py would take its own.
    return client, "" if parts.hostname or (
        parts.scheme == "unix" and parts.path
    ) else f"the URL names no server; {hint}"


def _is_cluster(client: Any) -> bool:
    return isinstance(client, (RedisCluster, AsyncRedisCluster))


def _beside(given: Any, timeout: float, asyncio: bool) -> Any:
    """A client beside the given one, to the same server, that never sends anything twice and waits no longer than that.

    Sentinel's pool finds the server by itself.
    """
    strict = _strict(timeout, asyncio)
    if _is_cluster(given):
        return _beside_cluster(given, strict, asyncio)
    pool = given.connection_pool
    options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(OF_ITS_POOL)}
    options |= strict | {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    if isinstance(pool, SENTINELS):
        own = type(pool)(
            pool.service_name,
            pool.sentinel_manager,
            is_master=pool.is_master,
            check_connection=pool.check_connection,
            **options,
        )
    else:
        waiting = {"timeout": timeout} if isinstance(pool, BLOCKING) else {}
        own = type(pool)(**options, **waiting)
    return type(given)(connection_pool=own)


def _beside_cluster(given: Any, strict: dict[str, Any], asyncio: bool) -> Any:
    manager = given.nodes_manager
    options = {name: value for name, value in manager.connection_kwargs.items() if name.startswith(OF_A_CLUSTER)}
    secure = "ssl_cert_reqs" in options or manager.connection_kwargs.get("ssl", False)
    node = AsyncClusterNode if asyncio else ClusterNode
    nodes = [node(one.host, one.port) for one in manager.startup_nodes.values()]
    return type(given)(startup_nodes=nodes, cluster_error_retry_attempts=0, ssl=bool(secure), **options, **strict)


def _strict(timeout: float, asyncio: bool) -> dict[str, Any]:
    """Options of connections that never send anything twice."""
    retry = (AsyncRetry if asyncio else Retry)(NoBackoff(), 0)  # type: ignore[no-untyped-call]
    strict = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": retry}
    return strict if MAINTENANCE is None else strict | {"maint_notifications_config": MAINTENANCE}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
