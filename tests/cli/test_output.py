"""What a terminal is shown, and what a pipe is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from interpose.interceptors import Rpcz
from interpose.testing import ok, play
from tests.cli.conftest import Ended, Served
from tests.cli.till import SERVICE

Run = Callable[..., Ended]

ESCAPE = "\x1b["


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal is wide, and has colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def page() -> Iterator[str]:
    """Where a page of Rpcz is."""
    rpcz = Rpcz(title="[red]till")
    play(rpcz, [ok()], method="/shop.v1.Orders/[bold]Get")
    with rpcz.serve(0) as served:
        yield f"127.0.0.1:{served.port}"


def test_json_for_people(shop: Served, run: Run) -> None:
    """Indented, and in colours."""
    ended = run("call", shop.target, f"{SERVICE}/Ring", '{"name": "tea"}', terminal=True)

    assert ESCAPE in ended.out
    assert ended.out.count("\n") > 3


def test_no_color(shop: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR takes the colours away, and nothing else."""
    monkeypatch.setenv("NO_COLOR", "1")

    ended = run("call", shop.target, f"{SERVICE}/Ring", '{"name": "tea"}', terminal=True)

    assert "\n  " in ended.out
    assert "38;5" not in ended.out and "\x1b[3" not in ended.out
    assert json.loads(ended.out.replace("\x1b[1m", "").replace("\x1b[0m", ""))["names"] == ["tea"]


def test_lines_of_json_on_a_terminal(shop: Served, run: Run) -> None:
    """If they are asked for."""
    ended = run("call", shop.target, f"{SERVICE}/Ring", '{"name": "tea"}', "--json", terminal=True)

    assert (ESCAPE in ended.out, ended.out.count("\n")) == (False, 1)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_would_steer_a_terminal_is_escaped(shop: Served, run: Run, flags: list[str]) -> None:
    """A message may hold anything."""
    data = json.dumps({"name": "\x9b2J\u202e"})

    ended = run("call", shop.target, f"{SERVICE}/Ring", data, *flags, terminal=True)

    assert '"\\u009b2J\\u202e"' in ended.out


def test_a_table_on_a_terminal(page: str, run: Run) -> None:
    """With a head; what stands in it is text, and no markup of rich's."""
    ended = run("top", page, "--once", terminal=True)

    assert ended.out.startswith("[red]till, pid ")
    assert "client   /shop.v1.Orders/[bold]Get" in ended.out
    assert "\t" not in ended.out


def test_a_terminal_is_looked_at_until_it_is_interrupted(page: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --once the table is painted, until Ctrl-C, which is no failure."""

    def interrupted(seconds: float) -> None:
        assert seconds == 0.5
        raise KeyboardInterrupt

    monkeypatch.setattr("interpose.cli.top.time.sleep", interrupted)

    ended = run("top", page, "--interval", "500ms", terminal=True)

    assert ended.status == 0
    assert f"{ESCAPE}?1049h" in ended.out  # the terminal's other screen
    assert "[bold]Get" in ended.out
