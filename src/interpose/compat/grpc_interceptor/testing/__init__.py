"""A service to try interceptors on. Needs the extra `testing`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from interpose.compat.grpc_interceptor.testing.dummy_client import DummyService, dummy_client
from interpose.compat.grpc_interceptor.testing.protos.dummy_pb2 import DummyRequest, DummyResponse

__all__ = ["DummyRequest", "DummyResponse", "DummyService", "dummy_client", "raises"]


def raises(e: Exception) -> Callable[..., NoReturn]:
    """A function that raises `e`, whatever it is given."""

    def f(*args: Any, **kwargs: Any) -> NoReturn:
        raise e

    return f
