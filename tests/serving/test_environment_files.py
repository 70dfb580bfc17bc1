"""What a server reads before it imports the application: variables from a file, and how to log."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interpose.serving import CannotServe, env_file, logs


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that a test sets are gone after it."""
    for name in ("SHOP_A", "SHOP_B", "SHOP_C", "SHOP_D", "SHOP_E", "SHOP_F"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_variables_of_a_file(tmp_path: Path) -> None:
    """Comments, empty lines, `export` and quotes are as in a shell; nothing is expanded."""
    file = tmp_path / "env"
    file.write_text(
        """
# the shop
SHOP_A=plain text  # and a comment
export SHOP_B = 'quoted # text'
SHOP_C="$SHOP_A"   # stays as it is
SHOP_D=
SHOP_E=a#b=c
"""
    )
    os.environ["SHOP_F"] = "kept"
    with file.open("a") as more:
        more.write("SHOP_F=other\n")

    env_file.load(str(file))

    assert [os.environ[f"SHOP_{letter}"] for letter in "ABCDEF"] == [
        *("plain text", "quoted # text", "$SHOP_A", "", "a#b=c"),
        "kept",
    ]


def test_lines_that_are_none_are_named_without_their_values(tmp_path: Path) -> None:
    """All at once, by number, since a value may be a secret; and nothing is set."""
    file = tmp_path / "env"
    file.write_text("SHOP_A=1\nsecret one\n3=x\nSHOP_B='secret\n")

    with pytest.raises(CannotServe) as caught:
        env_file.load(str(file))

    assert "in line 2, 3, 4" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "SHOP_A" not in os.environ


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as in a program that has just started."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    try:
        yield root
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With the process in each line, since those of several workers stand in one place."""
    with bare_root():
        logs.configure("warning", None)
        logging.getLogger("interpose").info("not said")
        logging.getLogger("shop").warning("said")

    assert capsys.readouterr().err.endswith(f"WARNING {os.getpid()} shop: said\n")


def test_a_program_that_has_configured_its_log_keeps_it() -> None:
    """Only the level of our own log is set."""
    mine = logging.NullHandler()

    with bare_root() as root:
        root.addHandler(mine)
        logs.configure("debug", None)
        handlers = root.handlers

    assert handlers == [mine]
    assert logging.getLogger("interpose").level == logging.DEBUG


def test_a_log_from_a_file(tmp_path: Path) -> None:
    """A dictionary, JSON with one, or the older format."""
    config = {"version": 1, "disable_existing_loggers": False, "loggers": {"shop": {"level": "ERROR"}}}
    (tmp_path / "log.json").write_text(json.dumps(config))
    (tmp_path / "log.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nlevel=CRITICAL\nhandlers=\n"
    )
    shop = logging.getLogger("shop")

    with bare_root() as root:
        logs.configure("info", config)
        by_dictionary, shop.level = shop.level, 0
        logs.configure("info", str(tmp_path / "log.json"))
        by_json, shop.level = shop.level, 0
        logs.configure("info", str(tmp_path / "log.ini"))
        by_ini = root.level

    assert by_dictionary == by_json == logging.ERROR
    assert by_ini == logging.CRITICAL


def test_a_log_that_cannot_be_configured_is_refused(tmp_path: Path) -> None:
    """One line that names the file and what it should be, however it is wrong."""
    (tmp_path / "bad.json").write_text('{"version": 3}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.ini").write_text("no section\n")
    for file in ("bad.json", "list.json", "text.ini", "none.ini", "."):
        with pytest.raises(CannotServe, match=r"cannot configure logging from .*; it takes JSON for dictConfig"):
            logs.configure("info", str(tmp_path / file))


def test_the_cause_of_a_log_that_cannot_be_configured_is_said() -> None:
    """Which class is not there, and not only whose it is."""
    config = {"version": 1, "handlers": {"file": {"class": "nowhere.Handler"}}}

    with pytest.raises(CannotServe, match=r"Unable to configure handler 'file'.*nowhere"):
        logs.configure("info", config)


@pytest.mark.parametrize("form", ["dictionary", "JSON"])
def test_a_log_from_a_dictionary_keeps_our_own(form: str, tmp_path: Path) -> None:
    """logging by itself silences each logger that is there before and not named: the start line would be lost."""
    (tmp_path / "log.json").write_text('{"version": 1}')

    with bare_root():
        logs.configure("info", {"version": 1} if form == "dictionary" else str(tmp_path / "log.json"))

    assert not logging.getLogger("interpose").disabled
