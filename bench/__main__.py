"""`python -m bench`: measure what layers of middleware cost; print, keep and draw it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import figures, instructions, isolated, wire
from bench.about import about
from bench.families import load
from bench.figures import Results
from bench.places import MODES
from bench.processes import can_pin
from bench.report import rewrite, text
from bench.svg import picture
from bench.targets import OURS, verdicts

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: fresh processes of each mode, and rounds in each of them."""

    processes: int
    wire_rounds: int
    isolated_rounds: int
    loops: int


QUICK = Effort(processes=2, wire_rounds=25, isolated_rounds=2, loops=500)
FULL = Effort(processes=4, wire_rounds=100, isolated_rounds=5, loops=instructions.MORE)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the user asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, with more noise")
    parser.add_argument("--only", choices=("wire", "isolated", "instructions"), help="measure this level alone")
    parser.add_argument("--rounds", type=int, help=f"rounds on the wire in each process; else {FULL.wire_rounds}")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json", metavar="PATH")
    parser.add_argument("--svg", type=Path, default=HERE / "bench.svg", metavar="PATH")
    parser.add_argument("--from", dest="kept", type=Path, metavar="JSON", help="measure nothing; show what a run kept")
    parser.add_argument("--readme", action="store_true", help="write the tables into bench/README.md")
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 if a target is missed or we could not be measured"
    )
    return parser.parse_args(arguments)


def effort(asked: argparse.Namespace) -> Effort:
    """The effort asked for."""
    chosen = QUICK if asked.quick else FULL
    rounds = asked.rounds or chosen.wire_rounds
    return Effort(chosen.processes, rounds, chosen.isolated_rounds, chosen.loops)


def measure(work: Effort, only: str | None) -> Results:
    """Everything, or the one level asked for."""
    _, missing = load()
    for family, why in missing.items():
        say(f"SKIPPED {family}: cannot be imported here ({why})")
    results = Results(about(), missing)
    if only in (None, "wire"):
        results.wire = measure_wire(work)
    if only in (None, "isolated"):
        results.isolated = measure_isolated(work)
    if only == "instructions":  # some fifteen minutes under valgrind: not where it was not asked for
        results.instructions = count_instructions(work)
    return results


def measure_wire(work: Effort) -> figures.Figures:
    """Real RPCs, if the system lets us pin them."""
    if not can_pin():
        say("SKIPPED the wire: it takes a system that can pin processes to a core, such as Linux")
        return {}
    found: figures.Figures = {}
    for mode in MODES:
        rounds = []
        for process in range(work.processes):
            say(f"wire, {mode}: process {process + 1} of {work.processes}, {work.wire_rounds} rounds")
            rounds += wire.in_fresh_process(mode, work.wire_rounds)
        found |= figures.wire_figures(mode, rounds)
    return found


def measure_isolated(work: Effort) -> figures.Figures:
    """The hot loops."""
    found: figures.Figures = {}
    for mode in MODES:
        best = []
        for process in range(work.processes):
            say(f"isolated, {mode}: process {process + 1} of {work.processes}, {work.isolated_rounds} rounds")
            best.append(isolated.in_fresh_process(mode, work.isolated_rounds))
        found |= figures.isolated_figures(mode, best)
    return found


def count_instructions(work: Effort) -> dict[str, float]:
    """Instructions of one RPC of each arm, where valgrind is."""
    if not instructions.can_count():
        say("SKIPPED the instructions: it takes valgrind (apt-get install valgrind)")
        return {}
    found = {}
    for mode in MODES:
        for arm in instructions.arms(mode):
            found[arm.name] = instructions.per_call(arm, work.loops)
            say(f"instructions, {arm.name}: {found[arm.name]:,.0f}")
    return found


def say(words: str) -> None:
    """Tell the user how far we are; the tables alone go to standard output."""
    print(words, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep, draw. The exit status is 0 whatever the figures, unless `--strict`."""
    asked = options(arguments)
    results = figures.load(asked.kept) if asked.kept else measure(effort(asked), asked.only)
    print(text(results))
    if not asked.kept:
        results.save(asked.json)
    if drawn := picture(results):
        asked.svg.write_text(drawn)
    if asked.readme:
        rewrite(HERE / "README.md", results)
    failed = OURS in results.missing or not all(verdict.met for verdict in verdicts(results))
    return int(asked.strict and failed)


if __name__ == "__main__":
    sys.exit(main())
