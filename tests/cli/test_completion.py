"""Completion in a shell: of commands and of options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interpose.__main__ import COMMANDS
from tests.cli.conftest import Ended

Run = Callable[..., Ended]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """To be put into its start-up file."""
    monkeypatch.setenv("_INTERPOSE_COMPLETE", f"{shell}_source")
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)  # it would start a bash

    ended = run()

    assert (ended.status, ended.err) == (0, "")
    assert "_INTERPOSE_COMPLETE=" in ended.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("interpose ", set(COMMANDS)),
        ("interpose he", {"health"}),
        ("interpose call --he", {"--header", "--hedge", "--hedge-delay", "--help"}),
        ("interpose nothing ", set(COMMANDS)),  # click takes it for a beginning
        ("interpose serve shop:app --tls-", {"--tls-key", "--tls-cert", "--tls-client-ca"}),
        ("interpose serve --loop as", {"asyncio"}),
        ("interpose serve --no-h", {"--no-health"}),
        ("interpose check p.json --", {"--allow", "--env", "--help"}),
    ],
)
def test_words_and_options(run: Run, monkeypatch: pytest.MonkeyPatch, words: str, expected: set[str]) -> None:
    """What fits to the beginning of the last word."""
    monkeypatch.setenv("_INTERPOSE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))

    found = {line.partition(",")[2] for line in run().out.splitlines()}

    assert found == expected
