"""What grpc's asyncio server leaves to be done for plain handlers: their contexts do not say when an RPC is over, and
the threads of their response streams may be forgotten.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from typing import Any

import grpc

from interpose._shell.codec import EncodedAhead

# Seconds from the end of a request stream until a plain handler sees it: what grpc knows of the client comes just after,
# and a plain handler's context has nothing that could be waited for.
STREAM_END_DELAY = 0.001
MOST_NAPS = 50  # on a machine where none ends in time
_BEAT, _BEATS = 0.02, 5  # seconds: asyncio.run() closes its loop sooner than that, once it has cancelled all tasks
_PUT = asyncio.Queue.put.__code__
_TRIES = (0.001, 0.01, 0.1, 1.0)  # seconds between two looks: the thread comes to the queue after the news of the end


class Told:
    """grpc's context for a plain handler, which does not say when the RPC is over; grpc's task for it does."""

    __slots__ = ("_loop", "_native", "_peer", "_task", "check_response")

    def __init__(
        self, native: Any, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, encoded: EncodedAhead | None
    ) -> None:
        self._native = native
        self._task = task
        self._loop = loop
        self.check_response = None if encoded is None else encoded.check
        self._peer = ""
        loop.call_soon_threadsafe(self._note_peer)  # no caller waits for it: it is there when one asks after the end

    def is_active(self) -> bool:
        return not (self._task.cancelling() or self._task.done() or self._native.time_remaining() == 0)

    def add_callback(self, callback: Callable[[], object]) -> bool:
        if not self.is_active():
            return False
        # grpc's own is called only if the handler has answered.
        self._loop.call_soon_threadsafe(self._task.add_done_callback, lambda _: callback())
        return True

    def _note_peer(self) -> None:
        if not (self._peer or self._task.done()):
            self._peer = str(self._native.peer())

    def peer(self) -> str:
        return self._peer or str(self._asked("peer", ""))

    def peer_identities(self) -> Any:
        return self._asked("peer_identities", None)

    def peer_identity_key(self) -> Any:
        return self._asked("peer_identity_key", None)

    def auth_context(self) -> Any:
        return self._asked("auth_context", {})

    def _asked(self, name: str, unknown: Any) -> Any:
        """Ask grpc's context for what the core knows: on the loop, where its call cannot end meanwhile.

        What is not known by then is not asked for any more.
        """

        async def asked() -> Any:
            return unknown if self._task.done() else getattr(self._native, name)()

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()

    def confirmed(self, requests: Iterator[Any]) -> Iterator[Any]:
        """The request stream; raises at its end if that came because the client has gone (see `confirm_end`)."""
        yield from requests
        asyncio.run_coroutine_threadsafe(_settled(), self._loop).result()
        if not self.is_active():
            raise grpc.RpcError  # as on sync servers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


async def _settled() -> None:
    """Wait until what grpc knows by now has been told: a nap that ends in time, for grpc's threads are as late as we are."""
    loop = asyncio.get_running_loop()
    for _ in range(MOST_NAPS):
        began = loop.time()
        await asyncio.sleep(STREAM_END_DELAY)
        if loop.time() - began < 2 * STREAM_END_DELAY:
            return


class Pulled:
    """The responses of a plain handler. grpc pulls them in a pool thread and, when the client leaves, forgets them."""

    def __init__(self, messages: Any, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._messages = messages
        self._context = context
        self._loop = loop
        self._lock = threading.Lock()
        self._free = True  # suspended: who takes it may resume or close it
        self._over = False
        self._given: deque[Any] = deque(maxlen=2)  # the messages that grpc may still hold

    def pulled(self) -> Iterator[Any]:
        """What grpc iterates."""
        try:
            yield from iter(self._next, None)
            if self._over:
                self._await_loop()
        finally:
            self._close()
            if self._over:
                with suppress(RuntimeError):  # the loop is closed, and nothing is left to free
                    self._loop.call_soon_threadsafe(self._free_thread, 0)

    def when_over(self, _: Any) -> None:
        """grpc's task for the RPC has ended. A generator that nothing will resume is closed, in a thread like its own."""
        self._over = True
        if self._free:
            self._loop.run_in_executor(None, self._close)
        self._free_thread(0)

    def _await_loop(self) -> None:
        """Wait, in grpc's thread, until a loop without a server is closed, or has gone on for a while.

        grpc has the loop take note of the end, which a loop does that goes on or is closed (the exit of a process stood
        still with grpcio 1.85.1).
        """
        with suppress(RuntimeError):  # closed
            for _ in range(0 if self._serves() else _BEATS):
                beat = threading.Event()
                self._loop.call_soon_threadsafe(self._loop.call_later, _BEAT, beat.set)
                while not (beat.wait(_BEAT) or self._loop.is_closed()):
                    pass

    def _serves(self) -> bool:
        """Does the loop still run a server, whose task has not been cancelled with all the others?"""
        return any(
            # None where the collector has begun with a coroutine of grpc's.
            "AioServer._server_main_loop" in (getattr(task.get_coro(), "__qualname__", None) or "")
            and not task.cancelling()
            for task in asyncio.all_tasks(self._loop)
        )

    def _free_thread(self, tries: int) -> None:
        """Take from grpc's queue what its thread waits to be rid of: who would have taken it has gone.

        So the thread serves the next RPC (threads of servers stood still with grpcio 1.85.1). Nothing but the task that
        waits to put the next message leads to that queue.
        """
        for task in asyncio.all_tasks(self._loop):
            frame = getattr(task.get_coro(), "cr_frame", None)
            if frame is not None and frame.f_code is _PUT:
                queue = frame.f_locals["self"]
                if any(message is given for message in getattr(queue, "_queue", ()) for given in self._given):
                    queue.get_nowait()
        if tries < len(_TRIES):
            self._loop.call_later(_TRIES[tries], self._free_thread, tries + 1)

    def _next(self) -> Any:
        """The next message; None at the end."""
        if not self._take():
            return None
        message = self._context.run(next, self._messages, None)
        self._free = message is not None
        if self._over:  # when_over may have come while the generator was not free
            self._close()
            return None
        self._given.append(message)
        return message

    def _close(self) -> None:
        if self._take():
            self._context.run(self._messages.close)

    def _take(self) -> bool:
        with self._lock:
            taken, self._free = self._free, False
        return taken
