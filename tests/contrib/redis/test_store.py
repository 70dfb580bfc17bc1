"""RedisStore: limits that many share, and what happens while Redis does not answer."""

import asyncio
import importlib
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import redis
import redis.asyncio

from interpose import Interceptor, Side, chain, intercept_channel
from interpose.contrib.redis import RedisState, RedisStore
from interpose.contrib.redis.lines import line_beside
from interpose.contrib.redis.script import SCRIPT
from interpose.interceptors import Limit, RateLimit
from interpose.interceptors.keys import by_metadata
from interpose.testing import PLACES, Echo, FakeClock, FaultProxy, Place, Stub, ok, play
from tests.contrib.redis.server import LosingProxy, RedisServer, client_of, free_port
from tests.interceptors.driving import requests
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.needs("redis")

OK, EXHAUSTED, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE

# Every stack, side and kind once.
SOME = [place for number, place in enumerate(PLACES) if number in {0, 5, 10, 15}]


def a_client(port: int, asyncio: bool = False, **options: Any) -> Any:
    return (redis.asyncio.Redis if asyncio else redis.Redis)(port=port, **options)


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    """With a sync client."""
    made = RedisStore(a_client(server.port), timeout=PATIENCE)
    yield made
    made.close()


@pytest.fixture
async def awaited(server: RedisServer) -> AsyncIterator[RedisStore]:
    """With a client of redis.asyncio."""
    made = RedisStore(a_client(server.port, asyncio=True), timeout=PATIENCE)
    yield made
    await made.aclose()


def decided(limit: RateLimit, **given: Any) -> Any:
    """The outcome of one call on a server, played by hand."""
    return play(limit, [ok(), ...], side=Side.SERVER, **given).outcome


# --- where it runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in SOME if not place.asyncio], ids=str)
def test_sync(place: Place, store: RedisStore) -> None:
    """The second call of two is refused."""
    with place.open(RateLimit("1/hour", store=store), script=[ok(), ...]) as rpc:
        codes = [rpc.call(*requests(place)).code for _ in range(2)]

    assert codes == [OK, EXHAUSTED]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("side", Side)
async def test_asyncio(side: Side, plain: bool, awaited: RedisStore) -> None:
    """The same; plain handlers' threads wait for the loop."""
    limit = RateLimit("1/hour", store=awaited)

    codes = [code async for code in codes_of(limit, side=side, plain=plain)]

    assert codes == [OK, EXHAUSTED]


async def codes_of(
    *flows: Interceptor, calls: int = 2, side: Side = Side.SERVER, plain: bool = False
) -> AsyncIterator[Any]:
    """How calls end with these interceptors on that side."""
    served = flows if side is Side.SERVER else ()
    async with Echo().serve_aio(*served, plain=plain) as target, grpc.aio.insecure_channel(target) as channel:
        stub = Stub(channel if served else intercept_channel(channel, *flows))
        for _ in range(calls):
            call = stub.unary_unary("a")
            yield await call.code()


def limit_for(asyncio: bool, server: RedisServer) -> RateLimit:
    return RateLimit("1/hour", store=RedisStore(a_client(server.port, asyncio)))


def test_a_client_of_the_other_side_is_refused(server: RedisServer) -> None:
    """By a channel when the interceptor is put on; also within a chain."""
    blocking, awaited = limit_for(False, server), limit_for(True, server)

    with pytest.raises(TypeError, match=r"RateLimit cannot run here: its RedisStore has a client of redis\.asyncio"):
        intercept_channel(grpc.insecure_channel("localhost:1"), chain(awaited))

    async def on_a_loop() -> None:
        async with grpc.aio.insecure_channel("localhost:1") as channel:
            with pytest.raises(TypeError, match="has a sync client, which would block the event loop"):
                intercept_channel(channel, blocking)

    asyncio.run(on_a_loop())


