"""The flags that send a call again: our own `Retry` and `Hedge`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import grpc

from interpose._attach import intercept_channel
from interpose._flow import Interceptor
from interpose.cli.durations import duration
from interpose.cli.failures import Refused
from interpose.cli.options import group
from interpose.interceptors import Hedge, Retry
from interpose.interceptors.hedge import MAX_COPIES

MOST_ATTEMPTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeating:
    """How often a call may be sent. idempotent: it may be executed twice; what its proto says counts too."""

    attempts: int
    per_attempt: float | None
    hedge: int
    hedge_delay: float
    idempotent: bool

    def around(self, channel: grpc.Channel, method: Any, tell: Callable[[str], object]) -> grpc.Channel:
        """The channel with what the flags ask for around it. tell: called with a line before each retry."""
        stack = self.stack(method, tell)
        return intercept_channel(channel, *stack) if stack else channel

    def stack(self, method: Any, tell: Callable[[str], object]) -> Sequence[Interceptor]:
        """The interceptors, the outermost first. Refused: copies of a call that is not declared safe."""
        safe = self.idempotent or bool(method.GetOptions().idempotency_level) or None
        if self.hedge > 1 and not safe:
            raise Refused(
                f"{method.full_name} is not hedged: its proto does not say that it may be executed twice; "
                "if it may, add --idempotent"
            )
        stack: list[Interceptor] = []
        if self.attempts > 1:
            stack.append(Retry(self.attempts, safe=safe, per_attempt=self.per_attempt, on_retry=_teller(tell)))
        if self.hedge > 1:
            stack.append(Hedge(self.hedge, delay=self.hedge_delay, safe=True))
        return stack


def _teller(tell: Callable[[str], object]) -> Callable[[Any], object]:
    return lambda retry: tell(f"retry {retry.number} in {retry.pause:.3g} s, after {retry.outcome.code.name}")


OPTIONS = (
    click.option("--attempts", type=click.IntRange(1, MOST_ATTEMPTS), default=1, show_default=True, metavar="N",
                 help="Send it so often at most, while it fails for a reason that passes (Retry)."),
    click.option("--per-attempt", type=duration, metavar="TIME", help="How long the server has to begin to answer one."),
    click.option("--hedge", type=click.IntRange(1, MAX_COPIES), default=1, show_default=True, metavar="N",
                 help="Up to this number of copies, of which the first answer counts (Hedge)."),
    click.option("--hedge-delay", type=duration, default="50ms", metavar="TIME",
                 help="How long to wait for an answer before the next copy goes. Default: 50ms."),
    click.option("--idempotent", is_flag=True, help="It may be executed twice, whatever its proto says."),
)  # fmt: skip

# Gives a command these flags: it is called with `repeating`.
with_repeating = group(OPTIONS, "repeating", Repeating, "attempts", "per_attempt", "hedge", "hedge_delay", "idempotent")
