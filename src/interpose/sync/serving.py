"""A sync server with interceptors: around its handlers, as they are registered."""

from __future__ import annotations

import threading

import grpc

from interpose._clock import Clock
from interpose._flow import Interceptor
from interpose._shell.serving import Wrapped
from interpose.sync.server import handlers


class Server(Wrapped, grpc.Server):
    """A `grpc.Server` over grpc's own."""

    def __init__(self, native: grpc.Server, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        super().__init__(native, interceptors, asyncio=False)
        self._handlers = handlers(interceptors, clock, self._stop)

    def start(self) -> None:
        self._check_served()
        self._native.start()

    def stop(self, grace: float | None) -> threading.Event:
        self._stop.begin(grace)
        stopped: threading.Event = self._native.stop(grace)
        return stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        return bool(self._native.wait_for_termination(timeout))
