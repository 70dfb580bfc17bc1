"""How the suite is run: which tests belong to which part, what is left out, and that a report reaches its reader."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.examples import PROFILES, examples
from tests.support.forked import Forks
from tests.support.reports import _sendable

pytest_plugins = ["pytester"]

SUITE = """
import pytest
from interpose.testing import PLACES

@pytest.mark.parametrize("place", PLACES, ids=str)
def test_places(place): ...

@pytest.mark.parametrize("one", range(3))
@pytest.mark.parametrize("other", "abcde")
def test_product(one, other): ...

@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_rows(one, other): ...

@pytest.mark.parametrize("one", range(3))
@pytest.mark.parametrize("other", "ab")
@pytest.mark.parametrize("third", "cd")
def test_cube(one, other, third): ...

@pytest.mark.alone
@pytest.mark.parametrize("one", range(3))
def test_alone(one): ...

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.needs("unobtainium")
@pytest.mark.parametrize("one", range(2))
def test_needs(one): ...
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs this suite in this process, with our plugins; what one test needs is not there."""
    from tests.support import needs

    monkeypatch.setitem(needs.NEEDS, "unobtainium", needs.Need("a rare metal", lambda: False, ("rare-metal",)))
    pytester.makepyfile(SUITE)
    plugins = ("-p", "tests.support.parts", "-p", "tests.support.needs", "-p", "no:asyncio")
    return lambda *options: pytester.runpytest_inprocess(*plugins, *options)


@pytest.mark.slow
def test_each_test_is_in_one_part(run: Run) -> None:
    """What shares the machine, and what does not, are all there is."""
    run("--part=whole").assert_outcomes(passed=16 + 15 + 4 + 12 + 1, skipped=2, deselected=3)
    run("--part=alone").assert_outcomes(passed=3, deselected=16 + 15 + 4 + 12 + 1 + 2)
    run().assert_outcomes(passed=16 + 15 + 4 + 12 + 1 + 3, skipped=2)


def test_together_shows_each_value_once(run: Run) -> None:
    """Four places for stack, side and kind; as many of a product as its longest side; all rows of a table."""
    run("--part=together").assert_outcomes(passed=4 + 5 + 4 + 3 + 1, skipped=2, deselected=12 + 10 + 9 + 3)


def test_quick_leaves_out_what_is_slow_or_needs_more(run: Run) -> None:
    """All else is as in `together`."""
    run("--part=quick").assert_outcomes(passed=4 + 5 + 4 + 3, deselected=12 + 10 + 9 + 3 + 1 + 2)


def test_what_runs_alone_is_imported_alone(run: Run, pytester: pytest.Pytester) -> None:
    """To import the other files would take longer than those tests do."""
    pytester.makepyfile(test_other="raise ImportError")
    run("--part=alone").assert_outcomes(passed=3, deselected=16 + 15 + 4 + 12 + 1 + 2)


def test_a_file_of_slow_tests_is_not_imported_for_quick(run: Run, pytester: pytest.Pytester) -> None:
    """Nor one that needs more than Python packages, whatever else it is marked with."""
    marks = ("pytest.mark.slow  # whole runs", '[pytest.mark.needs("redis"), pytest.mark.timeout(9)]')
    for number, mark in enumerate(marks):
        pytester.makepyfile(**{f"test_other{number}": f"import pytest\n\npytestmark = {mark}\nraise ImportError"})
    run("--part=quick").assert_outcomes(passed=4 + 5 + 4 + 3, deselected=12 + 10 + 9 + 3 + 1 + 2)


@pytest.mark.slow
def test_the_last_part_says_what_was_left_out(run: Run) -> None:
    """One line for all parts, with the command that brings it; a part that is not the last keeps it for itself."""
    line = "2 tests were left out: 2 for a rare metal. `make interop` installs what they need, and runs them."

    run("--part=together").stdout.no_fnmatch_line("* left out: *")
    run("--part=alone").stdout.fnmatch_lines([line])
    run().stdout.fnmatch_lines([line])
    run("-k", "places").stdout.no_fnmatch_line("* left out: *")


def test_make_interop_leaves_nothing_out(run: Run) -> None:
    """It has installed all: what cannot run then is to fail by itself."""
    run("--part=interop").assert_outcomes(passed=2, deselected=16 + 15 + 4 + 12 + 3 + 1)


def test_a_need_must_be_known(run: Run, pytester: pytest.Pytester) -> None:
    """A misspelt one would leave its test out for ever."""
    pytester.makepyfile("import pytest\n@pytest.mark.needs('jaav')\ndef test_it(): ...")

    run().stderr.fnmatch_lines(["*needs 'jaav', which tests/support/needs.py does not know"])


def test_half_a_character_can_be_sent() -> None:
    """As an escape, wherever it is in a report; all else as it is, tuples among it."""
    report = {"sections": [("log", "\ud800 lone"), ("out", "gr\u00fc\u00dfe \u2713")], "longrepr": ("a.py", 1, None)}

    assert _sendable(report) == report | {"sections": [("log", "\\ud800 lone"), ("out", "gr\u00fc\u00dfe \u2713")]}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_counts_for_all_laws(profile: str) -> None:
    """Also for those with a number of examples of their own; but one example is the least."""
    before = settings.get_current_profile_name()
    settings.load_profile(profile)
    try:
        assert settings.default.max_examples == PROFILES[profile]
        assert (examples(50), examples(1)) == (PROFILES[profile] // 2, max(1, PROFILES[profile] // 100))
    finally:
        settings.load_profile(before)


@pytest.mark.slow
def test_a_program_in_a_fork_is_one_of_its_own(tmp_path: Path) -> None:
    """Its status and what it wrote; warnings are errors; nothing of one is in the next."""
    forks = Forks()
    try:
        failed = forks.run("import sys\nx = 1\nprint('no', file=sys.stderr)\nsys.exit(3)", Path("page.md"), tmp_path)
        warned = forks.run("import warnings\nwarnings.warn('old')", Path("page.md"), tmp_path)
        fresh = forks.run("assert 'x' not in globals() and __name__ == '__main__'", Path("page.md"), tmp_path)
    finally:
        forks.close()

    assert failed == (3, "no\n")
    assert warned[0] == 1
    assert 'File "page.md", line 2' in warned[1]
    assert fresh == (0, "")
