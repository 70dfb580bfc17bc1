"""One RPC with an intercepted or a bare channel, sync or asyncio: what the tests with foreign peers share."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from interpose import Call, Flow, Kind, Outcome, intercept_channel
from tests.support.patience import PATIENCE

SERVICE = "interop.v1.Peer"
STACKS = ["sync", "asyncio"]
KINDS = list(Kind)

MAKE = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}
NAMES = {
    Kind.UNARY_UNARY: "Unary",
    Kind.UNARY_STREAM: "Down",
    Kind.STREAM_UNARY: "Up",
    Kind.STREAM_STREAM: "Both",
}


def service(handlers: dict[Kind, Any]) -> grpc.GenericRpcHandler:
    """The handlers as the service of `peer.proto`."""
    made = {
        NAMES[kind]: MAKE[kind](function, StringValue.FromString, StringValue.SerializeToString)
        for kind, function in handlers.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, made)


def pass_on(call: Call) -> Flow:
    """An interceptor that does nothing, so that there is one."""
    yield call


def failure(stack: str, target: str, kind: Kind, *, interceptor: Any = pass_on) -> Any:
    """The error that a call of an intercepted channel raises."""
    if stack == "sync":
        return _failure(target, kind, interceptor)
    return asyncio.run(_aio_failure(target, kind, interceptor))


def watched(stack: str, target: str, kind: Kind) -> Outcome:
    """The outcome that an interceptor of a client is told of a call that fails."""
    outcomes: list[Outcome] = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    failure(stack, target, kind, interceptor=watch)
    [outcome] = outcomes
    return outcome


def _failure(target: str, kind: Kind, interceptor: Any) -> Any:
    with grpc.insecure_channel(target) as bare:
        channel = bare if interceptor is None else intercept_channel(bare, interceptor)
        try:
            answer = _stub(channel, kind)(_request(kind), timeout=PATIENCE)
            answered = list(answer) if kind.response_streaming else answer
        except grpc.RpcError as error:
            return error
    raise AssertionError(f"no failure, but {answered!r}")


async def _aio_failure(target: str, kind: Kind, interceptor: Any) -> Any:
    async with grpc.aio.insecure_channel(target) as bare:
        channel: Any = bare if interceptor is None else intercept_channel(bare, interceptor)
        try:
            call = _stub(channel, kind)(_request(kind), timeout=PATIENCE)
            answered = [message async for message in call] if kind.response_streaming else await call
        except grpc.RpcError as error:
            return error
    raise AssertionError(f"no failure, but {answered!r}")


def _stub(channel: Any, kind: Kind) -> Any:
    path = f"/{SERVICE}/{NAMES[kind]}"
    return getattr(channel, kind.value)(path, StringValue.SerializeToString, StringValue.FromString)


def _request(kind: Kind) -> Any:
    message = StringValue(value="hello")
    return iter([message]) if kind.request_streaming else message
