"""What was written for grpc-interceptor, as its users type it: checked, never run."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn, assert_type

import grpc
import grpc.aio

from interpose import Call, Flow, intercept_channel, server_interceptor
from interpose.compat.grpc_interceptor import (
    AsyncClientInterceptor,
    AsyncExceptionToStatusInterceptor,
    AsyncServerInterceptor,
    ClientCallDetails,
    ClientInterceptor,
    ExceptionToStatusInterceptor,
    MethodName,
    ServerInterceptor,
    parse_method_name,
)
from interpose.compat.grpc_interceptor.client import ClientInterceptorReturnType
from interpose.compat.grpc_interceptor.exceptions import GrpcException, NotFound
from interpose.compat.grpc_interceptor.testing import DummyRequest, DummyService, dummy_client, raises
from interpose.compat.grpc_interceptor.testing.protos.dummy_pb2_grpc import DummyServiceStub


class Timed(ServerInterceptor):
    """A sync server's."""

    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: grpc.ServicerContext, method_name: str
    ) -> Any:
        name = parse_method_name(method_name)
        assert_type(name, MethodName)
        assert_type(name.fully_qualified_service, str)
        return method(request_or_iterator, context)


class Streams(ServerInterceptor):
    """One for streams."""

    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: grpc.ServicerContext, method_name: str
    ) -> Iterator[Any]:
        yield from method(request_or_iterator, context)


class AsyncTimed(AsyncServerInterceptor):
    """An asyncio server's."""

    async def intercept(
        self,
        method: Callable[..., Any],
        request_or_iterator: Any,
        context: grpc.aio.ServicerContext[Any, Any],
        method_name: str,
    ) -> Any:
        answer = method(request_or_iterator, context)
        return answer if isinstance(answer, AsyncIterator) else await answer


class Keys(ExceptionToStatusInterceptor):
    """Rules of one's own."""

    def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: grpc.ServicerContext, method_name: str
    ) -> NoReturn:
        if isinstance(ex, KeyError):
            context.abort(grpc.StatusCode.NOT_FOUND, str(ex))
        super().handle_exception(ex, request_or_iterator, context, method_name)


class Token(ClientInterceptor):
    """A sync client's."""

    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, call_details: grpc.ClientCallDetails
    ) -> ClientInterceptorReturnType:
        details = ClientCallDetails(call_details.method, 1.0, [("token", "t")], None, None, None)
        call: ClientInterceptorReturnType = method(request_or_iterator, details)
        return call


class AsyncToken(AsyncClientInterceptor):
    """An asyncio client's."""

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, call_details: ClientCallDetails
    ) -> Any:
        assert_type(call_details.method, str)
        assert_type(call_details.timeout, float | None)
        return await method(request_or_iterator, call_details._replace(metadata=[("token", "t")]))


def flow(call: Call) -> Flow:
    """One of ours beside them."""
    yield call


def put_together(pool: Any) -> None:
    """Servers and channels take all of them, and keep their types."""
    unknown = ExceptionToStatusInterceptor(status_on_unknown_exception=grpc.StatusCode.INTERNAL)
    grpc.server(pool, interceptors=[Timed(), Streams(), server_interceptor(flow), Keys(), unknown])
    grpc.aio.server(interceptors=[AsyncTimed(), server_interceptor(flow), AsyncExceptionToStatusInterceptor()])
    channel = grpc.intercept_channel(grpc.insecure_channel("localhost:1"), Token())
    assert_type(intercept_channel(channel, flow), grpc.Channel)
    grpc.aio.insecure_channel("localhost:1", interceptors=[*AsyncToken()])


def test_something() -> None:
    """The testing kit."""
    error = NotFound("gone")
    assert_type(error.details, str)
    assert_type(error.status_code, grpc.StatusCode)
    assert_type(error.status_string, str)
    assert_type(GrpcException("gone", grpc.StatusCode.ABORTED), GrpcException)
    with dummy_client({"gone": raises(error)}, [Timed(), server_interceptor(flow)], [Token()]) as client:
        assert_type(client, DummyServiceStub)
        client.Execute(DummyRequest(input="gone"))
    with dummy_client({}, [AsyncTimed()], [AsyncToken()], aio_server=True, aio_client=True):
        DummyService({})
