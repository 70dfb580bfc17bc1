"""docs/peers.md is of what `make interop` runs."""

from __future__ import annotations

import pytest

from tests.interop import page
from tests.interop.clients import test_endings as clients
from tests.interop.clients.jobs import Maker
from tests.interop.servers import test_endings as servers

TABLES = {clients.TABLE: clients.ALL, servers.TABLE: [servers.MAKE[make] for make in servers.SERVERS]}


@pytest.mark.rare
@pytest.mark.parametrize(
    ("table", "make"),
    [
        pytest.param(table, make, marks=[pytest.mark.needs(make.need)] if make.need else [], id=f"{number}-{make.name}")
        for number, (table, makes) in enumerate(TABLES.items())
        for make in makes
    ],
)
def test_versions(table: str, make: Maker) -> None:
    """Those of the headings are those that are installed."""
    page.compare_version(table, make.name, make.version())


def test_a_table_has_a_cell_for_each_ending_and_make() -> None:
    """No row is there that no run fills, and none is missing."""
    of_clients, of_servers = page.table(clients.TABLE), page.table(servers.TABLE)

    assert set(of_clients) == {
        *(case.name for case in clients.CASES),
        clients.DRAIN,
        clients.UNHEARD_OF.name,
        clients.DEADLINE,
    }
    assert set(of_servers) == {case.name for case in servers.CASES}
    assert set(page.versions(clients.TABLE)) == {make.name for make in clients.ALL}
    assert set(page.versions(servers.TABLE)) == set(servers.SERVERS)
    sent = {case.name: case.sent for case in clients.CASES}
    assert {row: of_clients[row]["it sends"] for row in sent} == sent


def test_a_cell() -> None:
    """What most kinds of RPC show is first; the others are named. One that is up to chance names all that it may be."""
    assert page.cell_of({"Unary": "as sent", "Down": "as sent"}) == "as sent"
    assert page.cell_of({"Unary": "a", "Down": "b", "Up": "a", "Both": "b"}) == "a; Down, Both: b"
    assert page._says("at random: a or b", ["b"]) and page._says("at random: a or b", ["a", "b"])
    assert not page._says("at random: a or b", ["c"]) and not page._says("a", "b")
    assert page._written("a", ["b"]) == "b" and page._written("at random: a or b", ["c"]) == "at random: a or b or c"
