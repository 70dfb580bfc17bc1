"""An asyncio server that runs: `grpc.aio.server` on an event loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio

from interpose.mechanisms.text import counted
from interpose.serving import standard
from interpose.serving.drain import NO_NEW_CALLS, drain, play_on_loop
from interpose.serving.ending import end_on_loop
from interpose.serving.options import CLEAN_UP, FLUSH, CannotServe
from interpose.serving.readiness import CHECK_TIMEOUT
from interpose.serving.signals import stop_signals, wakes
from interpose.serving.site import Opened, Site

_log = logging.getLogger("interpose")

AT_ONCE = 1.0  # seconds for a status to be sent; one that a slow reader blocks is left to the end of its connection
GLANCE = 0.01  # seconds between two looks at handlers that outlive their RPCs


class OnLoop:
    """An asyncio server from its start to its end."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._opened: Opened
        self._native: grpc.aio.Server
        self._life = AsyncExitStack()  # of the application: what it opened is closed at the end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early = 0  # signals that came before there was a loop
        self._stopping: asyncio.Task[None]

    def run(self, ready: Callable[[], None]) -> bool:
        """Serve until a signal comes, and drain. False if handlers are left whose RPCs were ended."""
        with stop_signals(self.signal), asyncio.Runner(loop_factory=_factory(self._site)) as runner:
            return runner.run(self._run(ready))

    def signal(self) -> None:
        """Stop, or hurry."""
        if self._loop is None:
            self._early += 1
        else:
            self._loop.call_soon_threadsafe(self._stop_requests.release)

    async def _run(self, ready: Callable[[], None]) -> bool:
        self._stop_requests = asyncio.Semaphore(0)
        self._loop = asyncio.get_running_loop()
        wakes(self._loop)
        for _ in range(self._early):
            self._stop_requests.release()
        options = self._site.options
        async with self._life:
            await self._start()
            ready()
            await self._first_signal()
            _log.info("stopping: %s under way", counted(len(self._site.running), "call"))
            await play_on_loop(drain(self, options.drain_delay, options.timeout_graceful_shutdown))
        _log.info("stopped")
        return not self._site.running

    async def _start(self) -> None:
        site = self._site
        pool = ThreadPoolExecutor(site.options.pool_size, "interpose-serve")  # for plain handlers
        self._native = site.app.given if site.app.ready else grpc.aio.server(pool, options=site.channel_options)
        self._life.callback(pool.shutdown, wait=False)
        self._opened = site.open(self._native)
        self._life.callback(self._opened.close)
        await self._life.enter_async_context(site.app.on_asyncio(self._opened.app))
        self._opened.add_standard()
        await self._set_health(True)
        self._life.callback(await asyncio.to_thread(site.readiness, self._ask, self._tell))
        site.bind(self._native)
        self._life.callback(site.address.close)
        await self._native.start()
        site.address.published()

    async def _set_health(self, serving: bool) -> None:
        for service in self._opened.healthy:
            await self._site.health.set(service, standard.status(serving))

    def _tell(self, serving: bool) -> None:
        """Set the health, from another thread."""
        self._on_loop(self._set_health(serving))

    def _ask(self, check: Callable[[], Any]) -> Any:
        """Ask a check, from another thread; an async one runs on the loop."""
        answer = check()
        return self._on_loop(answer) if inspect.iscoroutine(answer) else answer

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CHECK_TIMEOUT)

    async def _first_signal(self) -> None:
        # Kept to the end, and not cancelled: with it grpc would lose the future that its stop() waits for.
        self._ended = asyncio.ensure_future(self._native.wait_for_termination())
        if not await self._either(None, [self._ended]):
            raise RuntimeError("the server has ended by itself: grpc's log says why")

    async def _either(self, seconds: float | None, others: Iterable[asyncio.Future[Any]] = ()) -> bool:
        """Wait so long at most, or until one of the others is done, or for a signal; gives whether it was a signal."""
        signal = asyncio.ensure_future(self._stop_requests.acquire())
        await asyncio.wait([signal, *others], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if signal.done():
            return True
        signal.cancel()
        return False

    # - the steps of the drain -

    async def not_serving(self) -> None:
        if self._site.health is not None:
            await self._site.health.enter_graceful_shutdown()
            await asyncio.sleep(FLUSH)

    async def pause(self, seconds: float) -> bool:
        return seconds > 0 and await self._either(seconds)

    async def refuse(self) -> None:
        # Longer than we will take: grpc itself must not cut a call off before we have ended it.
        grace = self._site.options.timeout_graceful_shutdown + 2 * CLEAN_UP
        self._stopping = asyncio.ensure_future(self._native.stop(grace))
        await asyncio.sleep(0)  # the server takes no new RPCs from here on
        _log.info(NO_NEW_CALLS)
        await self._end(self._site.ours)

    async def finished(self, seconds: float) -> bool:
        await self._either(seconds, [self._stopping])
        return self._stopping.done()

    async def end(self) -> None:
        self._opened.stopping()
        if self._site.running:
            _log.warning("ending %s, still running", counted(len(self._site.running), "call"))
        await self._end(self._site.running)

    async def _end(self, running: dict[Any, Any]) -> None:
        await asyncio.gather(*(end_on_loop(context, task, AT_ONCE) for context, task in list(running.items())))

    async def left(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while self._site.running and asyncio.get_running_loop().time() < until and not await self._either(GLANCE):
            pass
        if self._site.running:
            _log.warning("left %s behind, still running", counted(len(self._site.running), "handler"))

    async def stop(self) -> None:
        await self._native.stop(0)
        await asyncio.wait([self._stopping, self._ended], timeout=CLEAN_UP)

    async def clean_up(self) -> None:
        await self._life.aclose()


def _factory(site: Site) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; None for asyncio's own."""
    if site.app.ready:
        bound = getattr(site.app.given, "_loop", None)  # grpc's server is bound to the loop of the thread that made it
        return None if bound is None else lambda: bound
    if site.options.loop != "uvloop":
        return None
    try:
        import uvloop
    except ImportError:
        raise CannotServe("uvloop is not installed: pip install uvloop, or leave out --loop uvloop") from None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