@pytest.mark.parametrize("place", [place for place in SOME if place.side is Side.SERVER], ids=str)
def test_a_client_of_the_other_side_on_a_server(
    place: Place, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The first RPC ends with what is wrong, and so does the log; a server that looks before it starts is told."""
    limit = limit_for(not place.asyncio, server)

    with place.open(limit) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is grpc.StatusCode.INTERNAL and "RateLimit cannot run here: its RedisStore" in reply.details
    assert "RateLimit cannot run here: its RedisStore" in caplog.text
    (fault,) = limit.check_served(_Served(asyncio=place.asyncio))
    assert fault.startswith("RateLimit: its RedisStore")
    assert limit.check_served(_Served(asyncio=not place.asyncio)) == ()


class _Served:
    def __init__(self, asyncio: bool) -> None:
        self.asyncio = asyncio


# --- what it counts -------------------------------------------------------------------------------------------------


def test_what_is_the_same_counts_together(server: RedisServer) -> None:
    """Prefix, rate and key: a second store, as in a second process, goes on where the first was."""
    limits = [
        RateLimit("2/hour", store=RedisStore(a_client(server.port), timeout=PATIENCE), key=lambda call: "k"),
        RateLimit("2/hour", store=RedisStore(a_client(server.port), timeout=PATIENCE), key=lambda call: "k"),
        RateLimit("3/hour", store=RedisStore(a_client(server.port), timeout=PATIENCE), key=lambda call: "k"),
        RateLimit("2/hour", store=RedisStore(a_client(server.port), timeout=PATIENCE), key=lambda call: "other"),
        RateLimit(
            "2/hour", store=RedisStore(a_client(server.port), timeout=PATIENCE, prefix="p"), key=lambda call: "k"
        ),
    ]

    codes = [decided(limit).code for limit in [*limits[:2], limits[0], *limits[2:]]]
    for limit in limits:
        limit._store.close()  # type: ignore[attr-defined]

    assert codes == [OK, OK, EXHAUSTED, OK, OK, OK]
    assert len(server.client.keys("interpose:*")) == 3 and len(server.client.keys("p:*")) == 1


def test_several_limits_are_one_round_trip(store: RedisStore, server: RedisServer) -> None:
    """And a call that one refuses is counted by none; a limit whose key is None does not count."""
    limits = ["3/hour", Limit("2/hour", key=lambda call: "all"), Limit("1/day", key=lambda call: None)]
    limit = RateLimit(limits, store=store, key=by_metadata("x-tenant"))
    decided(limit, metadata=(("x-tenant", "a"),))
    server.client.config_resetstat()

    codes = [decided(limit, metadata=(("x-tenant", tenant),)).code for tenant in "aba"]

    assert codes == [OK, EXHAUSTED, EXHAUSTED]
    assert (server.times("evalsha"), server.times("eval"), server.times("set")) == (3, 0, 2)
    assert len(server.client.keys()) == 2  # nothing of b


def test_where_no_limit_counts_nothing_is_asked(store: RedisStore, server: RedisServer) -> None:
    """The call passes."""
    assert decided(RateLimit(["1/hour", "2/day"], store=store, key=lambda call: None)).ok
    assert server.times("eval") == server.times("evalsha") == 0


def test_calls_wait_for_their_turn(store: RedisStore) -> None:
    """The time that Redis says; one that would wait too long takes nothing."""
    clock = FakeClock()
    limit = RateLimit("1/minute", store=store, wait=True)

    first, second, third, fourth = [
        play(limit, [ok()] * sent, timeout=timeout, clock=clock)
        for sent, timeout in ((1, None), (1, 70), (0, 80), (1, 200))
    ]

    assert first.elapsed == 0
    assert 50 < second.elapsed <= 60
    assert third.outcome.code is EXHAUSTED and third.sent == []
    assert 110 < fourth.elapsed <= 120


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}, {"decode_responses": True}])
def test_options_of_the_client(server: RedisServer, options: dict[str, Any]) -> None:
    """Whichever protocol it speaks; the store has its address and credentials."""
    server.client.acl_setuser("user", enabled=True, passwords="+secret", keys="*", commands=["+@all"])
    store = RedisStore(a_client(server.port, username="user", password="secret", db=3, **options), timeout=PATIENCE)
    limit = RateLimit("1/hour", store=store)

    codes = [decided(limit).code for _ in range(2)]
    store.close()

    assert codes == [OK, EXHAUSTED]
    assert [database["keys"] for name, database in server.client.info("keyspace").items() if name == "db3"] == [1]


def test_no_secret_goes_to_redis(store: RedisStore, server: RedisServer) -> None:
    """The names of the keys hold digests, however long a key is."""
    limit = RateLimit("1/hour", store=store, key=by_metadata("x-api-key"))

    for value in ("s3cret", "s3cret" * 500):
        decided(limit, metadata=(("x-api-key", value),))

    keys = server.client.keys()
    assert len(keys) == 2 and all(b"s3cret" not in key and len(key) < 80 for key in keys)


# --- what happens to Redis ------------------------------------------------------------------------------------------


def test_a_script_that_is_gone_is_one_more_trip(store: RedisStore, server: RedisServer) -> None:
    """As after a restart."""
    limit = RateLimit("100/hour", store=store)
    for _ in range(2):
        decided(limit)
    server.client.script_flush()
    server.client.config_resetstat()

    for _ in range(2):
        decided(limit)

    assert (server.times("evalsha"), server.times("eval")) == (2, 1)
    assert store.snapshot() == RedisState(out=False, answered=4, failed=0, left_alone=0)


def test_a_lost_reply_is_one_call(server: RedisServer) -> None:
    """The script has run, and is not sent again, although the application's client would."""
    server.client.script_load(SCRIPT)
    with LosingProxy(server.port) as proxy:
        store = RedisStore(a_client(proxy.port), timeout=PATIENCE)
        outcome = decided(RateLimit("100/hour", store=store))
        store.close()

    assert proxy.lost.is_set()
    assert outcome.ok  # unchecked
    assert store.snapshot() == RedisState(out=False, answered=0, failed=1, left_alone=0)
    assert (server.times("evalsha"), server.times("eval"), server.times("set")) == (1, 0, 1)


def test_memory_that_is_full(server: RedisServer, store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    """No decision, and nothing of the call is counted."""
    limit = RateLimit(["1/hour", "2/hour"], store=store)
    server.client.config_set("maxmemory", 1)
    try:
        codes = [decided(limit).code for _ in range(2)]
    finally:
        server.client.config_set("maxmemory", 0)

    assert codes == [OK, OK] and server.client.keys() == []
    assert "OutOfMemoryError" in caplog.text
    assert [decided(limit).code for _ in range(2)] == [OK, EXHAUSTED]


def test_a_server_that_is_busy(server: RedisServer, store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    """It says so to whoever asks while a script runs for long; the decision is made without it."""
    limit = RateLimit("1/hour", store=store)
    decided(limit)
    server.client.config_set("lua-time-limit", 1)
    slow = "redis.setresp(3) while true do redis.call('GET', 'x') end"

    def run() -> None:
        with pytest.raises(redis.ResponseError, match="killed"):
            server.client.eval(slow, 0)

    runs = threading.Thread(target=run)
    runs.start()
    other = a_client(server.port, retry=None)
    try:
        while not is_busy(other):
            pass
        outcome = decided(limit)
    finally:
        other.script_kill()
        runs.join()
        other.close()

    assert outcome.ok and "BUSY" in caplog.text
    assert decided(limit).code is EXHAUSTED


def is_busy(client: Any) -> bool:
    try:
        client.get("x")
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def test_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    """It is left alone after three failures, tried once a second, and asked again as soon as it answers."""
    caplog.set_level(logging.INFO, "interpose")
    clock = FakeClock()
    with RedisServer() as server:
        store = RedisStore(a_client(server.port), timeout=PATIENCE)
        limit = RateLimit("1/hour", store=store)
        before = [decided(limit, clock=clock).code for _ in range(2)]
        server.stop()
        without = [decided(limit, clock=clock).code for _ in range(5)]
        out = store.snapshot()
        clock.advance(1)
        tried = [decided(limit, clock=clock).code for _ in range(2)]
        server.start()
        clock.advance(1)
        after = [decided(limit, clock=clock).code for _ in range(2)]
        state = store.snapshot()
        store.close()

    assert (before, without, tried, after) == ([OK, EXHAUSTED], [OK] * 5, [OK] * 2, [OK, EXHAUSTED])
    assert out == RedisState(out=True, answered=2, failed=3, left_alone=2)
    assert state == RedisState(out=False, answered=4, failed=4, left_alone=3)
    warnings = [record.getMessage() for record in caplog.records if "RedisStore" in record.getMessage()]
    assert [text.partition(":")[0] for text in warnings] == ["RedisStore", "RedisStore"]
    assert "1 failures since the last warning; ConnectionError" in warnings[0] and "fail='open'" in warnings[0]
    assert warnings[1] == "RedisStore: Redis answers again"


async def test_a_server_that_says_nothing(server: RedisServer) -> None:
    """The call waits no longer than the time-out, and passes unchecked; on both sides."""
    with FaultProxy(f"127.0.0.1:{server.port}") as proxy:
        proxy.black_hole()
        port = int(proxy.target.rpartition(":")[2])
        sync, awaited = (RedisStore(a_client(port, asyncio), timeout=0.02) for asyncio in (False, True))
        limits = [RateLimit("1/hour", store=sync), RateLimit("1/hour", store=awaited)]
        outcomes = [decided(limits[0]) for _ in range(5)]
        codes = [code async for code in codes_of(limits[1], calls=5)]
        sync.close()
        await awaited.aclose()

    assert all(outcome.ok for outcome in outcomes) and codes == [OK] * 5
    for limit, store in zip(limits, (sync, awaited), strict=True):
        assert store.snapshot() == RedisState(out=True, answered=0, failed=3, left_alone=2)
        assert limit.snapshot().unchecked == 5


@pytest.mark.parametrize("place", SOME, ids=str)
def test_closed(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """No call passes unchecked: UNAVAILABLE, with when to come back, and that it was not executed."""
    store = RedisStore(a_client(free_port(), place.asyncio), fail="closed")
    limit = RateLimit("1/hour", store=store)

    with place.open(limit) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(5)]

    assert {(reply.code, reply.details) for reply in replies} == {(UNAVAILABLE, "the rate limit cannot be checked")}
    assert all(reply.trailing_metadata["grpc-retry-pushback-ms"] == "1000" for reply in replies)
    assert all("interpose-not-executed" in reply.trailing_metadata for reply in replies)
    assert rpc.attempts == [] and limit.snapshot().refused == 5
    assert caplog.text.count("Calls are refused meanwhile (fail='closed')") == 1


def test_closed_in_a_dry_run() -> None:
    """Every call passes."""
    limit = RateLimit("1/hour", store=RedisStore(a_client(free_port()), fail="closed"), dry_run=True)

    assert decided(limit).ok and limit.snapshot().unchecked == 1


def test_local() -> None:
    """Each process counts for itself, its share of the rate."""
    store = RedisStore(a_client(free_port()), fail="local", share=0.5)
    limit = RateLimit("4/hour", store=store)

    codes = [decided(limit).code for _ in range(3)]

    assert codes == [OK, OK, EXHAUSTED]
    assert limit.snapshot().keys == 1 and limit.snapshot().unchecked == 0


async def test_a_call_that_is_cancelled_meanwhile(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """It is no failure, and its answer is given to no other call: the connection is not used again."""
    with FaultProxy(f"127.0.0.1:{server.port}") as proxy:
        store = RedisStore(a_client(int(proxy.target.rpartition(":")[2]), asyncio=True), timeout=PATIENCE)
        serving = Echo().serve_aio(RateLimit("1/hour", store=store))
        async with serving as target, grpc.aio.insecure_channel(target) as channel:
            stub = Stub(channel)
            await stub.unary_unary("a")
            (connection,) = store._line._pool._available_connections
            proxy.black_hole()
            call = stub.unary_unary("b")
            await until(lambda: store._line._pool._in_use_connections)
            call.cancel()
            await until(lambda: not store._line._pool._in_use_connections)
            assert not connection.is_connected
            proxy.heal()
            code = await stub.unary_unary("c").code()
        await store.aclose()

    assert code is EXHAUSTED
    assert store.snapshot() == RedisState(out=False, answered=2, failed=0, left_alone=0)
    assert "interceptor" not in caplog.text


async def until(true: Callable[[], Any]) -> None:
    while not true():  # noqa: ASYNC110  of a pool, which tells nobody
        await asyncio.sleep(0)


def test_an_answer_that_is_none(store: RedisStore) -> None:
    """Of something else than Redis: a failure like others."""
    limit = RateLimit("1/hour", store=store)
    decided(limit)
    for reply in ("OK", [b"1"], [1, 2], None):
        store._line.ask = lambda question, reply=reply: reply
        assert decided(limit).ok
        store._outage.answered()

    assert store.snapshot().failed == 4


# --- kinds of clients -----------------------------------------------------------------------------------------------


@pytest.mark.slow  # a cluster of one takes two seconds to believe that it is one
async def test_a_cluster() -> None:
    """All limits of a call lie on one node, whether they have one key or several."""
    with RedisServer("--cluster-enabled", "yes") as server:
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while server.client.cluster("INFO")["cluster_state"] != "ok":
            pass
        nodes = redis.cluster.ClusterNode("127.0.0.1", server.port)
        awaited_nodes = redis.asyncio.cluster.ClusterNode("127.0.0.1", server.port)
        given = [redis.RedisCluster(startup_nodes=[nodes]), redis.asyncio.RedisCluster(startup_nodes=[awaited_nodes])]
        sync, awaited = (RedisStore(client, timeout=PATIENCE) for client in given)
        several = ["3/hour", Limit("2/hour", key=lambda call: "all")]
        codes = [decided(RateLimit(several, store=sync)).code]
        codes += [code async for code in codes_of(RateLimit(several, store=awaited))]
        server.client.script_flush()
        codes += [code async for code in codes_of(RateLimit(["3/day", "2/day"], store=awaited), calls=3)]
        server.client.script_flush()
        codes += [decided(RateLimit(["3/7 days", "1/day"], store=sync)).code]
        for store in (sync, awaited):
            client = store._line._client
            assert client.retry._retries == 0
            assert not redis.__version__.startswith("5.") or client.cluster_error_retry_attempts == 0
        sync.close()
        await awaited.aclose()
        given[0].close()
        await given[1].aclose()

    assert codes == [OK, OK, EXHAUSTED, OK, OK, EXHAUSTED, OK]
    assert sync.snapshot().failed == awaited.snapshot().failed == 0


def test_a_sentinel(server: RedisServer) -> None:
    """The store asks the master that the Sentinel knows."""
    folder = server._folder.name
    config = Path(folder) / "sentinel.conf"
    port = free_port()
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {server.port} 1\n")
    process = subprocess.Popen(["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL, cwd=folder)
    try:
        client_of(process, port).close()
        sentinel = redis.Sentinel([("127.0.0.1", port)])
        store = RedisStore(sentinel.master_for("shop"), timeout=PATIENCE)
        limit = RateLimit("1/hour", store=store)
        codes = [decided(limit).code for _ in range(2)]
        store.close()
        for client in sentinel.sentinels:
            client.close()
    finally:
        process.kill()
        process.wait()

    assert codes == [OK, EXHAUSTED] and len(server.client.keys()) == 1


@pytest.mark.parametrize("asyncio", [False, True])
def test_a_pool_that_blocks(asyncio: bool) -> None:
    """For no longer than the time-out; its size stays."""
    module: Any = redis.asyncio if asyncio else redis
    pool = module.BlockingConnectionPool(max_connections=7, timeout=30)

    own = line_beside(module.Redis(connection_pool=pool), 0.05, asyncio)._pool

    assert own.connection_kwargs["retry"]._retries == 0
    assert type(own) is type(pool) and (own.max_connections, own.timeout) == (7, 0.05)


def test_a_url(server: RedisServer) -> None:
    """Of either side; a sync client unless it is said."""
    url = f"redis://127.0.0.1:{server.port}/2"
    store = RedisStore(url, timeout=PATIENCE)

    assert decided(RateLimit("1/hour", store=store)).ok
    store.close()
    assert RedisStore(url).unfit(False) is RedisStore(url, asyncio=True).unfit(True) is None
    assert RedisStore("unix:///run/redis.sock") and RedisStore("rediss://cache.example.org")


async def test_closing(server: RedisServer) -> None:
    """Each side has its own way; what was never used has nothing to close."""
    sync, awaited = RedisStore(a_client(1)), RedisStore(a_client(1, asyncio=True))

    with pytest.raises(TypeError, match=r"write `store\.close\(\)`"):
        await sync.aclose()
    with pytest.raises(TypeError, match=r"write `await store\.aclose\(\)`"):
        awaited.close()
    sync.close()
    await awaited.aclose()


# --- bad options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nobody", "is not one of Redis"),
        ("redis://", "names no server"),
        ("redis:///0", "names no server"),
        ("unix://", "names no server"),
        ("http://localhost", "is not one of Redis"),
        ("redis://localhost:port", "is not one of Redis"),
        ("redis://localhost:99999", "is not one of Redis"),
        ("", "is not one of Redis"),
    ],
)
def test_a_url_of_no_server(url: str, why: str) -> None:
    """Said when it is made, and how to write it."""
    with pytest.raises(ValueError, match=rf'RedisStore: the URL .*{why}.*; write it like "redis://host:6379/0"'):
        RedisStore(url)


def test_all_faults_are_told() -> None:
    """In one error."""
    with pytest.raises(ValueError, match=r"RedisStore: client must be a redis\.Redis") as error:
        RedisStore(
            object(),
            prefix="{a}",
            timeout=0,
            fail="ajar",  # type: ignore[arg-type]
            share=2,
            asyncio=1,  # type: ignore[arg-type]
        )

    for name in ("prefix", "timeout", "fail", "share", "asyncio"):
        assert f"; {name} must " in str(error.value)


def test_a_pool_of_another_kind() -> None:
    """It is not known how to make another like it."""

    class Pool:
        connection_kwargs: dict[str, Any] = {}  # noqa: RUF012

        def disconnect(self) -> None:
            pass

    client = a_client(1)
    client.connection_pool = Pool()

    with pytest.raises(ValueError, match="client must have a ConnectionPool"):
        RedisStore(client)


def test_without_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the line to install it."""
    for name in [name for name in sys.modules if name.startswith("interpose.contrib.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(ImportError, match=r'pip install "interpose\[redis\]"'):
        importlib.import_module("interpose.contrib.redis")


def test_what_it_says_of_itself(store: RedisStore) -> None:
    """No address and no secret."""
    assert repr(store) == "RedisStore(prefix='interpose', fail='open')"


# --- four processes -------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, redis
from interpose import Side
from interpose.contrib.redis import RedisStore
from interpose.interceptors import RateLimit
from interpose.testing import ok, play

client = redis.Redis(port=int(sys.argv[1]))
store = RedisStore(client, timeout=30)
limit = RateLimit("400/second", burst=200, store=store, key=lambda call: "one")


def now():
    seconds, microseconds = client.time()
    return seconds * 10**6 + microseconds

play(RateLimit("9/hour", store=store), [ok()], side=Side.SERVER)  # connects
print("ready", flush=True)
sys.stdin.readline()
times = [now()]
while times[-1] < times[0] + 10**6:
    play(limit, [ok(), ...], side=Side.SERVER)
    times.append(now())
print(*times[:2], *times[-2:], limit.snapshot().admitted)
"""


@pytest.mark.alone  # beside others they may not ask as often as is admitted
def test_four_processes_on_one_limit(server: RedisServer) -> None:
    """All that they admit is the burst and the rate times the time, within 2 in 100."""
    command = [sys.executable, "-c", PROGRAM, str(server.port)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [tuple(map(int, process.communicate()[0].split())) for process in processes]

    # The first decision came between the first two times, and the last one between the last two.
    befores, afters, lasts, ends, counts = zip(*told, strict=True)
    assert sum(counts) >= 0.98 * (200 + 400 * (max(lasts) - min(afters)) / 10**6)
    assert sum(counts) <= 1.02 * (200 + 400 * (max(ends) - min(befores)) / 10**6)
