"""A traced service and a traced client of it, in one place, and the ways in which an RPC of theirs may end."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from interpose import Interceptor, Kind, Side, intercept_channel
from interpose.testing import Place
from interpose.testing.echo import Stub

Sort: TypeAlias = str  # "sync": both; "async": both on asyncio; "plain": the same, with plain handlers
SORTS = ("sync", "async", "plain")


class Driven:
    """The service and its client."""

    def __init__(self, rpc: Any, kind: Kind, interceptors: Iterable[Interceptor], asyncio: bool) -> None:
        self._rpc = rpc
        self._kind = kind
        self._asyncio = asyncio
        self.echo = rpc.echo
        self._stub = getattr(Stub(intercept_channel(rpc.channel, *interceptors)), kind.value)

    def call(self, **options: Any) -> grpc.StatusCode:
        """One RPC to its end."""
        try:
            if self._asyncio:
                self._rpc._run(self._read(options))
            else:
                response = self._stub(self._request(), **options)
                _ = list(response) if self._kind.response_streaming else response
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return]
        return grpc.StatusCode.OK

    async def _read(self, options: Any) -> None:
        call = self._stub(self._request(), **options)
        if self._kind.response_streaming:
            async for _ in call:
                pass
        else:
            await call

    def leave(self, *, cancel: bool) -> None:
        """Begin an RPC, and cancel or drop it once the handler runs."""
        call = self._rpc._run(self._started()) if self._asyncio else self._start()
        self.echo.wait_begun()
        if cancel:
            self._rpc._run(self._cancelled(call)) if self._asyncio else call.cancel()
        del call
        gc.collect()

    def _start(self) -> Any:
        return (self._stub if self._kind.response_streaming else self._stub.future)(self._request())

    async def _started(self) -> Any:
        return self._stub(self._request())

    async def _cancelled(self, call: Any) -> None:
        call.cancel()

    def _request(self) -> Any:
        return iter(["a"]) if self._kind.request_streaming else "a"


@contextmanager
def traced(
    sort: Sort,
    kind: Kind,
    tracing: Interceptor | None,
    *,
    client: Iterable[Interceptor] = (),
    server: Iterable[Interceptor] = (),
    script: Iterable[Any] = (),
) -> Iterator[Driven]:
    """The echo service and a client of it, both with this interceptor outermost, and with these further in."""
    place = Place(asyncio=sort != "sync", side=Side.SERVER, kind=kind)
    outer = () if tracing is None else (tracing,)
    with place.open(*outer, *server, script=script, plain=sort == "plain") as rpc:
        yield Driven(rpc, kind, (*outer, *client), place.asyncio)
