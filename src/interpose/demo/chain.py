"""Calls that make calls: an order goes client -> shop -> warehouse -> carrier, and the next one is cancelled at the top.

One stack is on all six sides: it gives the order its id and its time, and hands them on with the cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc
import grpc.aio

from interpose import intercept_channel, server_interceptor
from interpose.demo.delivery import CARRIER, NOWHERE, Carrier, Shop, Visit, VisitorsBook, Warehouse
from interpose.demo.interceptors import REQUEST_ID
from interpose.demo.load import Tell
from interpose.demo.messages import (
    CarrierStub,
    Order,
    ShopStub,
    WarehouseStub,
    add_CarrierServicer_to_server,
    add_ShopServicer_to_server,
    add_WarehouseServicer_to_server,
)
from interpose.demo.servers import GRACE
from interpose.demo.stack import Stack
from interpose.interceptors import Deadline, PropagateContext, RequestId

TIME = 30.0  # seconds for an order on its way
MARGIN = 0.5  # seconds that each service keeps for itself; more than the 0.1 s by which grpc rounds up what it sends
WORKERS = 4  # threads of a server; one order is on its way at a time

STACK: Stack = (RequestId(), Deadline(TIME), PropagateContext(margin=MARGIN))


@dataclass(frozen=True)
class Trip:
    """How an order fared: what its client got, and what each handler saw of it.

    cancelled: when the client cancelled, on the monotonic clock; None if it did not.
    """

    client: str
    request_id: str
    code: grpc.StatusCode
    signatures: tuple[str, ...]
    visits: tuple[Visit, ...]
    cancelled: float | None = None

    def stopped_after(self, service: str) -> float | None:
        """How many seconds behind the cancel the service's handler was stopped; None if it was not."""
        for visit in self.visits:
            if visit.service == service and visit.stopped and self.cancelled is not None:
                return visit.ended - self.cancelled
        return None


async def trips_from_sync(tell: Tell) -> list[Trip]:
    """A delivered and a cancelled order of a sync client."""
    book = VisitorsBook()
    async with chain(book) as target:
        return await asyncio.to_thread(_order_sync, target, book, tell)


async def trips_from_asyncio(tell: Tell) -> list[Trip]:
    """A delivered and a cancelled order of an asyncio client."""
    book = VisitorsBook()
    async with chain(book) as target:
        return await _order_asyncio(target, book, tell)


@asynccontextmanager
async def chain(book: VisitorsBook) -> AsyncGenerator[str]:
    """The three services, each calling the next, as long as the block runs; gives the shop's address."""
    async with _carrier(book) as carrier, _warehouse(carrier, book) as warehouse, _shop(warehouse, book) as shop:
        yield shop


def _order_sync(target: str, book: VisitorsBook, tell: Tell) -> list[Trip]:
    known, lost = _orders()
    with intercept_channel(grpc.insecure_channel(target), *STACK) as channel:
        deliver = ShopStub(channel).deliver
        first = deliver.future(known, metadata=_named("sync-delivered"))
        code = first.code()
        signatures = tuple(first.result().signatures) if code is grpc.StatusCode.OK else ()
        delivered = Trip("sync", "sync-delivered", code, signatures, book.visits(known, TIME))
        tell()

        second = deliver.future(lost, metadata=_named("sync-cancelled"))
        book.wait_begun(CARRIER, lost, TIME)
        now = monotonic()
        second.cancel()
        cancelled = Trip("sync", "sync-cancelled", second.code(), (), book.visits(lost, TIME), now)
        tell()
    return [delivered, cancelled]


async def _order_asyncio(target: str, book: VisitorsBook, tell: Tell) -> list[Trip]:
    known, lost = _orders()
    async with intercept_channel(grpc.aio.insecure_channel(target), *STACK) as channel:
        deliver = ShopStub(channel).deliver
        first = deliver(known, metadata=_named("asyncio-delivered"))
        code = await first.code()
        signatures = tuple((await first).signatures) if code is grpc.StatusCode.OK else ()
        visits = await asyncio.to_thread(book.visits, known, TIME)
        delivered = Trip("asyncio", "asyncio-delivered", code, signatures, visits)
        tell()

        second = deliver(lost, metadata=_named("asyncio-cancelled"))
        await asyncio.to_thread(book.wait_begun, CARRIER, lost, TIME)
        now = monotonic()
        second.cancel()
        code, visits = await second.code(), await asyncio.to_thread(book.visits, lost, TIME)
        cancelled = Trip("asyncio", "asyncio-cancelled", code, (), visits, now)
        tell()
    return [delivered, cancelled]


def _orders() -> tuple[Order, Order]:
    """One that can be delivered, and one that cannot."""
    known = Order(id="known", items=["atlas"], price=12.5, destination="Lisbon")
    return known, Order(id="lost", items=["atlas"], price=12.5, destination=NOWHERE)


def _named(request_id: str) -> Any:
    return ((REQUEST_ID, request_id),)


@asynccontextmanager
async def _shop(warehouse: str, book: VisitorsBook) -> AsyncGenerator[str]:
    with (
        intercept_channel(grpc.insecure_channel(warehouse), *STACK) as channel,
        ThreadPoolExecutor(WORKERS, thread_name_prefix="demo-shop") as pool,
    ):
        server = grpc.server(pool, interceptors=[server_interceptor(*STACK)])
        add_ShopServicer_to_server(Shop(WarehouseStub(channel), book), server)
        target = _bound(server)
        server.start()
        try:
            yield target
        finally:
            await asyncio.to_thread(server.stop(GRACE).wait)


@asynccontextmanager
async def _warehouse(carrier: str, book: VisitorsBook) -> AsyncGenerator[str]:
    async with intercept_channel(grpc.aio.insecure_channel(carrier), *STACK) as channel:
        server = grpc.aio.server(interceptors=[server_interceptor(*STACK)])
        add_WarehouseServicer_to_server(Warehouse(CarrierStub(channel), book), server)
        async with _started(server) as target:
            yield target


@asynccontextmanager
async def _carrier(book: VisitorsBook) -> AsyncGenerator[str]:
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="demo-carrier") as pool:
        server = grpc.aio.server(pool, interceptors=[server_interceptor(*STACK)])
        add_CarrierServicer_to_server(Carrier(book), server)
        async with _started(server) as target:
            yield target


@asynccontextmanager
async def _started(server: grpc.aio.Server) -> AsyncGenerator[str]:
    target = _bound(server)
    await server.start()
    try:
        yield target
    finally:
        await server.stop(GRACE)


def _bound(server: Any) -> str:
    return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
