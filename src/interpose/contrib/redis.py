"""Counts of `RateLimit` in Redis, which many processes share. Needs the extra `redis`."""

from __future__ import annotations

import hashlib
import inspect
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
from interpose.interceptors.rate_limit import Early, Keys, Limiter, LocalStore, Rate, Unanswered, digest
from interpose.mechanisms.options import insist, is_clock, is_flag
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

FAILURES = (RedisError, OSError, RuntimeError)  # RuntimeError: of asyncio, for a loop that is closed

SENTINELS = (redis.sentinel.SentinelConnectionPool, redis.asyncio.sentinel.SentinelConnectionPool)
BLOCKING = (redis.BlockingConnectionPool, redis.asyncio.BlockingConnectionPool)
POOLS = (redis.ConnectionPool, redis.asyncio.ConnectionPool)  # the others inherit from these

# Before redis-py 5.3 a pool asks what a connection is for; later ones warn if they are told.
_ASKS = inspect.signature(redis.ConnectionPool.get_connection).parameters["command_name"].default
NAMED = ("EVALSHA",) if _ASKS is inspect.Parameter.empty else ()

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
  local parts, step, step_rest, first, first_rest = string.match(ARGV[i], '(%S+) (%S+) (%S+) (%S+) (%S+)')
  local limit = {parts = tonumber(parts), step = tonumber(step), step_rest = tonumber(step_rest),
                 first = tonumber(first), first_rest = tonumber(first_rest)}
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
    -- After that time it is as good as none.
    local lasts = string.format('%.0f', math.floor((whole - limit.first) / 1000) + 1)
    redis.call('SET', key, kept, 'PX', lasts)
  end
end
return early
"""
SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()  # noqa: S324  by it Redis knows a script


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
        self._line: Any = None
        self._prefix = prefix
        self._fail = fail
        self._share = share
        self._clock = clock
        self._outage = Outage(FAILURES_IN_A_ROW, LEFT_ALONE)
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
            out=self._outage.on, answered=self._answered, failed=self._failed, left_alone=self._left_alone
        )

    def close(self) -> None:
        """Close its connections (sync clients). It opens new ones if it is used again."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def aclose(self) -> None:
        """Close its connections (clients of redis.asyncio). It opens new ones if it is used again."""
        line, self._line = self._line, None
        if line is not None:
            await line.aclose()

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r}, fail={self._fail!r})"

    # - for the limiters -

    def may_ask(self) -> bool:
        """May Redis be asked? If not, the decision is made without."""
        if not self._outage.may_ask(self._clock.now()):
            self._left_alone += 1
            return False
        return True

    def answer_to(self, question: Question) -> Generator[Any, Any, list[int]]:
        """What Redis answers: by how many microseconds the call comes too early, for each limit."""
        if self._line is None:  # made when it is first needed, for that to a cluster connects at once
            self._line = _line_beside(self._given, self._timeout, self._asyncio)
        reply: Any = self._line.ask(question)
        if self._asyncio:
            reply = yield from wait(reply)
        if not (isinstance(reply, list) and len(reply) == question.count and isinstance(reply[0], int)):
            raise RedisError(f"the script has answered {reply!r:.100}")
        self._answered += 1
        if self._outage.answered():
            _log.warning("RedisStore: Redis answers again")
        return reply

    def failed(self, error: BaseException) -> None:
        """It has not answered."""
        now = self._clock.now()
        self._failed += 1
        self._outage.failed(now)
        count = self._warned.happened(now)
        if count:
            why = one_line(f"{type(error).__name__}: {error}", MAX_ERROR)
            _log.warning("RedisStore: %d failures since the last warning; %s. %s", count, why, _MEANWHILE[self._fail])

    def without(self, local: Limiter | None, keys: Keys, patience: int) -> Early | None:
        """The decision without Redis."""
        if self._fail == "closed":
            raise Unanswered(LEFT_ALONE)
        return None if local is None else local.take(keys, patience)  # type: ignore[return-value]  # a local one waits for nothing


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
        self._numbers = [_numbers(rate) for rate in rates]
        # In braces stands what a cluster chooses the node by.
        named = f"{store._prefix}:{{%s}}" if one_key else f"{{{store._prefix}}}:%s"
        self._names = [f"{named}:{rate.count}/{round(rate.per * 10**6)}/{rate.at_once}" for rate in rates]

    def take(self, keys: Keys, patience: int) -> Generator[Any, Any, Early | None]:
        """The decision, as part of a flow: with a sync client it waits for nothing."""
        store = self._store
        if not store.may_ask():
            return store.without(self._local, keys, patience)
        try:
            question = self._asked.get(keys) if patience == 0 else None
            question = question or self._question(keys, patience)
            reply = question.count and (yield from store.answer_to(question))
        except FAILURES as error:
            store.failed(error)
            return store.without(self._local, keys, patience)
        if question.count == 1 == len(keys):
            return (1000 * reply[0],)
        told = iter(reply or ())
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


