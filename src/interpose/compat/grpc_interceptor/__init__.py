"""The API of the package grpc-interceptor 0.15.4, and the asyncio client interceptor that it never had.

Write `interpose.compat.grpc_interceptor` where a program imports `grpc_interceptor`, and it runs as before. What is
different on purpose is listed in one table, in docs/migrate/grpc-interceptor.md.
"""

from interpose.compat.grpc_interceptor.client import AsyncClientInterceptor, ClientCallDetails, ClientInterceptor
from interpose.compat.grpc_interceptor.exception_to_status import (
    AsyncExceptionToStatusInterceptor,
    ExceptionToStatusInterceptor,
)
from interpose.compat.grpc_interceptor.server import (
    AsyncServerInterceptor,
    MethodName,
    ServerInterceptor,
    parse_method_name,
)

__all__ = [
    "AsyncClientInterceptor",
    "AsyncExceptionToStatusInterceptor",
    "AsyncServerInterceptor",
    "ClientCallDetails",
    "ClientInterceptor",
    "ExceptionToStatusInterceptor",
    "MethodName",
    "ServerInterceptor",
    "parse_method_name",
]
