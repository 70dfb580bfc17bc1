"""The only door to the generated code: the rest of the demo takes messages, servicers and stubs from here.

What a type checker should know of them is written down below, so that it needs no generated files.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

if TYPE_CHECKING:

    class Name(Message):
        value: str

        def __init__(self, *, value: str = "") -> None: ...

    class Person(Message):
        FEMALE: int
        MALE: int
        OTHER: int
        name: str
        age: int
        gender: int
        hobbies: MutableSequence[str]
        address: Person.Address

        class Address(Message):
            street: str
            city: str
            country: str

            def __init__(self, *, street: str = "", city: str = "", country: str = "") -> None: ...

        def __init__(
            self,
            *,
            name: str = "",
            age: int = 0,
            gender: int = 0,
            hobbies: Iterable[str] = (),
            address: Person.Address | None = None,
        ) -> None: ...

    class Order(Message):
        id: str
        items: MutableSequence[str]
        description: str
        price: float
        destination: str

        def __init__(
            self,
            *,
            id: str = "",
            items: Iterable[str] = (),
            description: str = "",
            price: float = 0.0,
            destination: str = "",
        ) -> None: ...

    class CombinedShipment(Message):
        id: str
        destination: str
        orders: MutableSequence[Order]

        def __init__(self, *, id: str = "", destination: str = "", orders: Iterable[Order] = ()) -> None: ...

    class OrderManagementServicer: ...

    class RouteGuideServicer: ...

    def OrderManagementStub(channel: Any) -> Any: ...
    def RouteGuideStub(channel: Any) -> Any: ...
    def add_OrderManagementServicer_to_server(servicer: OrderManagementServicer, server: Any) -> None: ...
    def add_RouteGuideServicer_to_server(servicer: RouteGuideServicer, server: Any) -> None: ...

else:
    from interpose.demo.generate import load

    _orders, _orders_grpc = load("order_management_pb2"), load("order_management_pb2_grpc")
    _route, _route_grpc = load("route_guide_pb2"), load("route_guide_pb2_grpc")

    Order, CombinedShipment = _orders.Order, _orders.CombinedShipment
    Name, Person = _route.Name, _route.Person
    OrderManagementServicer, OrderManagementStub = (
        _orders_grpc.OrderManagementServicer,
        _orders_grpc.OrderManagementStub,
    )
    RouteGuideServicer, RouteGuideStub = _route_grpc.RouteGuideServicer, _route_grpc.RouteGuideStub
    add_OrderManagementServicer_to_server = _orders_grpc.add_OrderManagementServicer_to_server
    add_RouteGuideServicer_to_server = _route_grpc.add_RouteGuideServicer_to_server

__all__ = [
    "CombinedShipment",
    "Message",
    "Name",
    "Order",
    "OrderManagementServicer",
    "OrderManagementStub",
    "Person",
    "RouteGuideServicer",
    "RouteGuideStub",
    "StringValue",
    "add_OrderManagementServicer_to_server",
    "add_RouteGuideServicer_to_server",
]
