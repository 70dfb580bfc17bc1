"""The differences between a raw call and ours that are intended: the rows of the table in docs/call-objects.md.

A row that can be seen in a scenario explains what is seen there; the others have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from interpose import Kind
from tests.conformance.calls.scenario import Scenario
from tests.conformance.calls.seeing import Sight

ABSENT = "(not seen)"


@dataclass(frozen=True)
class Mismatch:
    """One thing that was seen otherwise: at a step, what is looked at, and what was there."""

    asyncio: bool
    scenario: Scenario
    step: str
    key: str
    raw: Any
    ours: Any

    @property
    def of_an_error(self) -> bool:
        """Was it seen of an exception, raised or given?"""
        raised = self.key.startswith("raises: ") or self.step.endswith("exception")
        return raised or (self.scenario.form in ("call", "with_call") and "OK" not in self.scenario.ahead)


@dataclass(frozen=True)
class Row:
    """One intended difference. stacks: where it is. explains: does it account for this mismatch?"""

    id: str
    stacks: str  # "sync", "asyncio", "both"
    explains: Callable[[Mismatch], bool]
    examples: tuple[tuple[bool, Scenario], ...]  # asyncio?, and a scenario in which it occurs

    def accounts_for(self, mismatch: Mismatch) -> bool:
        here = "asyncio" if mismatch.asyncio else "sync"
        return self.stacks in ("both", here) and self.explains(mismatch)


def mismatches(asyncio: bool, scenario: Scenario, raw: list[Sight], ours: list[Sight]) -> Iterator[Mismatch]:
    """All that was seen otherwise."""
    for (step, there), (_, here) in zip(raw, ours, strict=True):
        for key in {**there, **here}:
            one, other = there.get(key, ABSENT), here.get(key, ABSENT)
            if one != other:
                yield Mismatch(asyncio, scenario, step, key, one, other)


def _typed(seen: Mismatch) -> bool:
    return seen.key.endswith("kin") and set(seen.ours) == {*seen.raw, "errors.StatusError"} != set(seen.raw)


def _snapshot(seen: Mismatch) -> bool:
    if not seen.of_an_error:
        return False
    changes = {
        "it is the call": [(True, False)],
        "cancelled(): value": [(True, False)],
        "time_remaining(): value": [("time is left", None), ("no time is left", None)],
    }
    return any(seen.key.endswith(key) and (seen.raw, seen.ours) in pairs for key, pairs in changes.items())


def _answers(seen: Mismatch) -> bool:
    # `time_remaining` and `is_active` of an error, and `add_callback`, which is refused as that of any call that is over.
    return seen.of_an_error and seen.raw == "NotImplementedError" and seen.ours in (None, False)


def _short_text(seen: Mismatch) -> bool:
    texts = ("str tells the status", "str tells the core's text")
    return seen.of_an_error and seen.key.endswith(texts) and (seen.raw, seen.ours) == (True, False)


def _looked_up(seen: Mismatch) -> bool:
    return seen.key.endswith("looked up") and seen.raw is None and seen.ours is not None


def _one_metadata(seen: Mismatch) -> bool:
    changes = {"_metadata(): tuple": (False, True), "_metadata(): aio.Metadata": (True, False)}
    return seen.of_an_error and any(
        seen.key.endswith(key) and (seen.raw, seen.ours) == change for key, change in changes.items()
    )


def _example(asyncio: bool, form: str, *steps: str, ahead: tuple[str, ...] = ()) -> tuple[bool, Scenario]:
    return asyncio, Scenario(Kind.UNARY_UNARY, form, "one", steps, ahead)


_FAILS = _example(False, "future", "server: NOT_FOUND", "settle", "kinship", "exception", "trailing_metadata")
_REFUSED = _example(False, "with_call", "is_active", "time_remaining", "add_callback", ahead=("NOT_FOUND",))
_AWAITED = _example(True, "stream", "server: NOT_FOUND", "settle", "await")

ROWS = (
    Row("typed-errors", "both", _typed, (_FAILS, _AWAITED)),
    Row("errors-are-snapshots", "sync", _snapshot, (_FAILS,)),
    Row("errors-answer", "sync", _answers, (_REFUSED,)),
    Row("text-of-errors", "both", _short_text, (_FAILS, _AWAITED)),
    Row("metadata-by-key", "sync", _looked_up, (_FAILS,)),
    Row("metadata-of-errors", "asyncio", _one_metadata, (_AWAITED,)),
)

# Shown by tests of their own, in test_differences.py: they need what no scenario has.
SHOWN_APART = (
    "dropped-streams",
    "callbacks-that-raise",
    "broken-request-streams",
    "cause-of-a-broken-stream",
    "no-time-left",
    "debug-text",
    "metadata-behind-a-cancel",
    "requests-that-cannot-be-serialized",
    "metadata-that-is-refused",
    "connection-of-an-ended-call",
    "status-behind-a-failed-write",
)
