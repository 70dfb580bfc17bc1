"""The shop's rules, on a real SQLite file, without gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("grpc_tools")

from interpose.demo.messages import Order
from interpose.demo.orders import (
    ORDERS_PER_UPDATE,
    LoadingDock,
    MalformedOrder,
    OrderBook,
    UnknownOrder,
    check_order,
    first_orders,
)


def order(
    order_id: str = "1",
    destination: str = "Oslo",
    items: tuple[str, ...] = ("lamp",),
    description: str = "a lamp",
    price: float = 9.5,
) -> Order:
    return Order(id=order_id, items=items, description=description, price=price, destination=destination)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[OrderBook]:
    orders = [order("1"), order("2", items=("kettle", "lid"), description="100% steel"), order("3", "Quito")]
    book = OrderBook(tmp_path / "orders.sqlite", orders)
    yield book
    book.close()


def test_an_order_comes_back_as_it_went_in(book: OrderBook) -> None:
    """Every field survives the way through SQLite, the items in their order."""
    assert book.get("2") == order("2", items=("kettle", "lid"), description="100% steel")


def test_an_unknown_order_is_named(book: OrderBook) -> None:
    """The error for an unknown order carries its id."""
    with pytest.raises(UnknownOrder, match="'4711'"):
        book.get("4711")


@pytest.mark.parametrize("order_id", ["", " ", "a b", "x" * 37, "1'; DROP TABLE orders; --", "1\n", "ä"])
def test_an_id_that_no_order_could_have_is_malformed(book: OrderBook, order_id: str) -> None:
    """A malformed id is told from an unknown one, and no text reaches SQL."""
    with pytest.raises(MalformedOrder, match="no order id"):
        book.get(order_id)


def test_search_finds_descriptions_and_items(book: OrderBook) -> None:
    """The text may stand in the description or in an item, in either case of letters."""
    assert [found.id for found in book.search("LAMP")] == ["1", "3"]
    assert [found.id for found in book.search("lid")] == ["2"]


def test_search_takes_wildcards_literally(book: OrderBook) -> None:
    """A per cent sign is looked for, it does not match everything."""
    assert [found.id for found in book.search("%")] == ["2"]
    assert book.search("_") == []


def test_a_blank_search_is_malformed(book: OrderBook) -> None:
    """Nobody gets the whole shop by asking for nothing."""
    with pytest.raises(MalformedOrder, match="blank"):
        book.search("  ")


def test_an_update_may_be_repeated(book: OrderBook) -> None:
    """Sending the same update twice leaves what sending it once leaves."""
    changed = order("1", "Kyoto", items=("lamp", "bulb"), price=3.0)

    assert book.update([changed]) == book.update([changed]) == ["1"]
    assert book.get("1") == changed


def test_an_update_writes_all_or_nothing(book: OrderBook) -> None:
    """One unknown order among several, and none of them is written."""
    with pytest.raises(UnknownOrder, match="'99'"):
        book.update([order("1", "Kyoto"), order("99")])

    assert book.get("1").destination == "Oslo"


def test_a_malformed_order_lists_every_fault() -> None:
    """The caller learns of all faults at once, in the text and field by field."""
    with pytest.raises(MalformedOrder) as caught:
        check_order(order("no id", " ", items=("lamp", ""), price=float("nan")))

    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["id", "items", "price", "destination"]
    assert all(f"{field}: {why}" in str(caught.value) for field, why in caught.value.violations)


def test_an_update_holds_a_limited_number_of_orders() -> None:
    """A stream that never ends is refused once it is too long, not collected."""
    endless = iter(order, None)

    with pytest.raises(MalformedOrder, match=str(ORDERS_PER_UPDATE)):
        first_orders(endless)


def test_shipments_leave_when_full_and_the_rest_at_the_end() -> None:
    """Three orders to one place are shipped at once; what waits is shipped when the stream ends."""
    dock = LoadingDock()
    during = [shipment for key in "1234" for shipment in dock.load(order(key, "Oslo"))]
    during += dock.load(order("5", "Kyoto"))
    rest = list(dock.clear())

    assert [[one.id for one in shipment.orders] for shipment in during] == [["1", "2", "3"]]
    assert [(shipment.destination, len(shipment.orders)) for shipment in rest] == [("Kyoto", 1), ("Oslo", 1)]
    assert len({shipment.id for shipment in during + rest}) == 3
