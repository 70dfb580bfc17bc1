"""The grid of "nothing hangs": every kind of exception, raised everywhere that an RPC runs somebody's code.

A cell is one RPC in which one thing is raised once: in a handler, an interceptor, a tap, a callback, a serializer. Its
caller has to have a status within a second, every interceptor exactly one outcome, and the next RPC has to be served.

    with Grid() as grid:
        findings = [finding for cell in cells() if (finding := grid.run(cell))]

All cells of a kind share a server and a channel; after a finding they get new ones, for these may be damaged.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from interpose import Call, Flow, Kind, Side, errors, intercept_channel, server_interceptor, wait

SOON = 1.0  # seconds within which the caller has to have a status
LATE = 3.0  # deadline of every RPC of the grid: whoever is rescued by it was hung
LOST = 6.0  # seconds after which not even that has come, or a server has not stopped

SERVICE = "torture.Grid"
WORKERS = 4  # threads of a server
WORDS = ("one", "two")  # request messages of a stream; a unary request is the first

OK = grpc.StatusCode.OK

# --- what is raised ---------------------------------------------------------------------------------------------------


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Wordless(Exception):
    """Its `str()` gives no text."""

    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307  just so


class Exiting(Exception):
    """Who asks for its text is asked to exit."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Frozen(Exception):
    """Takes no attribute: no note, no cause, no traceback by name."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def add_note(self, note: str) -> None:
        raise AttributeError("add_note")


class Fatal(BaseException):
    """A `BaseException` of somebody's own."""


def _deep() -> BaseException:
    try:
        return _deep()
    except RecursionError as error:
        return error


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: Exception("a text"),
    "no text": ValueError,
    "KeyError": lambda: KeyError("key"),
    "StatusError": lambda: errors.NotFound("no such thing"),
    "RpcError": lambda: grpc.RpcError("bare"),
    "AioRpcError": lambda: grpc.aio.AioRpcError(
        grpc.StatusCode.ABORTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "of another RPC"
    ),
    "AbortError": lambda: grpc.aio.AbortError("not ours"),
    "UsageError": lambda: grpc.aio.UsageError("not allowed"),
    "InvalidStateError": lambda: asyncio.InvalidStateError("too late"),
    "TimeoutError": lambda: TimeoutError("slow"),
    "futures.CancelledError": futures.CancelledError,
    "asyncio.CancelledError": asyncio.CancelledError,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "BaseException": lambda: Fatal("of somebody's own"),
    "StopIteration": lambda: StopIteration("a value"),
    "StopAsyncIteration": lambda: StopAsyncIteration("a value"),
    "RecursionError": _deep,
    "MemoryError": MemoryError,
    "ExceptionGroup": lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [SystemExit(3), KeyError("two")]),
    "str() raises": Unprintable,
    "str() gives no text": Wordless,
    "str() exits": Exiting,
    "takes no attribute": Frozen,
    "un-encodable text": lambda: ValueError("half a pair: \ud800"),
    "100 kB of text": lambda: ValueError("x" * 100_000),
    "100 kB beyond ASCII": lambda: ValueError("ü" * 50_000),
    "control characters": lambda: ValueError("a\r\nb\0c"),
}

# --- where ------------------------------------------------------------------------------------------------------------

FLOWS = ("before", "after", "wait")  # in an interceptor: in front of its yield, behind it, in what it waits for
TAPS = ("request tap", "response tap", "initial metadata tap")
HANDLER = ("handler", "handler, late")  # at once; once the first message of a stream has passed
SERVER = ("callback", "request deserializer", "response serializer")
CLIENT = ("callback", "request serializer", "response deserializer", "requests")

FORMS: dict[tuple[Side, bool], tuple[str, ...]] = {
    (Side.SERVER, False): ("plain",),
    (Side.SERVER, True): ("async", "writing", "plain"),  # writing: `await context.read()` and `write()`
    (Side.CLIENT, False): ("blocking", "future"),  # a stub that returns at once counts as a future
    (Side.CLIENT, True): ("iterating", "writing"),
}


