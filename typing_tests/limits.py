"""Limits as users type them: checked by mypy --strict and pyright, never run."""

from typing import assert_type

import grpc
import redis
import redis.asyncio

from interpose import Call, Interceptor, context, intercept_channel, server_interceptor
from interpose.contrib.redis import RedisState, RedisStore
from interpose.interceptors import (
    Limit,
    LocalStore,
    Rate,
    RateLimit,
    RateLimited,
    RateLimitState,
    RealIp,
    RefusalDetails,
)
from interpose.interceptors.keys import by_identity, by_metadata, by_method, by_peer
from interpose.interceptors.rate_limit import Store


def tenant(call: Call) -> str | None:
    return None if call.method.name == "Check" else str(call.metadata.get("x-tenant"))


def refused(details: RefusalDetails) -> None:
    assert_type(details.call, Call)
    assert_type(details.limit, Rate)
    assert_type(details.key, str)
    assert_type(details.retry_in, float)


store = RedisStore(redis.Redis(), prefix="shop", timeout=0.1, fail="local", share=0.25)
stores: list[Store] = [
    LocalStore(),
    LocalStore(10),
    store,
    RedisStore(redis.asyncio.Redis()),
    RedisStore("redis://h/0"),
]
stack: list[Interceptor] = [
    RealIp(["10.0.0.0/8", "unix"], header="x-real-ip"),
    RateLimit("100/second"),
    RateLimit("100/second", burst=20, key=by_peer, store=store, on_refuse=refused),
    RateLimit(Rate(10, per=60, burst=3), key=by_identity, dry_run=True, trailers=True),
    RateLimit(["5 per 2 hours", Rate(1), Limit("1/day", key=by_method)], key=by_metadata("x-tenant")),
    RateLimit(Limit(Rate(3)), key=tenant, wait=True),
    RateLimit("1/second", wait=2.5),
]

channel: grpc.Channel = intercept_channel(grpc.insecure_channel("localhost:50051"), *stack)
server_interceptor(*stack)
limit = RateLimit("1/second")
assert_type(limit.snapshot(), RateLimitState)
assert_type(store.snapshot(), RedisState)
assert_type(Rate.of("1/second"), Rate)
assert_type(context.real_ip(), str | None)


def retry_in(error: RateLimited) -> float:
    return error.retry_in


RateLimit(5)  # type: ignore[arg-type]
RateLimit("1/second", key=lambda call: 5)  # type: ignore[arg-type, return-value]
RateLimit("1/second", wait="long")  # type: ignore[arg-type]
RedisStore(redis.Redis(), fail="ajar")  # type: ignore[arg-type]
RealIp(5)  # type: ignore[arg-type]
