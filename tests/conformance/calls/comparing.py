"""The comparison: one scenario on a raw channel, and on every wrapped one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hypothesis import HealthCheck, settings

from tests.conformance.calls.differences import ROWS, Mismatch, mismatches
from tests.conformance.calls.scenario import Scenario
from tests.conformance.calls.seeing import Sight
from tests.conformance.calls.ways import RAW
from tests.support.examples import examples

# Derandomised: what is green stays green. `--hypothesis-profile=thorough` looks further.
EXAMPLES = examples(25)
bounded = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
fewer = settings(bounded, max_examples=EXAMPLES // 3 + 1)  # where each example has to wait for time to pass

EXPIRED_UNSENT = "the deadline passed before the call was sent"


@dataclass(frozen=True)
class Side:
    """One stack. ways: the channels. run: a scenario on the channel of a way."""

    asyncio: bool
    ways: Iterable[str]
    run: Callable[[str, Scenario], list[Sight]]

    def compare(self, scenario: Scenario) -> dict[str, list[Mismatch]]:
        """What was seen otherwise than on the raw channel, by the way in which the channel was wrapped."""
        raw = self.run(RAW, scenario)
        ours = {way: self._in_time(way, scenario) for way in self.ways if way != RAW}
        return {way: list(mismatches(self.asyncio, scenario, raw, sights)) for way, sights in ours.items()}

    def _in_time(self, way: str, scenario: Scenario) -> list[Sight]:
        """On a machine that stands still for a moment a short deadline may pass before the call is sent: then again."""
        for _ in range(10):
            sights = self.run(way, scenario)
            if not any(EXPIRED_UNSENT in map(str, seen.values()) for _, seen in sights):
                return sights
        raise AssertionError("the deadline passed ten times before the call was sent")

    def unexplained(self, scenario: Scenario) -> list[str]:
        """The differences that are not intended."""
        return [
            f"{way}: {seen.step}: {seen.key}: {seen.raw!r} became {seen.ours!r}"
            for way, found in self.compare(scenario).items()
            for seen in found
            if not any(row.accounts_for(seen) for row in ROWS)
        ]
