"""Faults of the network: a TCP proxy in front of a server, which misbehaves on command.

with FaultProxy(target) as proxy:
    channel = grpc.insecure_channel(proxy.target)
    proxy.black_hole()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

QUIET = 0.03  # seconds in which a message that was written has arrived, on a busy machine too
CHUNK = 65536  # bytes read at a time
NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER with no time left: closing sends RST


class FaultProxy:
    """Passes bytes between clients and a server, and misbehaves on command; for as long as it is entered.

    target: the server, as a client would write it: "127.0.0.1:5000" or "unix:/run/echo.sock".
    """

    def __init__(self, target: str) -> None:
        self._server = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._pipes: set[_Pipe] = set()
        self.target = ""
        self.accepted = 0  # connections so far
        self._delay = 0.0
        self._rate: float | None = None
        self._open = asyncio.Event()
        self._open.set()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        port = self._listener.sockets[0].getsockname()[1]
        self.target = f"127.0.0.1:{port}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # - commands -

    def delay(self, seconds: float) -> None:
        """Let every byte arrive these seconds later, each way, from now on."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def throttle(self, bytes_per_second: float | None) -> None:
        """Let no more bytes than this through in a second, each way and connection, from now on; None: no limit."""
        self._do(lambda: setattr(self, "_rate", bytes_per_second))

    def black_hole(self) -> None:
        """Let nothing through any more, and say nothing: connections stay open, and new ones are accepted."""
        self._do(self._open.clear)

    def half_close(self) -> None:
        """End what servers send, on every connection: clients read the end of the stream and may still write."""
        self._do(lambda: self._each(_Pipe.half_close))

    def reset(self) -> None:
        """Break every connection, both ways, with a TCP reset. New ones are accepted."""
        self._do(lambda: self._each(_Pipe.reset))

    def drop(self, quiet: float = QUIET) -> None:
        """End every connection in good order, as the death of a server's process does, but not in the middle of a message:
        once nothing came from the server for `quiet` seconds.
        """
        self.dropping(quiet).result()

    def dropping(self, quiet: float = QUIET) -> Future[None]:
        """The same for code that must not block, quiet in seconds: `await asyncio.wrap_future(proxy.dropping())`."""

        async def drop() -> None:
            for pipe in list(self._pipes):
                while (left := pipe.last_received + quiet - self._loop.time()) > 0:  # noqa: ASYNC110  it is time that counts
                    await asyncio.sleep(left)
                pipe.drop()

        return asyncio.run_coroutine_threadsafe(drop(), self._loop)

    def heal(self) -> None:
        """Behave again: no delay, no limit, no black hole. What a black hole had kept is passed on."""

        def heal() -> None:
            self._delay, self._rate = 0.0, None
            self._open.set()

        self._do(heal)

    # - on the proxy's loop -

    def _do(self, command: Callable[[], object]) -> None:
        """Run it on the loop, and wait until it was done."""

        async def done() -> None:
            command()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result()

    def _each(self, fault: Callable[[_Pipe], None]) -> None:
        for pipe in list(self._pipes):
            fault(pipe)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            if self._server.startswith("unix:"):
                server = await asyncio.open_unix_connection(self._server.removeprefix("unix:"))
            else:
                host, _, port = self._server.rpartition(":")
                server = await asyncio.open_connection(host, int(port))
        except OSError:  # the server is down, and so is what is before it
            writer.transport.abort()
            return
        pipe = _Pipe(self, (reader, writer), server)
        self._pipes.add(pipe)
        # Cancelled by `_close`, it ends without a word: older asyncios ask it for an exception, which a cancelled task has not.
        with contextlib.suppress(asyncio.CancelledError):
            await pipe.run()
        self._pipes.discard(pipe)

    async def _close(self) -> None:
        self._listener.close()
        self._each(_Pipe.abort)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Pipe:
    """One connection of a client, and the one to the server behind it."""

    def __init__(self, proxy: FaultProxy, client: Any, server: Any) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = client
        self._server_reader, self._server_writer = server
        self.last_received = proxy._loop.time()  # when bytes last came

    async def run(self) -> None:
        """Pass bytes both ways, until both ends are closed or one is broken."""
        up = self._pass(self._client_reader, self._server_writer)
        down = self._pass(self._server_reader, self._client_writer)
        try:
            await asyncio.gather(up, down)
        except (OSError, asyncio.IncompleteReadError):  # one end broke; so does the other
            pass
        finally:
            self.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way. What was read waits in a queue for its time, so that a delay delays and does not throttle."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        writing = asyncio.ensure_future(self._write(queue, writer))
        try:
            while data := await reader.read(CHUNK):
                self.last_received = asyncio.get_running_loop().time()
                await queue.put((self.last_received + self._proxy._delay, data))
            await queue.put((0.0, b""))
            await writing
        finally:
            writing.cancel()

    async def _write(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop, proxy = asyncio.get_running_loop(), self._proxy
        while True:
            due, data = await queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await proxy._open.wait()
            if not data:
                break
            if proxy._rate is not None:
                await asyncio.sleep(len(data) / proxy._rate)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self._client_writer.write_eof()

    def drop(self) -> None:
        self._client_writer.close()
        self._server_writer.transport.abort()

    def reset(self) -> None:
        for writer in (self._client_writer, self._server_writer):
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.family != getattr(socket, "AF_UNIX", None):
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.abort()

    def abort(self) -> None:
        for writer in (self._client_writer, self._server_writer):
            writer.transport.abort()
