"""Break the source in one place after the other, and see whether the suite notices: `scripts/mutants`.

For each fault the tests that are likely to notice run first; only if they do not, all tests do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.mutants.seeded import AREAS, Mutant, mutants

ROOT = Path(__file__).parents[2]
QUICK = ("--part=quick", "--hypothesis-profile=quick")
PARTS = {"quick": (QUICK,), "test": (("--part=together", "--hypothesis-profile=short"), ("--part=alone",))}
SPREAD = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
SOME, ALL = 300, 1800  # seconds for some tests, and for all of them: a fault that makes them hang is caught by then


@contextmanager
def copied(tree: Path) -> Iterator[Path]:
    """A copy of what git knows of a checkout, to be broken."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=tree, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            if (tree / name).is_file():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(tree / name, target)
        yield Path(folder)


def fails(tree: Path, *arguments: str) -> bool:
    """Does a run of pytest in this checkout fail? Nothing to run is no failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            timeout=ALL if SPREAD[0] in arguments else SOME,
            check=False,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode not in (0, 5)


def likely(tree: Path, mutant: Mutant) -> list[str]:
    """The tests that are run first."""
    return [f"tests/{path}" for path in mutant.tests if (tree / "tests" / path).exists()]


def unsound(tree: Path, chosen: list[Mutant]) -> list[str]:
    """Tests that fail although nothing is broken: what they notice would prove nothing."""
    paths = sorted({path for mutant in chosen for path in likely(tree, mutant)})
    if not fails(tree, *QUICK, *SPREAD, *paths):
        return []
    return [path for path in paths if fails(tree, *QUICK, path)]


def caught(tree: Path, mutant: Mutant) -> dict[str, bool]:
    """Which of `make quick` and `make test` notice; tests of `quick` are tests of `test` too."""
    file = tree / "src" / mutant.file
    whole = file.read_text("utf-8")
    try:
        file.write_text(mutant.patched(whole), "utf-8")
        # By themselves the tests of the faults notice every fault: they do not count.
        spared = f"--ignore={tree / 'tests' / 'mutants'}"
        found: dict[str, bool] = {}
        for command, parts in PARTS.items():
            found[command] = any(found.values()) or any(
                fails(tree, *part, spared, *where)
                for where in (likely(tree, mutant), SPREAD)
                if where
                for part in parts
            )
    finally:
        file.write_text(whole, "utf-8")
    return found


def table(rows: list[tuple[Mutant, dict[str, bool]]]) -> str:
    """One line for each fault, and a sum for each area."""
    words = {True: "caught", False: "NOT caught", None: "-"}
    lines = [f"{'area':10} {'before':11} {'quick':11} {'test':11} fault"]
    for mutant, found in rows:
        marks = (words[mutant.before], words[found["quick"]], words[found["test"]])
        lines.append(f"{mutant.area:10} {marks[0]:11} {marks[1]:11} {marks[2]:11} {mutant.name}")
    for area in AREAS:
        of_area = [found for mutant, found in rows if mutant.area == area]
        if of_area:
            sums = ", ".join(f"{command} {sum(found[command] for found in of_area)}" for command in PARTS)
            lines.append(f"{area}: {len(of_area)} faults, caught by {sums}")
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 if `make test` lets a fault pass, or `make quick` more than one in ten."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose area or name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the source that are broken at once")
    chosen = parser.parse_args()
    picked = [mutant for mutant in mutants() if chosen.only in f"{mutant.area} {mutant.name}"]

    def tried(share: int) -> list[tuple[Mutant, dict[str, bool]]]:
        with copied(ROOT) as tree:
            rows: list[tuple[Mutant, dict[str, bool]]] = []
            for mutant in picked[share :: chosen.jobs]:
                rows.append((mutant, caught(tree, mutant)))
                sys.stderr.write(f"==> {mutant.area}: {mutant.name}: {rows[-1][1]}\n")
            return rows

    with copied(ROOT) as tree:
        if broken := unsound(tree, picked):
            sys.stdout.write(f"These fail although nothing is broken: {' '.join(broken)}\n")
            return 2
    with ThreadPoolExecutor(chosen.jobs) as pool:
        rows = [row for share in pool.map(tried, range(chosen.jobs)) for row in share]
    rows.sort(key=lambda row: picked.index(row[0]))
    sys.stdout.write(table(rows) + "\n")
    passed = [found for _, found in rows if not found["test"]]
    slow = [found for _, found in rows if not found["quick"]]
    return int(bool(passed) or len(slow) * 10 > len(rows))


if __name__ == "__main__":
    sys.exit(main())
