"""docs/supported-versions.md says what pyproject.toml says, and the floors that are tested are those of the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REQUIREMENT = re.compile(r"^(?P<name>[\w-]+)(?:\[\w+\])?(?:>=(?P<floor>[\d.]+))?(?:,<(?P<below>[\d.]+))?$")
ROW = re.compile(
    r"^\| (?P<name>[\w-]+) \| (?P<extras>.*?) ?\| (?P<floor>[\d.]+|any) \| (?P<below>[\d.]*) ?\|$", re.MULTILINE
)

Row = tuple[set[str], str, str]


def on_the_page() -> dict[str, Row]:
    """Package: its extras, its floor, and the version that is too new."""
    page = (ROOT / "docs/supported-versions.md").read_text("utf-8")
    return {
        row["name"]: (set(re.findall(r"`(\w+)`", row["extras"])), row["floor"], row["below"])
        for row in ROW.finditer(page)
    }


def in_the_project() -> dict[str, Row]:
    """The same, of what pip reads."""
    asked = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    found: dict[str, Row] = {}
    for extra, requirements in asked.items():
        for requirement in requirements:
            parts = REQUIREMENT.match(requirement)
            assert parts, f"{requirement}: teach this test to read it"
            row = found.setdefault(parts["name"], (set(), parts["floor"] or "any", parts["below"] or ""))
            assert row[1:] == (parts["floor"] or "any", parts["below"] or ""), f"two extras differ: {requirement}"
            row[0].update({extra} - {""})
    return found


def floors() -> dict[str, str]:
    lines = (ROOT / "scripts/floors.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_page_says_what_pip_reads() -> None:
    page = on_the_page()
    page.pop("Python")

    assert page == in_the_project()


def test_the_pythons_of_the_page_are_those_of_the_scripts() -> None:
    """And of the classifiers, by which an index sorts."""
    _, oldest, too_new = on_the_page()["Python"]
    supported = re.search(r'^SUPPORTED="(.*)"$', (ROOT / "scripts/env.sh").read_text("utf-8"), re.MULTILINE)
    assert supported
    versions = supported[1].split()
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))

    assert versions == classified
    assert versions[0] == oldest == PROJECT["requires-python"].removeprefix(">=")
    assert int(too_new.split(".")[1]) == int(versions[-1].split(".")[1]) + 1


def test_each_floor_is_tested() -> None:
    """scripts/floors.txt has the oldest version of each package that has one."""
    tested = floors()

    for name, (_, floor, _) in on_the_page().items():
        if name != "Python" and floor != "any":
            assert tested[name] in {floor, f"{floor}.0", f"{floor}.1"}, name
