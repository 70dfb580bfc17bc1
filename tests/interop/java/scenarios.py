"""The table: what a server does with each attempt, and what hedging makes of it; grpc-java and Interpose side by side.

All times are in units of the hedging delay, so that a scenario can be played at any pace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from interpose import Kind
from interpose.testing import failed, ok
from interpose.testing.acts import Act
from interpose.testing.echo import SERVICE

Script = Callable[[float], list[Act]]  # seconds of the hedging delay → what the server does, attempt by attempt

UNAVAILABLE = StatusCode.UNAVAILABLE
HANG = ok(hang=True)
NAMES = "abcdefgh"  # of attempts; what the server answers begins with it


@dataclass(frozen=True)
class Story:
    """What came of one call.

    sent:      when each attempt was sent, in delays since the first one.
    ends:      when the call ended, in delays since it began.
    answer:    the messages, or the details of the failure; None: a status that the client made itself.
    cancelled: the attempts, from 0, that the server saw cancelled.
    """

    sent: tuple[float, ...]
    ends: float
    answer: str | None
    code: str = "OK"
    cancelled: tuple[int, ...] = ()

    def __str__(self) -> str:
        sent = ", ".join(f"{time:g}" for time in self.sent)
        code = f"{self.code} " if self.code != "OK" or not self.answer else ""
        answer = f'"{self.answer}" ' if self.answer else ""
        cancelled = f"; {', '.join(NAMES[number] for number in self.cancelled)} cancelled" if self.cancelled else ""
        return f"sent at {sent}; {code}{answer}at {self.ends:g}{cancelled}"


@dataclass(frozen=True)
class Scenario:
    """A server, a policy, and what comes of them.

    java, ours: a story per call; ours is None where it is the same.
    because:    why ours differs.
    copies, delay, codes: of the hedging policy. throttle: maxTokens and tokenRatio.
    timeout, cancel_after: of each call, in delays.
    """

    name: str
    script: Script
    java: tuple[Story, ...]
    ours: tuple[Story, ...] | None = None
    because: str = ""
    copies: int = 3
    delay: float = 1.0
    codes: tuple[str, ...] = ("UNAVAILABLE",)
    throttle: tuple[float, float] | None = None
    timeout: float | None = None
    cancel_after: float | None = None
    kind: Kind = Kind.UNARY_UNARY

    def stories(self, client: str) -> tuple[Story, ...]:
        """What is expected of "java", or of one of ours."""
        return self.java if client == "java" or self.ours is None else self.ours

    def config(self, unit: float) -> dict[str, Any]:
        """The service config, for both."""
        policy = {
            "maxAttempts": self.copies,
            "hedgingDelay": f"{self.delay * unit:.3f}s",
            "nonFatalStatusCodes": list(self.codes),
        }
        config: dict[str, Any] = {"methodConfig": [{"name": [{"service": SERVICE}], "hedgingPolicy": policy}]}
        if self.throttle is not None:
            config["retryThrottling"] = dict(zip(("maxTokens", "tokenRatio"), self.throttle, strict=True))
        return config


def fails(details: str, code: StatusCode = UNAVAILABLE, **more: Any) -> Act:
    return failed(code, details, **more)


SCENARIOS = [
    Scenario(
        "the first answers before the delay",
        lambda d: [ok("a", delay=d / 2)],
        (Story((0,), 0.5, "a"),),
    ),
    Scenario(
        "a slow answer: a copy at each delay, up to maxAttempts",
        lambda d: [ok("a", delay=4 * d), HANG, HANG],
        (Story((0, 1, 2), 4, "a", cancelled=(1, 2)),),
    ),
    Scenario(
        "a copy answers first",
        lambda d: [HANG, ok("b", delay=d / 2)],
        (Story((0, 1), 1.5, "b", cancelled=(0,)),),
    ),
    Scenario(
        "the first fails at once, not fatally",
        lambda d: [fails("a"), HANG, ok("c")],
        (Story((0, 1, 2), 2, "c", cancelled=(1,)),),
        ours=(Story((0, 0, 1), 1, "c", cancelled=(1,)),),
        because="gRFC A6: the next one goes at once, then the delay resumes; grpc-java lets its timer run on",
    ),
    Scenario(
        "a copy fails, not fatally",
        lambda d: [HANG, fails("b"), HANG, ok("d")],
        (Story((0, 1, 2, 3), 3, "d", cancelled=(0, 2)),),
        ours=(Story((0, 1, 1, 2), 2, "d", cancelled=(0, 2)),),
        because="the same: the next one at once",
        copies=4,
    ),
    Scenario(
        "the last copy fails, not fatally, while others are pending",
        lambda d: [ok("a", delay=3 * d), fails("b", delay=d / 2)],
        (Story((0, 1), 3, "a"),),
        copies=2,
    ),
    Scenario(
        "the first fails fatally",
        lambda d: [fails("a", StatusCode.NOT_FOUND)],
        (Story((0,), 0, "a", "NOT_FOUND"),),
    ),
    Scenario(
        "a copy fails fatally",
        lambda d: [HANG, fails("b", StatusCode.INVALID_ARGUMENT, delay=d / 2)],
        (Story((0, 1), 1.5, "b", "INVALID_ARGUMENT", cancelled=(0,)),),
    ),
    Scenario(
        "a copy fails, and no code is non-fatal",
        lambda d: [HANG, fails("b", delay=d / 2)],
        (Story((0, 1), 1.5, "b", "UNAVAILABLE", cancelled=(0,)),),
        codes=(),
    ),
    Scenario(
        "pushback -1: no more copies, the pending one is waited for",
        lambda d: [ok("a", delay=3 * d), fails("b", pushback="-1")],
        (Story((0, 1), 3, "a"),),
    ),
    Scenario(
        "pushback -1, nothing pending",
        lambda d: [fails("a", pushback="-1")],
        (Story((0,), 0, "a", "UNAVAILABLE"),),
    ),
    Scenario(
        "pushback that is not a number",
        lambda d: [ok("a", delay=3 * d), fails("b", pushback="soon")],
        (Story((0, 1), 3, "a"),),
    ),
    Scenario(
        "pushback of two delays, then the delay resumes",
        lambda d: [fails("a", pushback=2 * d), HANG, ok("c")],
        (Story((0, 2, 3), 3, "c", cancelled=(1,)),),
    ),
    Scenario(
        "pushback of half a delay, from a copy",
        lambda d: [HANG, fails("b", pushback=d / 2), HANG, ok("d")],
        (Story((0, 1, 1.5, 2.5), 2.5, "d", cancelled=(0, 2)),),
        copies=4,
    ),
    Scenario(
        "pushback of half a delay, with a fatal code",
        lambda d: [fails("a", StatusCode.NOT_FOUND, pushback=d / 2)],
        (Story((0,), 0, "a", "NOT_FOUND"),),
    ),
    Scenario(
        "pushback beyond the deadline",
        lambda d: [fails("a", pushback=8 * d)],
        (Story((0,), 2, None, "DEADLINE_EXCEEDED"),),
        ours=(Story((0,), 0, "a", "UNAVAILABLE"),),
        because="nothing can come of waiting, so the failure is reported at once",
        timeout=2,
    ),
    Scenario(
        "all fail, the last copy last",
        lambda d: [fails("a"), fails("b"), fails("c")],
        (Story((0, 1, 2), 2, "c", "UNAVAILABLE"),),
        ours=(Story((0, 0, 0), 0, "c", "UNAVAILABLE"),),
        because="the same: the next one at once; for both the failure that came last is the answer",
    ),
    Scenario(
        "all fail, the first one last",
        lambda d: [fails("a", delay=3 * d), fails("b", delay=d / 2)],
        (Story((0, 1), 3, "a", "UNAVAILABLE"),),
        copies=2,
    ),
    Scenario(
        "three calls, few tokens: failures stop copies, a good answer allows them again",
        # 4 tokens, copies only above 2. First call: 4 → 3 → 2. Second: no copy, 2 → 3. Third: a copy.
        lambda d: [fails("a"), fails("b"), ok("c", delay=1.5 * d), HANG, ok("e")],
        (
            Story((0, 1), 1, "b", "UNAVAILABLE"),
            Story((0,), 1.5, "c"),
            Story((0, 1), 1, "e", cancelled=(0,)),
        ),
        ours=(
            Story((0, 0), 0, "b", "UNAVAILABLE"),
            Story((0,), 1.5, "c"),
            Story((0, 1), 1, "e", cancelled=(0,)),
        ),
        because="the same: the next one at once; the tokens are counted alike",
        throttle=(4, 1),
    ),
    Scenario(
        "out of tokens while another is pending",
        lambda d: [ok("a", delay=3 * d), fails("b")],
        (Story((0, 1), 1, "b", "UNAVAILABLE", cancelled=(0,)),),
        ours=(Story((0, 1), 3, "a"),),
        because="tokens only suppress further copies; grpc-java gives up what is pending, too",
        throttle=(2, 1),
    ),
    Scenario(
        "hedgingDelay 0: all at once",
        lambda d: [HANG, HANG, ok("c", delay=d)],
        (Story((0, 0, 0), 1, "c", cancelled=(0, 1)),),
        delay=0.0,
    ),
    Scenario(
        "maxAttempts 7, all at once",
        lambda d: [HANG, HANG, HANG, HANG, ok("e", delay=d), HANG, HANG],
        (Story((0, 0, 0, 0, 0), 1, "e", cancelled=(0, 1, 2, 3)),),
        ours=(Story((0, 0, 0, 0, 0, 0, 0), 1, "e", cancelled=(0, 1, 2, 3, 5, 6)),),
        because="the policy counts as written; grpc-java has a limit of 5 per channel, which its builder can raise",
        copies=7,
        delay=0.0,
    ),
    Scenario(
        "the deadline ends all",
        lambda d: [HANG, HANG, HANG],
        (Story((0, 1, 2), 2.5, None, "DEADLINE_EXCEEDED", cancelled=(0, 1, 2)),),
        timeout=2.5,
    ),
    Scenario(
        "the application cancels",
        lambda d: [HANG, HANG],
        (Story((0, 1), 1.5, None, "CANCELLED", cancelled=(0, 1)),),
        cancel_after=1.5,
    ),
    Scenario(
        "metadata comes first, the message late",
        lambda d: [HANG, ok("b", initial=(("k", "v"),), delay=1.5 * d), ok("c", delay=d / 4)],
        (Story((0, 1), 2.5, "b", cancelled=(0,)),),
        ours=(Story((0, 1, 2), 2.25, "c", cancelled=(0, 1)),),
        because="metadata is not yet an answer; grpc-java commits to the attempt that sends it first",
    ),
    Scenario(
        "response stream: the first answers before the delay",
        lambda d: [ok("a1", "a2", delay=d / 2)],
        (Story((0,), 0.5, "a1 a2"),),
        kind=Kind.UNARY_STREAM,
    ),
    Scenario(
        "response stream: the first to deliver wins",
        lambda d: [HANG, HANG, ok("c1", "c2", "c3", delay=d / 2)],
        (Story((0, 1, 2), 2.5, "c1 c2 c3", cancelled=(0, 1)),),
        kind=Kind.UNARY_STREAM,
    ),
    Scenario(
        "response stream: the first to end, without a message",
        lambda d: [HANG, Act(responses=(), delay=d / 2)],
        (Story((0, 1), 1.5, "", cancelled=(0,)),),
        kind=Kind.UNARY_STREAM,
    ),
    Scenario(
        "response stream: a failure after the first message is the answer",
        lambda d: [HANG, fails("b", responses=("b1", "b2"), after=1)],
        (Story((0, 1), 1, "b1 b", "UNAVAILABLE", cancelled=(0,)),),
        kind=Kind.UNARY_STREAM,
    ),
    Scenario(
        "response stream: the first fails at once, before any message",
        lambda d: [fails("a"), HANG, ok("c1", "c2")],
        (Story((0, 1, 2), 2, "c1 c2", cancelled=(1,)),),
        ours=(Story((0, 0, 1), 1, "c1 c2", cancelled=(1,)),),
        because="the same: the next one at once",
        kind=Kind.UNARY_STREAM,
    ),
    Scenario(
        "response stream: metadata comes first, the message late",
        lambda d: [HANG, ok("b", initial=(("k", "v"),), delay=1.5 * d), ok("c", delay=d / 4)],
        (Story((0, 1), 2.5, "b", cancelled=(0,)),),
        ours=(Story((0, 1, 2), 2.25, "c", cancelled=(0, 1)),),
        because="the same: metadata is not yet an answer",
        kind=Kind.UNARY_STREAM,
    ),
]


def table() -> str:
    """The scenarios as a table of a page."""
    rows = ["| what happens | grpc-java | Interpose | why |", "|---|---|---|---|"]
    for scenario in SCENARIOS:
        ours = _told(scenario.ours) if scenario.ours else "the same"
        rows.append(f"| {scenario.name} | {_told(scenario.java)} | {ours} | {scenario.because} |")
    return "\n".join(rows)


def _told(stories: tuple[Story, ...]) -> str:
    return "<br>".join(map(str, stories))


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
