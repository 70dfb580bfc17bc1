"""`--serve`: a page of the demo's services at work, for as long as it is looked at."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc.aio

from interpose import Call, Flow, intercept_channel
from interpose.demo.interceptors import Faults
from interpose.demo.load import call_asyncio, make_jobs
from interpose.demo.run import both_servers
from interpose.demo.stack import ATTEMPTS, RETRIED, SHARE, Stack, bare_server_stack
from interpose.interceptors import CircuitBreaker, ConcurrencyLimit, RateLimit, RequestId, Retry, Rpcz
from interpose.mechanisms.backoff import exponential

CALLS = 2  # of each kind, to each server, in one round
PAUSE = 0.25  # seconds between two rounds
ROUNDS = 100  # that are distinguished: what refuses attempts remembers each call
SLOW, LATE = 0.04, 1.5  # a share of the calls, and the seconds that they take longer


async def live(seed: int, say: Callable[[str], object]) -> None:
    """Call both servers over and over, and say where the page of it is. It goes on until it is cancelled."""
    chance = random.Random(seed)
    client, server = _guards()
    rpcz = Rpcz([*client, *server], title="interpose.demo")
    faults = Faults(seed, SHARE / 10)  # few enough for the budget of retries

    def sometimes_late(call: Call) -> Flow:
        yield call.after(LATE) if chance.random() < SLOW else call

    async def calls(target: str, name: str) -> None:
        async with grpc.aio.insecure_channel(target) as native:
            channel = intercept_channel(native, RequestId(), rpcz, *client)
            round_ = 0
            while True:
                jobs = make_jobs(seed + round_, CALLS)
                await call_asyncio(channel, f"{name}-{round_}", jobs, _nothing)
                round_ = (round_ + 1) % ROUNDS
                await asyncio.sleep(PAUSE)

    stack: Stack = (RequestId(), rpcz, *server, sometimes_late, *bare_server_stack(faults))
    with tempfile.TemporaryDirectory(prefix="interpose-demo-") as folder, rpcz.serve() as page:
        async with both_servers(Path(folder) / "live.sqlite", lambda _: stack) as targets:
            say(page.url)
            await asyncio.gather(*(calls(target, name) for name, target in targets.items()))


def _guards() -> tuple[Stack, Stack]:
    """What goes before the calls of a client, and before the handlers of a server."""
    retry = Retry(attempts=ATTEMPTS, codes=RETRIED, backoff=exponential(0.05, cap=1.0), safe=True)
    return (retry, CircuitBreaker()), (ConcurrencyLimit(32), RateLimit("200/second"))


def _nothing() -> None:
    """A call has ended; they are not counted here."""
