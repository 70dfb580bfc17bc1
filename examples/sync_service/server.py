"""A catalog on a sync server: typed errors, one log line for each RPC, and an id in every line."""

import logging
import threading
from collections.abc import Iterator

import catalog_pb2
import catalog_pb2_grpc
import grpc

from interpose import errors
from interpose.interceptors import AccessLog, ExceptionToStatus, RequestId

log = logging.getLogger("catalog")

stack = [RequestId(echo=True), AccessLog(), ExceptionToStatus({KeyError: grpc.StatusCode.NOT_FOUND})]


class Catalog(catalog_pb2_grpc.CatalogServicer):
    """Items in memory."""

    def __init__(self) -> None:
        self._cents = {"kite": 1200, "ball": 300}
        self._lock = threading.Lock()

    def GetItem(self, request: catalog_pb2.GetItemRequest, context: grpc.ServicerContext) -> catalog_pb2.Item:
        return catalog_pb2.Item(sku=request.sku, cents=self._cents[request.sku])  # KeyError becomes NOT_FOUND

    def ListItems(
        self, request: catalog_pb2.ListItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[catalog_pb2.Item]:
        for sku, cents in sorted(self._cents.items()):
            if not request.up_to_cents or cents <= request.up_to_cents:
                yield catalog_pb2.Item(sku=sku, cents=cents)

    def AddItem(self, request: catalog_pb2.Item, context: grpc.ServicerContext) -> catalog_pb2.Item:
        if request.cents <= 0:
            raise errors.InvalidArgument("cents must be above 0")
        with self._lock:
            if request.sku in self._cents:
                raise errors.AlreadyExists(f"there is a {request.sku} already")
            self._cents = {**self._cents, request.sku: request.cents}
        log.info("added %s", request.sku)
        return request


app = [Catalog()]
