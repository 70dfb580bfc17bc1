"""The only door to generated code: the rest of the demo takes messages, servicers and stubs from here.

What a type checker should know of them is written down below, so that it needs no generated files.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence
from typing import TYPE_CHECKING, Any

from interpose.demo.generate import from_extra, load

with from_extra("protobuf"):
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

    class Delivery(Message):
        signatures: MutableSequence[str]

        def __init__(self, *, signatures: Iterable[str] = ()) -> None: ...

    class BadRequest(Message):
        field_violations: MutableSequence[BadRequest.FieldViolation]

        class FieldViolation(Message):
            field: str
            description: str

            def __init__(self, *, field: str = "", description: str = "") -> None: ...

        def __init__(self, *, field_violations: Iterable[BadRequest.FieldViolation] = ()) -> None: ...

    class ErrorInfo(Message):
        reason: str
        domain: str

        def __init__(self, *, reason: str = "", domain: str = "") -> None: ...

    class OrderManagementServicer: ...

    class RouteGuideServicer: ...

    class ShopServicer: ...

    class WarehouseServicer: ...

    class CarrierServicer: ...

    def OrderManagementStub(channel: Any) -> Any: ...
    def RouteGuideStub(channel: Any) -> Any: ...
    def ShopStub(channel: Any) -> Any: ...
    def WarehouseStub(channel: Any) -> Any: ...
    def CarrierStub(channel: Any) -> Any: ...
    def add_OrderManagementServicer_to_server(servicer: OrderManagementServicer, server: Any) -> None: ...
    def add_RouteGuideServicer_to_server(servicer: RouteGuideServicer, server: Any) -> None: ...
    def add_ShopServicer_to_server(servicer: ShopServicer, server: Any) -> None: ...
    def add_WarehouseServicer_to_server(servicer: WarehouseServicer, server: Any) -> None: ...
    def add_CarrierServicer_to_server(servicer: CarrierServicer, server: Any) -> None: ...

else:
    with from_extra("googleapis-common-protos"):
        from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

    _orders, _orders_grpc = load("order_management_pb2"), load("order_management_pb2_grpc")
    _route, _route_grpc = load("route_guide_pb2"), load("route_guide_pb2_grpc")
    _delivery, _delivery_grpc = load("delivery_pb2"), load("delivery_pb2_grpc")

    Order, CombinedShipment = _orders.Order, _orders.CombinedShipment
    Name, Person = _route.Name, _route.Person
    Delivery = _delivery.Delivery
    OrderManagementServicer, OrderManagementStub = (
        _orders_grpc.OrderManagementServicer,
        _orders_grpc.OrderManagementStub,
    )
    RouteGuideServicer, RouteGuideStub = _route_grpc.RouteGuideServicer, _route_grpc.RouteGuideStub
    add_OrderManagementServicer_to_server = _orders_grpc.add_OrderManagementServicer_to_server
    add_RouteGuideServicer_to_server = _route_grpc.add_RouteGuideServicer_to_server
    ShopServicer, ShopStub = _delivery_grpc.ShopServicer, _delivery_grpc.ShopStub
    WarehouseServicer, WarehouseStub = _delivery_grpc.WarehouseServicer, _delivery_grpc.WarehouseStub
    CarrierServicer, CarrierStub = _delivery_grpc.CarrierServicer, _delivery_grpc.CarrierStub
    add_ShopServicer_to_server = _delivery_grpc.add_ShopServicer_to_server
    add_WarehouseServicer_to_server = _delivery_grpc.add_WarehouseServicer_to_server
    add_CarrierServicer_to_server = _delivery_grpc.add_CarrierServicer_to_server

__all__ = [
    "BadRequest",
    "CarrierServicer",
    "CarrierStub",
    "CombinedShipment",
    "Delivery",
    "ErrorInfo",
    "Message",
    "Name",
    "Order",
    "OrderManagementServicer",
    "OrderManagementStub",
    "Person",
    "RouteGuideServicer",
    "RouteGuideStub",
    "ShopServicer",
    "ShopStub",
    "StringValue",
    "WarehouseServicer",
    "WarehouseStub",
    "add_CarrierServicer_to_server",
    "add_OrderManagementServicer_to_server",
    "add_RouteGuideServicer_to_server",
    "add_ShopServicer_to_server",
    "add_WarehouseServicer_to_server",
]
