"""`interpose top`: what the RPCs of a process do, as its page /rpcz knows it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from interpose.cli import durations
from interpose.cli.durations import duration
from interpose.cli.failures import Refused, Unreachable
from interpose.cli.output import is_terminal, table, write, write_json, write_table
from interpose.mechanisms.text import one_line

PLACE = "/rpcz/json"
MOST = 64 << 20  # bytes of JSON: 10,000 methods take some 20 MB
PATIENCE = 5.0  # seconds
MAX_TEXT = 256  # characters of a name

COLUMNS = ("side", "method", "rate", "ended", "failed", "in flight", "p50", "p90", "p99")
NUMBERS = COLUMNS[2:]

State = dict[str, Any]


@click.command("top", epilog="Exit status: 0, 78 if there is no such page, or 2 for what makes no sense.")
@click.argument("target")
@click.option("--filter", "part", default="", metavar="TEXT", help="Only methods with this text in their name.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=30, show_default=True, help="How many, the busiest.")
@click.option("--interval", type=duration, default="1s", metavar="TIME", help="Between two looks. Default: 1s.")
@click.option("--once", is_flag=True, help="Look once, also at a terminal.")
@click.option("--json", "as_json", is_flag=True, help="The page's own JSON, once.")
def command(target: str, part: str, limit: int, interval: float, once: bool, as_json: bool) -> None:
    """Show the methods of the process whose page `rpcz` is at TARGET: host:port, or a URL.

    At a terminal that can be painted over it looks again and again, until Ctrl-C. Latencies are those of the last minute.
    """
    address = f"{address_of(target)}?{urlencode({'filter': part, 'limit': limit})}"
    if as_json:
        write_json(read(address))
    elif once or not is_terminal() or Console().is_dumb_terminal:
        _print(read(address))
    else:
        first = read(address)
        watch(Console(), _states(first, address, lambda: time.sleep(interval)))


def address_of(target: str) -> str:
    """Where the JSON is. Refused if the target is no host and port and no URL."""
    url = target if "://" in target else f"http://{target}"
    try:
        parts = urlsplit(url)
        complete = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or "://" in target)
    except ValueError:
        complete = parts = None
    if not complete or parts is None:
        raise Refused(f"{target!r} is no page: write host:port, as in 127.0.0.1:8081, or http://host:port/rpcz/")
    path = parts.path.rstrip("/")
    place = PLACE if not path else path if path.endswith("/json") else f"{path}/json"
    return parts._replace(path=place, query="", fragment="").geturl()


def read(address: str) -> State:
    """What the page knows at the moment. Unreachable if it does not say."""
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:  # noqa: S310  http or https: see `address_of`
            state = json.loads(answer.read(MOST))
    except urllib.error.HTTPError as error:
        said = one_line(error.read(MAX_TEXT).decode("utf-8", "replace").strip(), MAX_TEXT)
        raise Unreachable(f"{address} answers {error.code}: {said}") from None
    except OSError as error:
        why = one_line(str(getattr(error, "reason", error)), MAX_TEXT)
        raise Unreachable(f"{address} cannot be reached: {why}; does the process serve it? rpcz.serve(8081)") from None
    except http.client.HTTPException:
        raise Unreachable(f"{address} is no page of Rpcz: it does not speak HTTP") from None
    except ValueError:
        raise Unreachable(f"{address} is no page of Rpcz: it answers with no JSON") from None
    if not (isinstance(state, dict) and state.get("version") == 1):
        raise Unreachable(f"{address} is no page of Rpcz that this interpose knows")
    return state


def _states(first: State, address: str, pause: Callable[[], object]) -> Iterator[tuple[State, str]]:
    """What the page knows, again and again; while it does not answer, what it knew last, and why."""
    state, fault = first, ""
    while True:
        yield state, fault
        pause()
        try:
            state, fault = read(address), ""
        except Unreachable as error:
            fault = error.message


def watch(console: Console, states: Iterator[tuple[State, str]]) -> None:
    """Show each state in the place of the one before, until Ctrl-C."""
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for state, fault in states:
                lines = [Text(line) for line in watched(state)]
                methods = table(COLUMNS, rows(state), NUMBERS)
                live.update(Group(Text(head(state)), methods, *lines, Text(fault, style="bold red")), refresh=True)
    except KeyboardInterrupt:
        pass


def _print(state: State) -> None:
    if is_terminal():
        write(head(state))
    write_table(COLUMNS, rows(state), NUMBERS)
    if is_terminal():
        write("\n".join(watched(state)))


def head(state: State) -> str:
    """A line about the process."""
    totals = state["totals"]
    title = f"{one_line(state['title'], MAX_TEXT)}, " if state["title"] else ""
    return (
        f"{title}pid {state['pid']}, up {state['uptime']:.0f} s: {totals['rate']:.1f} RPCs per second, "
        f"{totals['in_flight']} in flight, {totals['ended']} ended, {totals['failed']} of them failed; "
        f"{state['found']} methods"
    )


def rows(state: State) -> list[list[str]]:
    """A row for each method, the busiest first, as the page has them."""
    return [_row(method) for method in state["methods"]]


def _row(method: State) -> list[str]:
    latency = (method["latency"] or {}).get("1m") or {}
    return [
        method["side"],
        one_line(method["method"], MAX_TEXT),
        "" if method["rate"] is None else f"{method['rate']:.1f}",
        str(method["ended"]),
        str(method["failed"]),
        str(method["in_flight"]),
        *(durations.shown(latency[share]) if share in latency else "" for share in ("p50", "p90", "p99")),
    ]


def watched(state: State) -> list[str]:
    """A line for each breaker, limit and budget that the page watches."""
    return [_card(card) for card in state["watched"]]


def _card(card: State) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in card["facts"].items() if value is not None)
    line = f"{card['what']}{' ' if card['name'] else ''}{card['name']}: {card['state']}{'; ' if facts else ''}{facts}"
    return one_line(line, 4 * MAX_TEXT)
