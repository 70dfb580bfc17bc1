"""Run Interpose inside of real clients and servers, each scenario in a process of its own, and print one table.

`python -m tests.realworld` runs all; with a name, that one, in this process; with `--page` it also writes docs/realworld.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from shutil import which

from tests.realworld.scenarios import PATIENCE, Scenario

MODULES = ("etcd", "milvus", "google_cloud", "telemetry", "qdrant", "spark")
PAGE = Path(__file__).parents[2] / "docs" / "realworld.md"
HEAD = "| what | versions | what Interpose does there | what holds |\n|---|---|---|---|\n"


def scenarios() -> list[Scenario]:
    return [one for module in MODULES for one in import_module(f"tests.realworld.{module}").SCENARIOS]


def version(package: str) -> str:
    if package == "etcd":
        return re.search(
            r"[\d.]+", subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
        )[0]  # type: ignore[index]
    return metadata.version(package)


def row(scenario: Scenario) -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in scenario.packages)
    return f"| {scenario.name} | {versions} | {scenario.stack} | {scenario.holds} |\n"


def failure(scenario: Scenario) -> str:
    """Why it does not hold; nothing if it does."""
    if scenario.program is not None and which(scenario.program) is None:
        return f"{scenario.program} is not on the path"
    command = [sys.executable, "-m", "tests.realworld", scenario.name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3 * PATIENCE)
    except subprocess.TimeoutExpired:
        return "it hangs"
    return done.stderr if done.returncode else ""


def main() -> int:
    chosen = [argument for argument in sys.argv[1:] if argument != "--page"]
    if chosen:
        next(one for one in scenarios() if one.name == chosen[0]).run()
        return 0
    failed = []
    for scenario in scenarios():
        why = failure(scenario)
        print("FAILED" if why else "ok    ", scenario.name, flush=True)  # noqa: T201
        if why:
            failed.append(scenario.name)
            print(why, file=sys.stderr)  # noqa: T201
    rows = "".join(row(one) for one in scenarios() if one.name not in failed)
    print(HEAD + rows)  # noqa: T201
    if "--page" in sys.argv and not failed:
        text = PAGE.read_text("utf-8")
        PAGE.write_text(
            text[: text.index(HEAD)] + HEAD + rows + text[text.index("\n\n", text.index(HEAD)) + 1 :], "utf-8"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
