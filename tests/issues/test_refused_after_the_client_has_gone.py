"""On an asyncio server, a status for a client that had just gone was logged as a fault of the servicer."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, errors, server_interceptor
from interpose._shell.handlers import function_of, with_function
from interpose.testing import Echo, Stub


class Gone:
    """grpc's context in the moment in which its writes fail, and it has not said yet that the client has gone: a race."""

    def __init__(self, native: Any) -> None:
        self._native = native

    async def abort(self, *_: Any) -> None:
        raise grpc.aio.InternalError("execute_batch")

    send_initial_metadata = abort

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


class Leaving(grpc.aio.ServerInterceptor):
    """Clients go while Interpose answers."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        answer = function_of(handler)

        async def one(argument: Any, native: Any) -> Any:
            return await answer(argument, Gone(native))

        async def each(argument: Any, native: Any) -> AsyncIterator[Any]:
            async for message in answer(argument, Gone(native)):
                yield message

        return with_function(handler, each if handler.response_streaming else one)


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("kind", Kind, ids=str)
async def test_a_status_that_comes_too_late(kind: Kind, metadata: bool, caplog: pytest.LogCaptureFixture) -> None:
    """There is nobody to answer, and that is no fault."""

    def refuse(call: Call) -> Flow:
        yield call.with_initial_metadata(("a", "1")) if metadata else call
        raise errors.PermissionDenied("no")

    server = grpc.aio.server(interceptors=[Leaving(), server_interceptor(refuse)])
    server.add_generic_rpc_handlers((Echo().handlers(asyncio=True),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = Stub(channel).method(kind)([] if kind.request_streaming else "a", timeout=0.1)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        await server.stop(None)

    assert not caplog.records
