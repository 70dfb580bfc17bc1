"""The two services for `grpc.server`: each method hands over to the rules and is done."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from interpose.demo.messages import (
    CombinedShipment,
    Name,
    Order,
    OrderManagementServicer,
    Person,
    RouteGuideServicer,
    StringValue,
)
from interpose.demo.orders import LoadingDock, OrderBook, first_orders, receipt
from interpose.demo.people import People


class OrderManagement(OrderManagementServicer):
    """The shop, one thread per call."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book

    def getOrder(self, request: StringValue, context: grpc.ServicerContext) -> Order:
        return self._book.get(request.value)

    def searchOrders(self, request: StringValue, context: grpc.ServicerContext) -> Iterator[Order]:
        yield from self._book.search(request.value)

    def updateOrders(self, requests: Iterator[Order], context: grpc.ServicerContext) -> StringValue:
        return receipt(self._book.update(first_orders(requests)))

    def processOrders(self, requests: Iterator[Order], context: grpc.ServicerContext) -> Iterator[CombinedShipment]:
        dock = LoadingDock()
        for order in requests:
            yield from dock.load(self._book.get(order.id))
        yield from dock.clear()


class RouteGuide(RouteGuideServicer):
    """The route guide, one thread per call."""

    def __init__(self, people: People) -> None:
        self._people = people

    def GetPerson(self, request: Name, context: grpc.ServicerContext) -> Person:
        return self._people.get(request.value)

    def GetPeople(self, requests: Iterator[Name], context: grpc.ServicerContext) -> Iterator[Person]:
        for name in requests:
            yield self._people.get(name.value)
