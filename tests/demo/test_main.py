"""The demo's command, in this process: what it prints, and the status it ends with."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import pytest

pytest.importorskip("grpc_tools")

from interpose.demo import __main__, claims, run
from interpose.demo.claims import Claim
from interpose.demo.generate import GenerationError
from interpose.demo.options import MOST_CALLS, Options, parse
from interpose.demo.run import Progress, Story

pytestmark = pytest.mark.slow  # they look at a whole run of the demo


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def asked(ended: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The seeds and calls that were asked for; each is answered with a run that has ended before, see conftest."""
    asked: list[tuple[int, int]] = []

    async def run_again(seed: int, calls: int, progress: Progress) -> Story:
        asked.append((seed, calls))
        progress("the leg", 1)()
        story: Story = ended.story
        return story

    monkeypatch.setattr(run, "run", run_again)
    return asked


def test_a_run_is_reported(asked: list[tuple[int, int]], capsys: pytest.CaptureFixture[str]) -> None:
    """All was shown: status 0, and not a word on stderr."""
    assert __main__.main(["--calls", "2", "--seed", "1"]) == 0

    out, err = capsys.readouterr()
    assert asked == [(1, 2)]
    assert out.startswith("Access log: ")
    assert out.splitlines()[-1].startswith("Shown in sixteen places")
    assert err == ""


def test_a_terminal_sees_how_far_it_is(asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that is empty again in the end."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    assert __main__.main([]) == 0
    assert terminal.getvalue().split("\r") == ["", "the leg: 1 of 1", " " * len("the leg: 1 of 1"), ""]


def test_what_does_not_hold_is_told_by_the_status(
    asked: list[tuple[int, int]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One claim that fails among those that hold: status 1, and a document that says which."""
    monkeypatch.setattr(claims, "judge", lambda story: [Claim("pigs fly", "none did"), Claim("pigs walk")])

    assert __main__.main(["--json"]) == 1

    told = json.loads(capsys.readouterr().out)
    assert told["holds"] is False
    assert [(claim["text"], claim["holds"]) for claim in told["claims"]] == [("pigs fly", False), ("pigs walk", True)]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (GenerationError("no compiler"), 1, "interpose.demo: no compiler\n"),
        (KeyboardInterrupt(), 130, "interpose.demo: interrupted\n"),
    ],
)
def test_what_ends_it_early_is_told_in_a_line(
    error: BaseException,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No traceback, and nothing on stdout."""

    def show(options: Options) -> int:
        raise error

    monkeypatch.setattr(__main__, "show", show)

    assert __main__.main([]) == status
    assert capsys.readouterr() == ("", said)


def test_a_reader_who_has_gone_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`| head` closed the pipe: status 1, and what is still to be written goes nowhere, without an error."""

    def show(options: Options) -> int:
        sys.stdout.write("a line that nobody reads\n")
        sys.stdout.flush()
        return 0

    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(__main__, "show", show)
    with os.fdopen(write, "w", encoding="utf-8") as stdout:  # leaving it writes what could not be written before
        monkeypatch.setattr("sys.stdout", stdout)
        status = __main__.main([])

    assert status == 1
    assert capsys.readouterr().err == ""


def test_options_are_those_that_were_given() -> None:
    """And what was not given has its default."""
    assert parse([]) == Options(seed=1, calls=40, json=False)
    assert parse(["--seed", "0", "--calls", str(MOST_CALLS), "--json"]) == Options(0, MOST_CALLS, json=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--calls", "0"], "0 is not between 1 and 500"),
        (["--calls", "501"], "501 is not between 1 and 500"),
        (["--calls", "many"], "'many' is not a whole number"),
        (["--seed", "-1"], "-1 is not between 0 and"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and the reason, before anything is run."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)

    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert complaint in err
