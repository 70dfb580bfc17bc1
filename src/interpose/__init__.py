"""gRPC middleware: write an interceptor once, as a generator, and it runs in all sixteen places."""

from interpose import context, errors
from interpose._attach import intercept_channel, intercept_server, server_interceptor
from interpose._call import Call
from interpose._describe import describe
from interpose._flow import AsyncFlow, Belongs, Flow, Interceptor, chain, wait, when
from interpose._metadata import Metadata
from interpose._method import Idempotency, Kind, Method, Side
from interpose._native_interceptors import native_interceptors
from interpose._outcome import Outcome
from interpose._serve import serve
from interpose.context import current_call, deadline, detached, identity, request_id
from interpose.errors import StatusError

__all__ = [
    "AsyncFlow",
    "Belongs",
    "Call",
    "Flow",
    "Idempotency",
    "Interceptor",
    "Kind",
    "Metadata",
    "Method",
    "Outcome",
    "Side",
    "StatusError",
    "chain",
    "context",
    "current_call",
    "deadline",
    "describe",
    "detached",
    "errors",
    "identity",
    "intercept_channel",
    "intercept_server",
    "native_interceptors",
    "request_id",
    "serve",
    "server_interceptor",
    "wait",
    "when",
]
