"""`python -m bench.limits`: what a rate limit costs, beside the package `limits` and beside Redis itself.

All contenders of a row are timed in turns, slice by slice, and the best slice counts, since noise only ever adds. So the
ratios hold on a busy machine too.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from time import monotonic_ns, perf_counter_ns, sleep, thread_time_ns
from typing import Any

from bench import hot
from bench.families.ours import noop
from bench.processes import can_pin, pin
from interpose import server_interceptor
from interpose._clock import SYSTEM
from interpose.interceptors import LocalStore, Rate, RateLimit
from interpose.interceptors.keys import by_method
from interpose.mechanisms.gcra import Gcra

DECISION = 1 / 8
"""Of what `limits` takes for a hit on a fixed window in memory."""

LAYER = 1500 / 2300
"""Over a flow that does nothing: 1.5 µs on a machine on which a hit of `limits` takes 2.3."""

ROUND_TRIP = 1.15
"""Of an EVALSHA of a script that does nothing."""

ROUNDS = 150
TIMES = 1000  # of a loop in one slice
TRIPS = 50  # of round trips in one slice

Loop = Callable[[int], object]


def best(loops: dict[str, Loop], times: int, clock: Callable[[], int] = thread_time_ns) -> dict[str, float]:
    """Nanoseconds per turn of each loop: the best of `ROUNDS` slices, taken in turns."""
    found = dict.fromkeys(loops, float("inf"))
    for _ in range(ROUNDS):
        for name in random.sample(list(loops), len(loops)):
            began = clock()
            loops[name](times)
            found[name] = min(found[name], (clock() - began) / times)
    return found


def callers() -> list[str]:
    """Who calls: a hundred of them."""
    return [f"10.0.0.{number}" for number in range(100)]


def decisions() -> dict[str, Loop]:
    """One decision for one of a hundred callers, all of which pass."""
    from limits import RateLimitItemPerSecond  # noqa: PLC0415  the test of the other figures does without
    from limits.storage import MemoryStorage  # noqa: PLC0415
    from limits.strategies import FixedWindowRateLimiter  # noqa: PLC0415

    window, item = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(10**9)
    take, keys = Gcra(1, 10**9, 100_000).take, callers()

    def theirs(times: int) -> None:
        for _ in range(times // len(keys)):
            for key in keys:
                window.hit(item, key)

    def ours(times: int) -> None:
        for _ in range(times // len(keys)):
            for key in keys:
                take(key, monotonic_ns())

    return {"limits": theirs, "ours": ours}


def layers() -> dict[str, Loop]:
    """A unary RPC on a sync server without a network: one layer."""
    limit = RateLimit("1000000000/second", key=by_method, store=LocalStore())
    peers = RateLimit("1000000000/second")
    return {
        name: hot.server_unary([server_interceptor(layer)])
        for name, layer in {"no-op": noop, "by_method": limit, "by_identity": peers}.items()
    }


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis server of our own; gives its socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  all of it is written here
        try:
            while not path.exists():
                sleep(0.01)
            yield str(path)
        finally:
            server.terminate()
            server.wait()


def round_trips(path: str) -> dict[str, Loop]:
    """One question to Redis, and the answer."""
    import redis  # noqa: PLC0415

    from interpose.contrib.redis import RedisStore  # noqa: PLC0415

    client = redis.Redis(unix_socket_path=path)
    nothing = client.script_load("return {0}")
    store = RedisStore(client)
    limiter: Any = store.limiter([Rate(10**6)], one_key=True, patience=0)
    keys = callers()

    def bare(times: int) -> None:
        for number in range(times):
            client.evalsha(nothing, 1, keys[number % len(keys)])

    def ours(times: int) -> None:
        for number in range(times):
            for _ in limiter.take((keys[number % len(keys)],), 0, SYSTEM):
                raise AssertionError("a sync client waits for nothing")

    def theirs(times: int) -> None:
        for number in range(times):
            window.hit(item, keys[number % len(keys)])

    from limits import RateLimitItemPerSecond  # noqa: PLC0415
    from limits.storage import RedisStorage  # noqa: PLC0415
    from limits.strategies import FixedWindowRateLimiter  # noqa: PLC0415

    window, item = FixedWindowRateLimiter(RedisStorage(f"redis+unix://{path}")), RateLimitItemPerSecond(10**9)
    return {"bare EVALSHA": bare, "ours": ours, "limits": theirs}


def verdict(name: str, ours: float, theirs: float, most: float) -> str:
    """A line: nanoseconds of both, their ratio, and whether it is small enough."""
    ratio = ours / theirs
    judged = "" if most == float("inf") else f"at most ×{most:.3f}: {'PASS' if ratio <= most else 'MISS'}"
    return f"| {name} | {ours / 1000:.2f} of {theirs / 1000:.2f} µs | ×{ratio:.3f} | {judged} |"


def table() -> Iterator[str]:
    """Markdown, a line per figure."""
    yield "| | | | |"
    yield "| --- | ---: | ---: | --- |"
    took = best(decisions() | layers(), TIMES)
    hit = took["limits"]
    yield verdict("a decision in memory, beside a fixed window of `limits`", took["ours"], hit, DECISION)
    for name in ("by_method", "by_identity"):
        yield verdict(f"a `RateLimit` over a no-op, {name}, beside the same", took[name] - took["no-op"], hit, LAYER)
    if not which("redis-server"):
        return
    with redis_server() as path:
        took = best(round_trips(path), TRIPS, perf_counter_ns)
    bare = took["bare EVALSHA"]
    yield verdict("a decision in Redis, beside a script that does nothing", took["ours"], bare, ROUND_TRIP)
    yield verdict("the same by `limits`", took["limits"], bare, float("inf"))


def main() -> None:
    """Measure, and print."""
    if can_pin():
        pin()
    for line in table():
        print(line, flush=True)
    if not which("redis-server"):
        print("SKIPPED Redis: there is no redis-server; `scripts/interop --install` installs it", file=sys.stderr)


if __name__ == "__main__":
    main()
