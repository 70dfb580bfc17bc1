"""`interpose check FILE`: a line for each fault, and the exit status."""

import json
from pathlib import Path

import pytest

from interpose.__main__ import main
from tests.policy.files import written


def test_a_good_file_is_status_0_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As compilers do."""
    status = main(["check", str(written(tmp_path, {"client": ["RequestId"]}))])

    assert (status, *capsys.readouterr()) == (0, "", "")


def test_each_fault_is_a_line_and_the_status_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every file."""
    bad = written(tmp_path, {"client": ["Nothing", "Deadline"]})
    good = written(tmp_path, "client = []", "good.toml")

    status = main(["check", str(good), str(bad)])
    out, err = capsys.readouterr()

    assert (status, err) == (2, "")
    assert [line.partition(": client")[0] for line in out.splitlines()] == [f"{bad}:3", f"{bad}:4"]


def test_what_is_allowed_is_said_by_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Imports and variables."""
    monkeypatch.setenv("WAIT", "2s")
    hook = "tests.policy.interceptors:count"
    path = written(tmp_path, json.dumps({"client": [{"Deadline": "${WAIT}"}, {"Retry": {"on_retry": hook}}]}))

    assert main(["check", str(path), "--allow", hook, "--env", "WAIT"]) == 0
    assert main(["check", str(path)]) == 2
    assert "or --env WAIT" in (out := capsys.readouterr().out) and f"or --allow {hook}" in out


def test_a_file_that_cannot_be_read_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error."""
    assert main(["check", "/no/policy.json"]) == 2
    assert capsys.readouterr().err == "interpose check: /no/policy.json cannot be read: No such file or directory\n"
