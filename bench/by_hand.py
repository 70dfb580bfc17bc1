"""Servers written by hand, and the same as applications of `interpose serve`: what `python -m bench.runner` compares.

`python -m bench.by_hand sync SOCKET` serves until SIGTERM, with health and reflection, as `interpose serve` does.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVICE = "bench.v1.Runner"
METHOD = f"/{SERVICE}/Say"
THREADS = 32  # as interpose serve has


def app(server: Any) -> None:
    """The application on threads."""

    def say(request: Any, context: Any) -> Any:
        return request

    _register(server, say)


async def async_app(server: Any) -> None:
    """The same on asyncio."""

    async def say(request: Any, context: Any) -> Any:
        return request

    _register(server, say)


def _register(server: Any, say: Callable[..., Any]) -> None:
    handler = grpc.unary_unary_rpc_method_handler(say, StringValue.FromString, StringValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Say": handler}),))


def _sync(socket: str) -> None:
    server = grpc.server(ThreadPoolExecutor(THREADS))
    app(server)
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    over.wait()
    server.stop(1).wait()


async def _asyncio(socket: str) -> None:
    server = grpc.aio.server()
    await async_app(server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    await server.stop(1)


if __name__ == "__main__":
    if sys.argv[1] == "sync":
        _sync(sys.argv[2])
    else:
        asyncio.run(_asyncio(sys.argv[2]))
