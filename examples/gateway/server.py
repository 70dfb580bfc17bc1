"""The orders behind the gateway, on an asyncio server."""

import grpc
import orders_pb2
import orders_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

import interpose
from interpose import errors
from interpose.context import trace_ids
from interpose.contrib.opentelemetry import Tracing
from interpose.interceptors import AccessLog, ExceptionToStatus, RequestId

tracing = Tracing(TracerProvider())  # in earnest with an exporter to your collector

stack = [RequestId(), tracing, AccessLog(), ExceptionToStatus()]


class Orders(orders_pb2_grpc.OrdersServicer):
    """One order."""

    async def GetOrder(
        self, request: orders_pb2.GetOrderRequest, context: grpc.aio.ServicerContext
    ) -> orders_pb2.Order:
        if request.number != "7":
            raise errors.NotFound(f"there is no order {request.number}")
        trace_id, _ = trace_ids() or ("", "")
        return orders_pb2.Order(number="7", item="kite", request_id=interpose.request_id(), trace_id=trace_id)


app = [Orders()]