@dataclass(frozen=True)
class Cell:
    """One RPC, and what is raised where in it. form: how the handler, or the caller, is written."""

    exception: str
    kind: Kind
    where: str
    side: Side
    asyncio: bool
    form: str

    def __str__(self) -> str:
        stack = "aio" if self.asyncio else "sync"
        return f"{stack} {self.side.value}, {self.form}, {self.kind.value}: {self.exception} in {self.where}"

    @property
    def exists(self) -> bool:
        """Is there such a place?"""
        streams = self.kind.request_streaming or self.kind.response_streaming
        return not (
            (self.where == "handler, late" and not streams)
            or (self.where == "requests" and not self.kind.request_streaming)
            or (self.where == "wait" and (not self.asyncio or self.form == "plain"))
            or (self.where == "initial metadata tap" and self.side is Side.SERVER)
            or (self.form == "blocking" and (self.kind.response_streaming or self.where == "callback"))
            or (self.form == "writing" and not streams)
            or (self.form == "writing" and self.where == "requests")
        )


@dataclass(frozen=True)
class Finding:
    """What is wrong with a cell."""

    cell: Cell
    what: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.what}"


def cells() -> list[Cell]:
    """The whole grid, those that share a server next to each other."""
    return [
        cell
        for (side, asynchronous), forms in FORMS.items()
        for form in forms
        for kind in Kind
        for where in (*FLOWS, *TAPS, *((*HANDLER, *SERVER) if side is Side.SERVER else CLIENT))
        for exception in EXCEPTIONS
        if (cell := Cell(exception, kind, where, side, asynchronous, form)).exists
    ]


# --- the parts of an RPC that raise -----------------------------------------------------------------------------------


class Trap:
    """Raises once, where the cell says."""

    def __init__(self) -> None:
        self.cell: Cell | None = None
        self.sprung = False
        self.later_called = threading.Event()  # was the callback behind the raising one called?

    def set(self, cell: Cell | None) -> None:
        self.cell, self.sprung = cell, False
        self.later_called.clear()

    def here(self, where: str, side: Side | None = None) -> bool:
        """Is it set here?"""
        return self.cell is not None and self.cell.where == where and side in (None, self.cell.side)

    def step(self, where: str) -> None:
        """Somebody comes by."""
        cell = self.cell
        if cell is not None and cell.where == where and not self.sprung:
            self.sprung = True
            error = EXCEPTIONS[cell.exception]()
            raise error

    def coder(self, where: str) -> Callable[[Any], bytes]:
        """A (de)serializer that leaves bytes as they are."""

        def code(message: bytes) -> bytes:
            self.step(where)
            return message

        return code

    def callback(self, *_: Any) -> None:
        self.step("callback")

    def later(self, *_: Any) -> None:
        self.later_called.set()


