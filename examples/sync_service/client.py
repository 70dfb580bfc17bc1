"""A client with deadlines and retries. Its one argument is where the server is."""

import sys

import catalog_pb2
import catalog_pb2_grpc
import grpc

from interpose import errors, intercept_channel
from interpose.interceptors import Deadline, RequestId, Retry


def main(target: str) -> None:
    stack = [RequestId(), Deadline(10), Retry()]
    with intercept_channel(grpc.insecure_channel(target, Retry.channel_options()), *stack) as channel:
        catalog = catalog_pb2_grpc.CatalogStub(channel)
        added = catalog.AddItem(catalog_pb2.Item(sku="yo-yo", cents=450))
        print("added", added.sku)
        print("cheap:", *(item.sku for item in catalog.ListItems(catalog_pb2.ListItemsRequest(up_to_cents=500))))
        for item in (catalog_pb2.Item(sku="yo-yo", cents=1), catalog_pb2.Item(sku="rope")):
            try:
                catalog.AddItem(item)
            except (errors.AlreadyExists, errors.InvalidArgument) as error:
                print(error.code().name, error.details())
        try:
            catalog.GetItem(catalog_pb2.GetItemRequest(sku="drum"))
        except errors.NotFound as error:
            print(error.code().name)


if __name__ == "__main__":
    main(sys.argv[1])
