"""The shop's orders: what is a good one, where they are kept, and how they are combined into shipments.

No gRPC in here: what is wrong is an exception, and `ExceptionToStatus` in the stack makes a status of it.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from interpose.demo.messages import CombinedShipment, Order, StringValue

ID = re.compile(r"[0-9A-Za-z-]{1,36}")  # 36: the length of a UUID
WILDCARD = re.compile("([%_!])")  # what LIKE would not take literally
ORDERS_PER_UPDATE = 1000  # what one updateOrders call may hold in memory
ORDERS_PER_SHIPMENT = 3

SCHEMA = """
CREATE TABLE orders (
    id          TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    price       REAL NOT NULL CHECK (price >= 0),
    destination TEXT NOT NULL
);
CREATE TABLE order_items (
    order_id TEXT NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    item     TEXT NOT NULL,
    PRIMARY KEY (order_id, position)
);
"""

BY_ID = "SELECT id, description, price, destination FROM orders WHERE id = ?"

CONTAINING = """
SELECT id, description, price, destination FROM orders
WHERE description LIKE :pattern ESCAPE '!'
   OR id IN (SELECT order_id FROM order_items WHERE item LIKE :pattern ESCAPE '!')
ORDER BY id
"""


class UnknownOrder(LookupError):
    """No order has this id; NOT_FOUND on the wire."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"no order has the id {order_id!r}")


class Violation(NamedTuple):
    """One thing that is wrong with what was sent: which field, and what a good one would be."""

    field: str
    description: str


class MalformedOrder(ValueError):
    """What was sent cannot be an order; INVALID_ARGUMENT on the wire. The text lists every violation."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{field}: {description}" for field, description in violations))
        self.violations = violations


class OrderBook:
    """Orders in an SQLite file that is created when the book is opened. Threads may share one book.

    One connection behind one lock: a visit takes microseconds, and SQLite lets in one writer at a time.
    """

    def __init__(self, path: Path, orders: Iterable[Order] = ()) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(SCHEMA)
        with self._db:
            for order in orders:
                self._insert(check_order(order))

    def close(self) -> None:
        """Close the file; the book answers no more."""
        with self._lock:
            self._db.close()

    def get(self, order_id: str) -> Order:
        """The order with this id, or `UnknownOrder`; `MalformedOrder` if no order could have it."""
        check_id(order_id)
        with self._lock:
            rows = self._db.execute(BY_ID, (order_id,)).fetchall()
            if not rows:
                raise UnknownOrder(order_id)
            return self._order(*rows[0])

    def search(self, text: str) -> list[Order]:
        """Every order whose description or one of whose items contains `text`, by id."""
        if not text.strip():
            raise MalformedOrder(Violation("search", "the text is blank; send some of the description or of an item"))
        pattern = "%" + WILDCARD.sub(r"!\1", text) + "%"
        with self._lock:
            rows = self._db.execute(CONTAINING, {"pattern": pattern}).fetchall()
            return [self._order(*row) for row in rows]

    def update(self, orders: Iterable[Order]) -> list[str]:
        """Replace these orders, all of them or none, and return their ids in the order sent."""
        checked = [check_order(order) for order in orders]
        with self._lock, self._db:
            for order in checked:
                if not self._db.execute("DELETE FROM orders WHERE id = ?", (order.id,)).rowcount:
                    raise UnknownOrder(order.id)
                self._insert(order)
        return [order.id for order in checked]

    def _insert(self, order: Order) -> None:
        self._db.execute(
            "INSERT INTO orders (id, description, price, destination) VALUES (?, ?, ?, ?)",
            (order.id, order.description, order.price, order.destination),
        )
        self._db.executemany(
            "INSERT INTO order_items (order_id, position, item) VALUES (?, ?, ?)",
            [(order.id, position, item) for position, item in enumerate(order.items)],
        )

    def _order(self, order_id: str, description: str, price: float, destination: str) -> Order:
        rows = self._db.execute("SELECT item FROM order_items WHERE order_id = ? ORDER BY position", (order_id,))
        items = [item for (item,) in rows]
        return Order(id=order_id, items=items, description=description, price=price, destination=destination)


class LoadingDock:
    """Combines the orders of one processOrders call: a shipment leaves once its destination has enough."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Order]] = {}
        self._left = 0

    def load(self, order: Order) -> Iterator[CombinedShipment]:
        """Take one order in, and give the shipment that it completes, if any."""
        waiting = self._waiting.setdefault(order.destination, [])
        waiting.append(order)
        if len(waiting) == ORDERS_PER_SHIPMENT:
            yield self._ship(order.destination)

    def clear(self) -> Iterator[CombinedShipment]:
        """Give what still waits, a shipment per destination."""
        for destination in sorted(self._waiting):
            yield self._ship(destination)

    def _ship(self, destination: str) -> CombinedShipment:
        self._left += 1
        orders = self._waiting.pop(destination)
        return CombinedShipment(id=f"shipment-{self._left}", destination=destination, orders=orders)


def check_id(order_id: str) -> None:
    """Raise `MalformedOrder` unless an order could have this id."""
    if not ID.fullmatch(order_id):
        raise MalformedOrder(_id_violation(order_id))


def check_order(order: Order) -> Order:
    """The order itself, or `MalformedOrder` with every violation."""
    if found := violations(order):
        raise MalformedOrder(*found)
    return order


def violations(order: Order) -> list[Violation]:
    """All that is wrong with an order."""
    return list(_violations(order))


def first_orders(orders: Iterable[Order]) -> list[Order]:
    """What one updateOrders call sent so far; `MalformedOrder` once it is more than a call may hold."""
    held = list(islice(orders, ORDERS_PER_UPDATE + 1))
    check_size(held)
    return held


def check_size(orders: list[Order]) -> None:
    """Raise `MalformedOrder` if one updateOrders call sent more than it may."""
    if len(orders) > ORDERS_PER_UPDATE:
        raise MalformedOrder(Violation("orders", f"more than {ORDERS_PER_UPDATE} in one call; send them in several"))


def receipt(ids: list[str]) -> StringValue:
    """What updateOrders answers."""
    return StringValue(value=f"updated {', '.join(ids) if ids else 'nothing'}")


def _violations(order: Order) -> Iterator[Violation]:
    if not ID.fullmatch(order.id):
        yield _id_violation(order.id)
    if not order.items or not all(item.strip() for item in order.items):
        yield Violation("items", "at least one, none blank")
    if not (math.isfinite(order.price) and order.price >= 0):
        yield Violation("price", f"{order.price} is no price; 0 or more")
    if not order.destination.strip():
        yield Violation("destination", "missing")


def _id_violation(order_id: str) -> Violation:
    return Violation("id", f"{order_id[:36]!r} is no order id; 1 to 36 letters, digits and dashes")