class Watch:
    """The outermost interceptor: counts flows begun and told."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = 0

    def __call__(self, call: Call) -> Flow:
        with self._changed:
            self._open += 1
        yield call  # a flow that is closed instead of being told stays open
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def settled(self) -> bool:
        """Was every flow told its outcome, or is it soon?"""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, SOON)


def trapped(trap: Trap) -> Callable[[Call], Flow]:
    """The interceptor of every cell; it waits, and taps, only where the cell wants it."""

    async def waited() -> None:
        trap.step("wait")

    def interceptor(call: Call) -> Flow:
        trap.step("before")
        if trap.here("wait"):
            yield from wait(waited())
        if trap.here("request tap"):
            call = call.tap(requests=lambda _: trap.step("request tap"))
        if trap.here("response tap"):
            call = call.tap(responses=lambda _: trap.step("response tap"))
        if trap.here("initial metadata tap"):
            call = call.tap(initial_metadata=lambda _: trap.step("initial metadata tap"))
        yield call
        trap.step("after")

    return interceptor


class Handlers:
    """The four handlers of a server: they answer with what they were sent."""

    def __init__(self, trap: Trap) -> None:
        self.trap = trap

    def begin(self, add_callback: Callable[[Any], object]) -> None:
        if self.trap.here("callback", Side.SERVER):
            add_callback(self.trap.callback)
            add_callback(self.trap.later)
        self.trap.step("handler")

    def late(self) -> None:
        """A message has passed."""
        self.trap.step("handler, late")


class Plain(Handlers):
    """As plain functions and generators."""

    def read(self, requests: Iterable[bytes]) -> Iterator[bytes]:
        for request in requests:
            yield request
            self.late()

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        self.begin(context.add_callback)
        return request

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        self.begin(context.add_callback)
        return b",".join(self.read(requests))

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.begin(context.add_callback)
        yield from self.read([request, request])

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.begin(context.add_callback)
        yield from self.read(requests)


class Async(Handlers):
    """As coroutines and async generators."""

    async def read(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            self.late()

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        self.begin(context.add_done_callback)
        return request

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.begin(context.add_done_callback)
        return b",".join([request async for request in self.read(requests, context)])

    async def unary_stream(self, request: bytes, context: Any) -> Any:
        self.begin(context.add_done_callback)
        for _ in WORDS:
            yield request
            self.late()

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> Any:
        self.begin(context.add_done_callback)
        async for request in self.read(requests, context):
            yield request


class Writing(Async):
    """As coroutines that call `read` and `write`."""

    async def read(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        while (request := await context.read()) is not grpc.aio.EOF:
            yield request
            self.late()

    async def unary_stream(self, request: bytes, context: Any) -> Any:
        async for response in super().unary_stream(request, context):
            await context.write(response)

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> Any:
        async for response in super().stream_stream(requests, context):
            await context.write(response)


HANDLERS = {"plain": Plain, "async": Async, "writing": Writing}


# --- servers and clients ----------------------------------------------------------------------------------------------


class Loop:
    """An event loop in a thread of its own, which goes on where SystemExit or Ctrl-C stops it, and counts that."""

    def __init__(self) -> None:
        self.stopped = 0
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # what callbacks raise is no news here
        self._thread = threading.Thread(target=self._work, name="grid", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._closing:
            try:
                self._loop.run_forever()
            except BaseException:
                self.stopped += 1

    def begin(self, work: Coroutine[Any, Any, Any]) -> futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LOST)
        self._loop.close()


class Rig:
    """A server and a client to it, one of them with interceptors."""

    def __init__(self, cell: Cell) -> None:
        self.trap, self.watch = Trap(), Watch()
        self._layers = (self.watch, trapped(self.trap))
        self._side, self._asyncio = cell.side, cell.asyncio
        self.loop = Loop() if cell.asyncio else None
        self._pool = futures.ThreadPoolExecutor(WORKERS)
        form = cell.form if cell.side is Side.SERVER else "plain"
        port = self._serve(form)
        self._connect(f"127.0.0.1:{port}")

    def _serve(self, form: str) -> int:
        trap, ours = self.trap, self._side is Side.SERVER
        handlers = HANDLERS[form](trap)
        decode, encode = trap.coder("request deserializer"), trap.coder("response serializer")
        made = {
            kind.value: getattr(grpc, f"{kind.value}_rpc_method_handler")(getattr(handlers, kind.value), decode, encode)
            for kind in Kind
        }
        service = grpc.method_handlers_generic_handler(SERVICE, made)
        interceptors: list[Any] = [server_interceptor(*self._layers)] if ours else []

        def add(server: Any) -> int:
            server.add_generic_rpc_handlers((service,))
            return int(server.add_insecure_port("127.0.0.1:0"))

        if not (ours and self._asyncio):
            self._server: Any = grpc.server(self._pool, interceptors=interceptors)
            port = add(self._server)
            self._server.start()
            return port

        async def serve() -> int:
            self._server = grpc.aio.server(self._pool, interceptors=interceptors)
            port = add(self._server)
            await self._server.start()
            return port

        return int(self._on_loop(serve()))

    def _connect(self, target: str) -> None:
        options = [("grpc.enable_retries", 0)]
        layers = self._layers if self._side is Side.CLIENT else ()

        def stubs(channel: Any) -> dict[Kind, Any]:
            self._channel = intercept_channel(channel, *layers) if layers else channel
            encode, decode = self.trap.coder("request serializer"), self.trap.coder("response deserializer")
            return {
                kind: getattr(self._channel, kind.value)(f"/{SERVICE}/{kind.value}", encode, decode) for kind in Kind
            }

        if self._side is Side.SERVER or not self._asyncio:
            self.stubs = stubs(grpc.insecure_channel(target, options))
            return

        async def connect() -> dict[Kind, Any]:
            return stubs(grpc.aio.insecure_channel(target, options))

        self.stubs = self._on_loop(connect())

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self.loop is not None
        return self.loop.begin(work).result(LOST)

    # - one RPC -

    def perform(self, kind: Kind, form: str) -> tuple[Any, float]:
        """One RPC to its end: its code or what it raised, and how long that took. "lost" if there is no end."""
        ended: futures.Future[tuple[Any, float]] = futures.Future()
        if self._side is Side.SERVER or not self._asyncio:
            how = "future" if self._side is Side.SERVER else form
            threading.Thread(target=self._perform, args=(kind, how, ended), name="grid caller", daemon=True).start()
        else:
            assert self.loop is not None
            self.loop.begin(self._perform_async(kind, form, ended))
        try:
            return ended.result(LOST)
        except futures.TimeoutError:
            return "lost", LOST

    def _perform(self, kind: Kind, form: str, ended: futures.Future[Any]) -> None:
        begun = time.monotonic()
        end: Any
        try:
            stub = self.stubs[kind]
            request: Any = self._requests() if kind.request_streaming else WORDS[0].encode()
            if form == "blocking":
                stub(request, timeout=LATE)
                end = OK
            else:
                call = (stub if kind.response_streaming else stub.future)(request, timeout=LATE)
                self._call_back(call)
                end = self._read(call) if kind.response_streaming else call.result() and OK
        except grpc.RpcError as error:
            end = error.code()
        except BaseException as error:
            end = type(error).__name__
        ended.set_result((end, time.monotonic() - begun))

    def _read(self, call: Any) -> Any:
        for _ in call:
            pass
        return call.code()

    def _call_back(self, call: Any) -> None:
        if self.trap.here("callback", Side.CLIENT):
            with suppress(BaseException):  # of a call that has ended already it is called here, for us to see
                call.add_done_callback(self.trap.callback)
            call.add_done_callback(self.trap.later)

    def _requests(self) -> Iterator[bytes]:
        for word in WORDS:
            self.trap.step("requests")
            yield word.encode()

    async def _requests_async(self) -> AsyncIterator[bytes]:
        for request in self._requests():
            yield request

    async def _perform_async(self, kind: Kind, form: str, ended: futures.Future[Any]) -> None:
        begun = time.monotonic()
        end: Any
        try:
            end = await self._converse(kind, form)
        except grpc.RpcError as error:
            end = error.code()
        except BaseException as error:
            end = type(error).__name__
        ended.set_result((end, time.monotonic() - begun))

    async def _converse(self, kind: Kind, form: str) -> Any:
        written = kind.request_streaming and form == "writing"
        request: Any = None if written else self._requests_async() if kind.request_streaming else WORDS[0].encode()
        call = self.stubs[kind](request, timeout=LATE)
        self._call_back(call)
        if written:
            for word in WORDS:
                await call.write(word.encode())
            await call.done_writing()
        if not kind.response_streaming:
            await call
        elif form == "writing":
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            async for _ in call:
                pass
        return await call.code()

    def close(self) -> None:
        """Stop everything."""
        asynchronous = self.loop is not None
        if asynchronous and self._side is Side.CLIENT:
            self._on_loop(self._channel.close())
        else:
            self._channel.close()
        if asynchronous and self._side is Side.SERVER:
            self._on_loop(self._server.stop(None))
        else:
            self._server.stop(None).wait(LOST)
        self._pool.shutdown(wait=False)  # a thread that a finding keeps shall not keep us
        if self.loop is not None:
            self.loop.close()


# --- running cells ----------------------------------------------------------------------------------------------------


def _keep(rig: Rig) -> None:
    """Never let it be collected: finalizers of servers that had lost their thread stood still (grpcio 1.85.1)."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(rig))