class Question:
    """The script with its arguments. count: of how many limits. packed: as it is sent."""

    __slots__ = ("arguments", "count", "packed")

    def __init__(self, count: int, arguments: tuple[Any, ...]) -> None:
        self.count = count
        self.arguments = arguments
        self.packed: Any = None

    def pack(self, connection: Any) -> Any:
        """As it is sent; made once."""
        self.packed = connection.pack_command("EVALSHA", SHA, *self.arguments)
        return self.packed


def _numbers(rate: Rate) -> str:
    """A rate as the script takes it: ticks of a microsecond; step and earliest time as microseconds and ticks."""
    parts, step = rate.ticks(10**6)
    return " ".join(map(str, [parts, *divmod(step, parts), *divmod(-(rate.at_once - 1) * step, parts)]))


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


def _line_beside(given: Any, timeout: float, asyncio: bool) -> Any:
    """A line to the server of this client, that never sends anything twice and waits no longer than that."""
    strict = _strict(timeout, asyncio)
    if isinstance(given, (RedisCluster, AsyncRedisCluster)):
        return (_AsyncCluster if asyncio else _Cluster)(_cluster_beside(given, strict, asyncio))
    pool = given.connection_pool
    options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(OF_ITS_POOL)}
    options |= strict | {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    return (_AsyncLine if asyncio else _Line)(_pool_beside(pool, options, timeout))


def _pool_beside(pool: Any, options: dict[str, Any], timeout: float) -> Any:
    """A pool of the same kind. That of a Sentinel finds the server by itself."""
    if isinstance(pool, SENTINELS):
        sentinel = {"is_master": pool.is_master, "check_connection": pool.check_connection}
        return type(pool)(pool.service_name, pool.sentinel_manager, **sentinel, **options)
    return type(pool)(**options, **({"timeout": timeout} if isinstance(pool, BLOCKING) else {}))


def _cluster_beside(given: Any, strict: dict[str, Any], asyncio: bool) -> Any:
    manager = given.nodes_manager
    options = {name: value for name, value in manager.connection_kwargs.items() if name.startswith(OF_A_CLUSTER)}
    secure = "ssl_cert_reqs" in options or bool(manager.connection_kwargs.get("ssl"))
    node = AsyncClusterNode if asyncio else ClusterNode
    nodes = [node(one.host, one.port) for one in manager.startup_nodes.values()]
    return type(given)(startup_nodes=nodes, cluster_error_retry_attempts=0, ssl=secure, **options, **strict)


class _Line:
    """Commands over connections of a pool. A client of redis-py does more on the way than the script takes."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def ask(self, question: Question) -> Any:
        """Run the script, and give its answer."""
        connection = self._pool.get_connection(*NAMED)
        try:
            connection.send_packed_command(question.packed or question.pack(connection))
            try:
                return connection.read_response()
            except NoScriptError:  # a server that has restarted
                connection.send_command("EVAL", SCRIPT, *question.arguments)
                return connection.read_response()
        finally:
            self._pool.release(connection)

    def close(self) -> None:
        self._pool.disconnect()


class _AsyncLine:
    """The same, awaited."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def ask(self, question: Question) -> Any:
        connection = await self._pool.get_connection(*NAMED)
        try:
            await connection.send_packed_command(question.packed or question.pack(connection))
            try:
                return await connection.read_response()
            except NoScriptError:  # a server that has restarted
                await connection.send_command("EVAL", SCRIPT, *question.arguments)
                return await connection.read_response()
        finally:
            await self._pool.release(connection)

    async def aclose(self) -> None:
        await self._pool.disconnect()


class _Cluster:
    """The same, to the node of its keys."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.close = client.close

    def ask(self, question: Question) -> Any:
        try:
            return self._client.evalsha(SHA, *question.arguments)
        except NoScriptError:
            return self._client.eval(SCRIPT, *question.arguments)


class _AsyncCluster:
    """The same, awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.aclose = client.aclose

    async def ask(self, question: Question) -> Any:
        try:
            return await self._client.evalsha(SHA, *question.arguments)
        except NoScriptError:
            return await self._client.eval(SCRIPT, *question.arguments)


def _strict(timeout: float, asyncio: bool) -> dict[str, Any]:
    """Options of connections that never send anything twice."""
    retry = (AsyncRetry if asyncio else Retry)(NoBackoff(), 0)  # type: ignore[no-untyped-call]
    strict = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": retry}
    return strict if MAINTENANCE is None else strict | {"maint_notifications_config": MAINTENANCE}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
