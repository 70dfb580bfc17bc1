"""HTTP in front, gRPC behind: one trace and one request id go through both. ORDERS of the environment says where it is."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import orders_pb2
import orders_pb2_grpc
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from interpose import errors, intercept_channel
from interpose.contrib.opentelemetry import Tracing
from interpose.interceptors import Deadline, RequestId, Retry

provider = TracerProvider()  # in earnest with an exporter to your collector
tracer = provider.get_tracer("gateway")

STATUS = {  # of HTTP; what is not here is 500
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


@asynccontextmanager
async def life(app: FastAPI) -> AsyncIterator[None]:
    """One channel for all requests."""
    stack = [RequestId(), Tracing(provider), Deadline(5), Retry()]
    native = grpc.aio.insecure_channel(os.environ["ORDERS"], Retry.channel_options())
    async with intercept_channel(native, *stack) as channel:
        app.state.orders = orders_pb2_grpc.OrdersStub(channel)
        yield


app = FastAPI(lifespan=life)


@app.get("/orders/{number}")
async def order(number: str, request: Request, response: Response) -> dict[str, str]:
    request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    response.headers["x-request-id"] = request_id
    parent = extract(request.headers)
    with tracer.start_as_current_span("GET /orders/{number}", context=parent, kind=SpanKind.SERVER):
        wanted = orders_pb2.GetOrderRequest(number=number)
        found = await app.state.orders.GetOrder(wanted, metadata=(("x-request-id", request_id),))
    return {"item": found.item, "request_id": found.request_id, "trace_id": found.trace_id}


@app.exception_handler(errors.StatusError)
async def failed(request: Request, error: errors.StatusError) -> JSONResponse:
    """The status of gRPC as one of HTTP; what a bug says is for the log."""
    status = STATUS.get(error.code(), 500)
    return JSONResponse({"error": error.details() if status < 500 else error.code().name}, status)
