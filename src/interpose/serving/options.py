"""What a server is run with: names and words as uvicorn's, where it has one for the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from interpose.mechanisms.options import insist, is_flag, is_whole
from interpose.mechanisms.text import one_line

Loop: TypeAlias = Literal["auto", "none", "asyncio", "uvloop"]

LOOPS = ("auto", "none", "asyncio", "uvloop")
LEVELS = ("critical", "error", "warning", "info", "debug")
STANDARD = ("health", "reflection", "channelz")

PORT = 50051  # the port of gRPC's own examples
GRACE = 20.0  # seconds; with CLEAN_UP and a drain delay of 5 it ends before the 30 that Kubernetes waits
CLEAN_UP = 5.0  # seconds that handlers have for their `finally`, once their RPCs were ended
FLUSH = 0.05  # seconds for what is written to leave, before the connection or the call that carries it is ended
THREADS = 32  # as many as Python's own pools have at most when no number is given
MOST_THREADS = 10_000
MOST_WORKERS = 1_000
MOST_SAID = 4096  # characters of a refusal
LONGEST = 86_400.0  # seconds; what takes longer than a day is a mistake of units


CHECKS = "ready must be a list of functions without arguments, of a ConcurrencyLimit, or of their names"


class CannotServe(ValueError):
    """What was asked for cannot be served; the text is one line that says why, and what to do.

    Raised before anything is started. `interpose serve` prints it and exits with status 2.
    """


def refusal(error: ValueError) -> str:
    """The line that `interpose serve` prints."""
    return f"interpose serve: {one_line(str(error).removeprefix('serve: '), MOST_SAID)}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `interpose.serve`, which explains them. ValueError for bad ones, all faults at once."""

    host: str = "127.0.0.1"
    port: int = PORT
    uds: str | None = None
    loop: Loop = "auto"
    threads: int | None = None
    workers: int | None = None
    reload: bool = False
    reload_dirs: Sequence[str] = ()
    factory: bool = False
    env_file: str | None = None
    policy: str | None = None
    policy_allow: Sequence[str] = ()
    policy_env: Sequence[str] = ()
    tls_key: str | None = None
    tls_cert: str | None = None
    tls_client_ca: str | None = None
    health: bool = True
    reflection: bool = True
    channelz: bool = False
    bare: Sequence[str] = ()
    ready: Sequence[Any] = ()
    drain_delay: float = 0.0
    timeout_graceful_shutdown: float = GRACE
    limit_concurrency: int | None = None
    max_connection_age: float | None = None
    options: Sequence[tuple[str, Any]] = ()
    log_level: str = "info"
    log_config: str | dict[str, Any] | None = None

    def __post_init__(self) -> None:
        insist(
            "serve",
            (isinstance(self.host, str) and bool(self.host), "host must be a name or an address, like 0.0.0.0"),
            (is_whole(self.port, 0, 65535), "port must be a whole number up to 65535, or 0 for any that is free"),
            (self.uds is None or bool(self.uds), "uds must be the path of a socket, like /run/shop.sock"),
            (self.loop in LOOPS, f"loop must be one of {', '.join(LOOPS)}"),
            (self.threads is None or is_whole(self.threads, 1, MOST_THREADS), "threads must be a whole number from 1"),
            (
                self.workers is None or is_whole(self.workers, 1, MOST_WORKERS),
                f"workers must be a whole number from 1 to {MOST_WORKERS}: leave it out to serve in this process",
            ),
            (not (self.reload and self.workers), "reload serves from one process: leave workers out, or reload"),
            (self.reload or not self.reload_dirs, "reload_dirs are for reload: give it too, or leave them out"),
            (
                not (self.uds and (self.workers or 1) > 1),
                "workers share a port, but no unix socket: give a port, or workers=1",
            ),
            *(
                ("-----BEGIN" not in str(getattr(self, name)), f"{name} must be the path of a file, not what is in it")
                for name in ("tls_key", "tls_cert", "tls_client_ca")
            ),
            (
                (self.tls_key is None) == (self.tls_cert is None),
                "tls_key and tls_cert go together: give both, as files in PEM",
            ),
            (
                self.tls_client_ca is None or self.tls_cert is not None,
                "tls_client_ca needs tls_key and tls_cert of the server's own",
            ),
            *(
                (is_flag(getattr(self, name)), f"{name} must be True or False")
                for name in (*STANDARD, "reload", "factory")
            ),
            (set(self.bare) <= set(STANDARD), f"bare must name some of {', '.join(STANDARD)}"),
            (
                not isinstance(self.ready, str)
                and all(isinstance(one, str) or can_be_asked(one) for one in self.ready),
                CHECKS,
            ),
            (not self.ready or self.health is True, "ready needs health, which is what it changes"),
            (
                self.policy is not None or not (self.policy_allow or self.policy_env),
                "policy_allow and policy_env are of a policy: give its file, policy",
            ),
            (_seconds(self.drain_delay), "drain_delay must be seconds, 0 or more"),
            (_seconds(self.timeout_graceful_shutdown), "timeout_graceful_shutdown must be seconds, 0 or more"),
            (
                self.limit_concurrency is None or is_whole(self.limit_concurrency, 1, MOST_THREADS),
                "limit_concurrency must be a whole number from 1",
            ),
            (
                not (self.limit_concurrency and self.threads) or self.limit_concurrency < self.threads,
                "limit_concurrency must be below threads: a call for which no thread is free cannot be refused",
            ),
            (
                self.max_connection_age is None or (_seconds(self.max_connection_age) and self.max_connection_age >= 1),
                "max_connection_age must be 1 second or more",
            ),
            (self.log_level in LEVELS, f"log_level must be one of {', '.join(LEVELS)}"),
        )

    @property
    def pool_size(self) -> int:
        """Threads of a sync server: more than may be busy, so that a refusal finds one."""
        return self.threads or max(THREADS, (self.limit_concurrency or 0) + 8)

    @property
    def watched(self) -> list[str]:
        """The folders whose files are watched for `reload`, and the policy."""
        return [*(self.reload_dirs or [str(Path.cwd())]), *([self.policy] if self.policy else [])]


def can_be_asked(check: object) -> bool:
    """Is it a check that health can follow?"""
    return callable(check) or hasattr(check, "snapshot")


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST
