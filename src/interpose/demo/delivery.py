"""Three services that an order passes: a plain one that calls an asyncio one that calls a plain one on an asyncio server.

None of them hands on an id, a deadline or a cancellation. The interceptors of their servers and channels do that.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc
import grpc.aio

from interpose import context as rpc
from interpose import errors
from interpose.demo.messages import CarrierServicer, Delivery, Order, ShopServicer, WarehouseServicer

SHOP, WAREHOUSE, CARRIER = SERVICES = ("shop", "warehouse", "carrier")

NOWHERE = "Atlantis"  # no carrier finds it
SEARCH = 30.0  # seconds that a carrier looks for it, unless somebody calls it off


@dataclass(frozen=True)
class Visit:
    """What a handler saw of one order.

    left:    seconds of its deadline when it began; None without one.
    stopped: whether it ended without an answer.
    ended:   when, on the monotonic clock.
    """

    service: str
    request_id: str | None
    left: float | None
    stopped: bool
    ended: float


class VisitorsBook:
    """Where the handlers write down their visits. Threads and tasks share it; an entry takes microseconds."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._begun: set[tuple[str, str]] = set()
        self._ended: dict[str, dict[str, Visit]] = {}

    @contextmanager
    def visit(self, service: str, order: Order, context: Any) -> Generator[None]:
        """Enter a visit that lasts as long as the block."""
        request_id, left = rpc.request_id(), context.time_remaining()
        with self._changed:
            self._begun.add((order.id, service))
            self._changed.notify_all()
        stopped = True
        try:
            yield
            stopped = False
        finally:
            with self._changed:
                visit = Visit(service, request_id, left, stopped, monotonic())
                self._ended.setdefault(order.id, {})[service] = visit
                self._changed.notify_all()

    def wait_begun(self, service: str, order: Order, timeout: float) -> bool:
        """Wait until this service has the order in hand; False if it takes more than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: (order.id, service) in self._begun, timeout)

    def visits(self, order: Order, timeout: float) -> tuple[Visit, ...]:
        """The order's visits, the first service first; waits `timeout` seconds at most until all have ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ended.get(order.id, ())) == len(SERVICES), timeout)
            ended = self._ended.get(order.id, {})
            return tuple(ended[service] for service in SERVICES if service in ended)


class Shop(ShopServicer):
    """On `grpc.server`: its thread is blocked while the warehouse packs."""

    def __init__(self, warehouse: Any, book: VisitorsBook) -> None:
        self._warehouse = warehouse
        self._book = book

    def deliver(self, order: Order, context: grpc.ServicerContext) -> Delivery:
        with self._book.visit(SHOP, order, context):
            return _signed(self._warehouse.pack(order), SHOP)


class Warehouse(WarehouseServicer):
    """On `grpc.aio.server`: its task is suspended while the carrier is away."""

    def __init__(self, carrier: Any, book: VisitorsBook) -> None:
        self._carrier = carrier
        self._book = book

    async def pack(self, order: Order, context: grpc.aio.ServicerContext[Any, Any]) -> Delivery:
        with self._book.visit(WAREHOUSE, order, context):
            return _signed(await self._carrier.collect(order), WAREHOUSE)


class Carrier(CarrierServicer):
    """A plain handler on `grpc.aio.server`. A thread cannot be interrupted, so it asks for a callback at the end."""

    def __init__(self, book: VisitorsBook) -> None:
        self._book = book

    def collect(self, order: Order, context: grpc.ServicerContext) -> Delivery:
        with self._book.visit(CARRIER, order, context):
            if order.destination == NOWHERE:
                self._search(context)
            return Delivery(signatures=[CARRIER])

    def _search(self, context: grpc.ServicerContext) -> None:
        called_off = threading.Event()
        if not context.add_callback(called_off.set):  # the end was there before us
            called_off.set()
        if called_off.wait(SEARCH):
            raise errors.Cancelled(f"the search for {NOWHERE} was called off")


def _signed(delivery: Delivery, service: str) -> Delivery:
    return Delivery(signatures=[*delivery.signatures, service])
