"""The way to Redis: connections beside those of the application, that send nothing twice and do not wait for long."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import urlsplit

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

from interpose._kind import kind_of
from interpose.contrib.redis.script import SCRIPT, SHA, Question

FAILURES = (RedisError, OSError, RuntimeError)  # RuntimeError: of asyncio, for a loop that is closed

SENTINELS = (redis.sentinel.SentinelConnectionPool, redis.asyncio.sentinel.SentinelConnectionPool)
BLOCKING = (redis.BlockingConnectionPool, redis.asyncio.BlockingConnectionPool)
POOLS = (redis.ConnectionPool, redis.asyncio.ConnectionPool)  # the others inherit from these

# Before redis-py 5.3 a pool asks what a connection is for; later ones warn if that is given.
_ASKS = inspect.signature(redis.ConnectionPool.get_connection).parameters["command_name"].default
NAMED = ("EVALSHA",) if _ASKS is inspect.Parameter.empty else ()

# Before redis-py 6 a cluster's own retries had an option of their own; later ones warn if it is used.
ONCE = {"cluster_error_retry_attempts": 0} if redis.__version__.startswith("5.") else {}

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


def client_of(given: Any, asyncio: bool) -> tuple[Any, str]:
    """A client of Redis, from one or from a URL; and what is wrong with it."""
    if isinstance(given, str):
        return _from_url(given, asyncio)
    if isinstance(given, (redis.Redis, redis.asyncio.Redis)):
        pool = given.connection_pool
        if not isinstance(pool, POOLS):
            return (
                given,
                f"client must have a ConnectionPool, a BlockingConnectionPool or one of a Sentinel, not {kind_of(pool)}",
            )
        return given, ""
    if isinstance(given, (RedisCluster, AsyncRedisCluster)):
        return given, ""
    return given, f"client must be a redis.Redis, one of redis.asyncio, a RedisCluster or a URL, not {kind_of(given)}"


def is_asyncio(client: Any) -> bool:
    """Is it one of redis.asyncio?"""
    return isinstance(client, (redis.asyncio.Redis, AsyncRedisCluster))


def _from_url(url: str, asyncio: bool) -> tuple[Any, str]:
    hint = (
        'write it like "redis://host:6379/0", "rediss://…" or "unix:///run/redis.sock", with % for signs in a password'
    )
    try:
        parts = urlsplit(url)
        client = (redis.asyncio.Redis if asyncio else redis.Redis).from_url(url)
    except ValueError:  # its text may quote a part of the password
        return None, f"the URL is not one of Redis; {hint}"
    # Without a host redis-py would take its own.
    return client, "" if parts.hostname or (
        parts.scheme == "unix" and parts.path
    ) else f"the URL names no server; {hint}"


def line_beside(given: Any, timeout: float, asyncio: bool) -> Any:
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
    return type(given)(startup_nodes=nodes, ssl=secure, **options, **strict, **ONCE)


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
    retry = (AsyncRetry if asyncio else Retry)(NoBackoff(), 0)
    strict = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": retry}
    return strict if MAINTENANCE is None else strict | {"maint_notifications_config": MAINTENANCE}
