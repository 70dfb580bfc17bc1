"""Rpcz as users type it: checked by mypy --strict and pyright, never run."""

from typing import assert_type

import grpc

from interpose import Interceptor, intercept_channel, server_interceptor
from interpose.interceptors import CircuitBreaker, Retry, RetryBudget, Rpcz, RpczState
from interpose.web.asgi import App
from interpose.web.server import Served

guards: list[Interceptor] = [Retry(), CircuitBreaker()]
rpcz = Rpcz([*guards, RetryBudget()], title="shop", details=True, peers=False, methods=100)

channel: grpc.Channel = intercept_channel(grpc.insecure_channel("localhost:1"), rpcz, *guards)
server_interceptor(rpcz)

with rpcz.serve(8081, host="::1", hosts=["ops.example.com"]) as page:
    assert_type(page, Served)
    assert_type(page.url, str)

app: App = rpcz.asgi(hosts=("ops.example.com",))

state = rpcz.snapshot("orders", limit=5, method="/shop.v1.Orders/Place", side="client")
assert_type(state, RpczState)
assert_type(state["totals"]["rate"], float)
assert_type([row["codes"] for row in state["methods"]], list[dict[str, int]])
chosen = state["chosen"]
if chosen is not None:
    assert_type([sample["peer"] for sample in chosen["slow"]], list[str | None])
