"""The two services for `grpc.aio.server`: the same rules, never on the event loop where they could wait.

The order book is visited in a thread (`asyncio.to_thread`): a query takes microseconds, yet it may have to
wait for the disk or for another visitor's commit, and the loop must not. People are a dictionary look-up and
stay on the loop.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from interpose.demo.messages import (
    CombinedShipment,
    Name,
    Order,
    OrderManagementServicer,
    Person,
    RouteGuideServicer,
    StringValue,
)
from interpose.demo.orders import LoadingDock, OrderBook, check_size, receipt
from interpose.demo.people import People

Context = grpc.aio.ServicerContext[Any, Any]


class OrderManagement(OrderManagementServicer):
    """The shop, one task per call."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book

    async def getOrder(self, request: StringValue, context: Context) -> Order:
        return await to_thread(self._book.get, request.value)

    async def searchOrders(self, request: StringValue, context: Context) -> AsyncIterator[Order]:
        for order in await to_thread(self._book.search, request.value):
            yield order

    async def updateOrders(self, requests: AsyncIterator[Order], context: Context) -> StringValue:
        orders: list[Order] = []
        async for order in requests:
            orders.append(order)
            check_size(orders)
        return receipt(await to_thread(self._book.update, orders))

    async def processOrders(self, requests: AsyncIterator[Order], context: Context) -> AsyncIterator[CombinedShipment]:
        dock = LoadingDock()
        async for order in requests:
            for shipment in dock.load(await to_thread(self._book.get, order.id)):
                yield shipment
        for shipment in dock.clear():
            yield shipment


class RouteGuide(RouteGuideServicer):
    """The route guide, one task per call."""

    def __init__(self, people: People) -> None:
        self._people = people

    async def GetPerson(self, request: Name, context: Context) -> Person:
        return self._people.get(request.value)

    async def GetPeople(self, requests: AsyncIterator[Name], context: Context) -> AsyncIterator[Person]:
        async for name in requests:
            yield self._people.get(name.value)
