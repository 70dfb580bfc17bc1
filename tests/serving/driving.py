"""Servers of `interpose.serve` in this process: they have its main thread, and a script in another one calls them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import interpose
from interpose.testing.codec import decode, encode
from tests.support.patience import PATIENCE

T = TypeVar("T")

SERVICE = "test.Shop"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
STARTING = 60.0  # seconds that a process may take to start, or to end: a busy machine starts Python slowly

Status = health_pb2.HealthCheckResponse


class Shop:
    """A service of the four kinds. A request "wait" waits for `release`, or for the end of its RPC."""

    def __init__(self, *, asyncio: bool) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.log: list[str] = []
        self._asyncio = asyncio

    @property
    def app(self) -> Callable[[Any], Any]:
        """The application as a function; on asyncio an async one."""
        return self._async_app if self._asyncio else self._app

    def _app(self, server: Any) -> Iterator[None]:
        self.register(server)
        yield
        self.log.append("cleaned up")

    async def _async_app(self, server: Any) -> AsyncIterator[None]:
        self.register(server)
        yield
        self.log.append("cleaned up")

    def register(self, server: Any) -> None:
        """Register the four methods, named as their kinds."""
        make: Any = self._async_behavior if self._asyncio else self._behavior
        handlers = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(make(kind), decode, encode) for kind in KINDS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _behavior(self, kind: str) -> Callable[..., Any]:
        def answer(argument: Any, context: Any) -> str:
            text = argument if kind.startswith("unary") else "".join(argument)
            self.log.append("begun")
            self.entered.release()
            while text == "wait" and context.is_active() and not self.release.wait(0.005):
                pass
            self.log.append("ended")
            return f"{text}!"

        def stream(argument: Any, context: Any) -> Iterator[str]:
            yield "first"
            yield answer(argument, context)

        return stream if kind.endswith("stream") else answer

    def _async_behavior(self, kind: str) -> Callable[..., Any]:
        async def answer(argument: Any, context: Any) -> str:
            text = argument if kind.startswith("unary") else "".join([part async for part in argument])
            self.log.append("begun")
            self.entered.release()
            try:
                while text == "wait" and not self.release.is_set():  # noqa: ASYNC110  another thread's
                    await asyncio.sleep(0.005)
            finally:
                await asyncio.sleep(0.01)  # what a lease or a transaction takes to be given back
                self.log.append("ended")
            return f"{text}!"

        async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
            yield "first"
            yield await answer(argument, context)

        return stream if kind.endswith("stream") else answer


class Client:
    """What a script calls the server with, and stops it with."""

    def __init__(self, target: str, credentials: Any = None, options: Iterable[Any] = ()) -> None:
        # The server may be slower to start than the script.
        soon = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.min_reconnect_backoff_ms", 20)]
        given = [("grpc.enable_retries", 0), *soon, *options]
        self.target = target
        self.signalled = False
        self.channel: Any = (
            grpc.insecure_channel(target, given)
            if credentials is None
            else grpc.secure_channel(target, credentials, given)
        )

    def call(self, text: str = "hello", **options: Any) -> str:
        """An answer; the first call waits for the server to start."""
        options = {"timeout": PATIENCE, "wait_for_ready": True, **options}
        answer: str = self.channel.unary_unary(f"/{SERVICE}/unary_unary", encode, decode)(text, **options)
        return answer

    def start(self, kind: str, text: str = "wait", timeout: float = PATIENCE) -> Any:
        """A call under way: a future, or a stream that can be read."""
        method = getattr(self.channel, kind)(f"/{SERVICE}/{kind}", encode, decode)
        begin = method if kind.endswith("stream") else method.future
        return begin(text if kind.startswith("unary") else iter([text]), timeout=timeout, wait_for_ready=True)

    def health(self, service: str = "") -> Any:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE, wait_for_ready=True).status

    def watch(self, service: str = "") -> Any:
        """The health of a service, each time that it changes."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE, wait_for_ready=True)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Ask the server to stop; or to hurry."""
        self.signalled = True
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, number)


def ended(call: Any, kind: str) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """How a call has ended: its code, details and trailing metadata. A stream is read to its end first."""
    if kind.endswith("stream"):
        with suppress(grpc.RpcError):
            list(call)
    return call.code(), call.details(), dict(call.trailing_metadata())


def serve(app: Any, script: Callable[[Client], T], path: Path, *, credentials: Any = None, **options: Any) -> T:
    """Serve an application until the script is done, and ends. The script runs in another thread."""
    client = Client(
        f"unix:{path}", credentials, [("grpc.ssl_target_name_override", "localhost")] if credentials else []
    )
    done: list[T] = []
    failed: list[BaseException] = []
    over = threading.Event()  # serving has begun, and has come to its end

    def play() -> None:
        try:
            done.append(script(client))
        except BaseException as error:
            failed.append(error)
        finally:
            if not (client.signalled or over.is_set()):
                client.signal()

    thread = threading.Thread(target=play, name="script", daemon=True)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until the server hears it
    try:
        thread.start()
        interpose.serve(app, **{"uds": str(path), **options})
    finally:
        over.set()
        thread.join(PATIENCE)
        client.channel.close()
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise failed[0]
    [result] = done
    return result
