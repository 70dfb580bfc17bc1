"""`interpose top`: the page of Rpcz as a table."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable, Iterator
from itertools import islice

import grpc
import pytest
from rich.console import Console

from interpose.cli import top
from interpose.interceptors import Rpcz
from interpose.interceptors.rpcz import Served
from interpose.mechanisms.budget import RetryBudget
from interpose.testing import failed, ok, play
from tests.cli.conftest import Ended

Run = Callable[..., Ended]


@pytest.fixture
def page() -> Iterator[Served]:
    """A page with two methods, and a breaker."""
    rpcz = Rpcz([RetryBudget()], title="till\x1b[2J")
    for ending in (ok(), ok(), failed(grpc.StatusCode.NOT_FOUND)):
        play(rpcz, [ending], method="/shop.v1.Orders/Get")
    play(rpcz, [ok()], method="/shop.v1.Users/Get")
    with rpcz.serve(0) as served:
        yield served


def test_a_pipe_gets_lines(page: Served, run: Run) -> None:
    """Names first, then a row for each method, the busiest first, with tabs."""
    ended = run("top", f"127.0.0.1:{page.port}")

    names, *rows = (line.split("\t") for line in ended.out.splitlines())
    assert (ended.status, tuple(names)) == (0, top.COLUMNS)
    assert [row[:2] + row[3:6] for row in rows] == [
        ["client", "/shop.v1.Orders/Get", "3", "1", "0"],
        ["client", "/shop.v1.Users/Get", "1", "0", "0"],
    ]
    assert all(row[6].endswith((" us", " ms")) for row in rows)


@pytest.mark.parametrize("path", ["", "/rpcz", "/rpcz/", "/rpcz/json"])
def test_addresses(page: Served, run: Run, path: str) -> None:
    """With a scheme, any address of the page will do; --filter and --limit choose the methods."""
    url = f"http://127.0.0.1:{page.port}{path}"

    assert json.loads(run("top", url, "--json").out)["found"] == 2
    assert json.loads(run("top", url, "--json", "--filter", "users").out)["found"] == 1
    assert run("top", url, "--limit", 1).out.count("\n") == 2


def test_a_dumb_terminal_is_shown_one_look(page: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an editor or a log of CI, on which nothing can be painted over."""
    monkeypatch.setenv("TERM", "dumb")

    ended = run("top", f"127.0.0.1:{page.port}", terminal=True)

    assert ended.status == 0
    assert "4 ended" in ended.out


def test_a_terminal_is_painted_again_and_again(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head, the table, what is watched, and why there was no answer; until Ctrl-C. No name steers the terminal."""
    monkeypatch.setenv("TERM", "xterm")
    state = top.read(top.address_of(f"127.0.0.1:{page.port}"))

    def states() -> Iterator[tuple[top.State, str]]:
        yield state, ""
        yield state, "cannot be reached"
        raise KeyboardInterrupt

    painted = io.StringIO()
    top.watch(Console(file=painted, force_terminal=True, color_system=None, width=120, height=40), states())

    text = painted.getvalue()
    assert "till\\x1b[2J, pid" in text
    assert "/shop.v1.Users/Get" in text
    assert "RetryBudget: " in text
    assert "cannot be reached" in text


def test_a_page_that_goes_away(page: Served) -> None:
    """What it knew last stays, with the reason, until it answers again."""
    address = top.address_of(f"127.0.0.1:{page.port}")
    first = top.read(address)

    states = list(islice(top._states(first, address, page.close), 2))

    assert states[0] == (first, "")
    assert states[1][0] == first
    assert "cannot be reached" in states[1][1]


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("127.0.0.1:1", 78, "cannot be reached: "),
        ("nonsense", 2, "'nonsense' is no page: write host:port"),
        ("ftp://host:1/", 2, "is no page"),
        ("host:port", 2, "is no page"),
    ],
)
def test_no_such_page(run: Run, target: str, status: int, said: str) -> None:
    """One line that says what to do."""
    ended = run("top", target)

    assert (ended.status, ended.err.count("\n")) == (status, 1)
    assert said in ended.err


def test_a_page_of_something_else(page: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status, no JSON, JSON of another kind, or no HTTP, as of a gRPC server: each is said."""
    refused = run("top", f"http://127.0.0.1:{page.port}/nothing")
    assert (refused.status, "answers 404: There is a page here at /" in refused.err) == (78, True)

    for body, said in ((b"<html>", "answers with no JSON"), (b"[]", "no page of Rpcz that this interpose knows")):
        monkeypatch.setattr(top.urllib.request, "urlopen", lambda *_, body=body, **__: io.BytesIO(body))
        assert said in run("top", "127.0.0.1:2").err

    def urlopen(*_: object, **__: object) -> None:
        raise http.client.BadStatusLine("\0")

    monkeypatch.setattr(top.urllib.request, "urlopen", urlopen)
    assert "is no page of Rpcz: it does not speak HTTP" in run("top", "127.0.0.1:2").err
