"""Counts of `RateLimit` in Redis, which many processes share. Needs the extra `redis`."""

try:
    import redis as _  # noqa: F401  is it there?
except ImportError as missing:
    raise ImportError('counts in Redis need a package more: pip install "interpose[redis]"') from missing

from interpose.contrib.redis.store import RedisState, RedisStore

__all__ = ["RedisState", "RedisStore"]