class Grid:
    """Runs cells, one at a time."""

    def __init__(self) -> None:
        self._rigs: dict[tuple[Side, bool, str], Rig] = {}
        self._slow: list[Rig] = []

    def __enter__(self) -> Grid:
        self._disabled = logging.root.manager.disable
        logging.disable()  # thousands of tracebacks, all of them wanted
        return self

    def __exit__(self, *_: object) -> None:
        for rig in [*self._rigs.values(), *self._slow]:
            rig.close()
        logging.disable(self._disabled)

    def run(self, cell: Cell) -> Finding | None:
        """Perform a cell; what is wrong with it."""
        place = cell.side, cell.asyncio, cell.form if cell.side is Side.SERVER else ""
        rig = self._rigs.pop(place, None) or Rig(cell)
        if fault(rig, cell):
            slow = rig
            _keep(slow)
            # On a machine under load a second may pass without a hang, so a cell has to fail twice; and it is repeated
            # on new servers until it would have taken all their threads, for the first may have lost one in each cell.
            rig = Rig(cell)
            for _ in range(WORKERS + 1):
                if what := fault(rig, cell):
                    _keep(rig)
                    return Finding(cell, what)
            self._slow.append(slow)
        self._rigs[place] = rig
        return None


def fault(rig: Rig, cell: Cell) -> str | None:
    """What is wrong with this cell on this rig; None if all is well."""
    trap, stopped = rig.trap, rig.loop.stopped if rig.loop is not None else 0
    trap.set(cell)
    end, seconds = rig.perform(cell.kind, cell.form)
    if end == "lost":
        return "no status at all"
    if seconds > SOON:
        return f"{getattr(end, 'name', end)} only after {seconds:.1f} s"
    if not rig.watch.settled():
        return f"{getattr(end, 'name', end)}, but an interceptor was never told"
    if cell.where == "callback" and not trap.later_called.wait(SOON):
        return "the callback behind it was not called"
    if not trap.sprung:
        return "nothing was raised"
    if (end is OK) != (cell.where == "callback"):
        return f"ended with {getattr(end, 'name', end)}"
    trap.set(None)
    if rig.loop is not None and rig.loop.stopped > stopped:
        return "it stopped the event loop"
    following, seconds = rig.perform(cell.kind, cell.form)
    if following is not OK or seconds > SOON:
        return f"the next RPC ended with {getattr(following, 'name', following)} after {seconds:.1f} s"
    return None


def main(chosen: list[Cell] | None = None) -> list[Finding]:
    """Run the grid, and print what was found, by count."""
    chosen = cells() if chosen is None else chosen
    begun = time.monotonic()
    with Grid() as grid:
        findings = [finding for cell in chosen if (finding := grid.run(cell))]
    for finding in findings:
        print(finding)  # noqa: T201  it is run by hand
    print(f"{len(chosen):,} cells, {len(findings)} findings, {time.monotonic() - begun:.1f} s")  # noqa: T201
    return findings


def table_rows() -> list[tuple[str, str, int]]:
    """The long form, for the table of `make torture`."""
    findings = main()
    by_stack = Counter((finding.cell.side, finding.cell.asyncio) for finding in findings)
    sizes = Counter((cell.side, cell.asyncio) for cell in cells())
    return [
        (
            f"nothing hangs: {'asyncio' if asynchronous else 'sync'} {side.value}s",
            f"{size:,} cells",
            by_stack[side, asynchronous],
        )
        for (side, asynchronous), size in sizes.items()
    ]
