"""A live page of all RPCs: how many, how fast, how they failed, which run right now, and what guards them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from grpc import StatusCode

from interpose import context
from interpose._call import Call
from interpose._clock import SYSTEM, Clock
from interpose._flow import Flow
from interpose._method import SERVER, Side
from interpose._outcome import Outcome
from interpose.interceptors.method_records import Records, Rpc
from interpose.interceptors.rpcz_state import MAX_TEXT, ROWS, RpczState, query, state_of
from interpose.interceptors.watched import cards, watchable
from interpose.mechanisms.options import CLOCK, FLAG, check_options, insist, is_whole, must_be, option, whole
from interpose.mechanisms.text import one_line
from interpose.web.asgi import App, app
from interpose.web.server import Served
from interpose.web.site import BadQuery, Query, Site, host_faults

__all__ = ["Rpcz", "RpczState", "Served"]

MOST_METHODS = 10_000

_OK = StatusCode.OK

_log = logging.getLogger("interpose")


def _are_several(watch: object) -> bool:
    return isinstance(watch, Iterable) and not isinstance(watch, (str, bytes))


def _watch_faults(name: str, watch: Any) -> Iterable[str]:
    return watchable(watch)[1] if _are_several(watch) else [f"{name} must be a stack, or a list, not {watch!r}"]


@dataclass(eq=False, repr=False)
class Rpcz:
    """Show what all RPCs do, on a page that updates by itself: counts, rates, errors, latencies, and what is in flight.

    `rpcz = Rpcz()` in the stack, then `rpcz.serve(port=8081)`, or `app.mount("/rpcz", rpcz.asgi())`; the same as
    data: `rpcz.snapshot()`. One `Rpcz` may be in the stacks of any number of channels and servers of a process.
    Put it first, outside of all that refuses: a refused RPC is an RPC. Inside of `Retry` it shows each attempt.

    Each RPC counts once, when it has ended, however it ended. Messages are never looked at, nor is metadata. Latencies
    are kept in buckets: a quantile is at most 9.1 % off, between 61 microseconds and 68 minutes. Windows of one and of
    ten minutes are forgotten a fifth at a time.

    watch:   a stack, or breakers, limits and budgets, whose state is on the page too.
    title:   a text for the head of the page, like the name of the service.
    details: show the details of failures. They are what handlers wrote, so they may name customers; what looks like a
        secret is taken out.
    peers:   show the addresses of clients (server).
    methods: how many are kept, 1 to 10,000; what comes later counts as "other methods". Latencies, rates and samples
        are kept of 256: a method that was not called for ten minutes gives up its own for one that is. In all that is
        less than 8 MB.
    clock:   how long an RPC took; the one that was given to the channel or server.
    wall:    seconds since 1970, for what holds a date.

    `clock` and `wall` are read where an RPC runs, on its thread or in its event loop, and where the page is asked for. What
    they raise never fails an RPC; the first such failure is logged.
    Defaults: 10,000 methods, which is the most, since one that is not counted is missed.

    ValueError listing every fault of the options.
    """

    watch: Iterable[Any] = option((), _watch_faults)
    _: KW_ONLY
    title: str = option("", must_be("a text", lambda title: isinstance(title, str)))
    details: bool = option(False, FLAG)
    peers: bool = option(True, FLAG)
    methods: int = option(MOST_METHODS, whole(1, MOST_METHODS))
    clock: Clock = option(SYSTEM, CLOCK)
    wall: Callable[[], float] = option(time.time, must_be("a function like time.time", callable))

    def __post_init__(self) -> None:
        self.watch = tuple(self.watch) if _are_several(self.watch) else self.watch
        check_options(self)
        self._watched = [(name, item) for name, item in watchable(self.watch)[0] if not isinstance(item, Rpcz)]
        self._title = one_line(self.title, MAX_TEXT)
        self._now = self.clock.now
        self._records = Records(self.methods)
        self._servers, self._clients = (self._records.by_side[side] for side in (SERVER, Side.CLIENT))
        self._began = self._now()
        self._complained = False

    def __call__(self, call: Call) -> Flow:
        rpc = self._begin(call)
        try:
            outcome = yield call
        except BaseException:  # a flow that is closed has no outcome
            self._lost(rpc)
            raise
        self._end(rpc, outcome)

    # Whatever fails here: the RPC is not to blame, and goes on.

    def _begin(self, call: Call) -> Rpc | None:
        try:
            on_server, name = call._side is SERVER, call._method.full_name
            records = self._servers if on_server else self._clients
            record = records.get(name) or self._records.record(call._side, name, call._method.kind)
            # What a server knows of its client is asked for now: once the RPC has ended, it may be gone.
            peer = call.peer if on_server and self.peers else None
            rpc = Rpc(record, self._now(), call.deadline, peer, context.request_id())
            self._records.in_flight.add(rpc)
        except BaseException:
            self._complain()
            return None
        return rpc

    def _end(self, rpc: Rpc | None, outcome: Outcome) -> None:
        if rpc is None:
            return
        try:
            rpc.ended = now = self._now()
            rpc.elapsed = now - rpc.started
            rpc.code = outcome._code
            rpc.attempts, rpc.requests, rpc.responses = outcome._attempts, outcome._requests, outcome._responses
            if self.details and outcome._code is not _OK:
                rpc.details = outcome.details[:MAX_TEXT]
            rpc.request_id = rpc.request_id or context.request_id()
            self._records.end(rpc)
        except BaseException:
            self._lost(rpc)
            self._complain()

    def _lost(self, rpc: Rpc | None) -> None:
        if rpc is not None:
            self._records.in_flight.discard(rpc)

    def _complain(self) -> None:
        """Say the first failure."""
        if not self._complained:
            self._complained = True
            with contextlib.suppress(BaseException):
                _log.exception("Rpcz could not count an RPC; its later failures are not logged")

    # --- what is seen ---

    def serve(self, port: int = 0, *, host: str = "127.0.0.1", hosts: Collection[str] = ()) -> Served:
        """Serve the page on threads of its own, and say where: `rpcz.serve(8081).url`. `close()` ends it, as does `with`.

        port:  0: any that is free.
        host:  the address to listen at. There is no login: each browser that reaches it sees the page, so leave it on the
            loopback and use a tunnel, or put it behind something that asks.
        hosts: names by which browsers may ask for it, beside localhost and addresses.

        OSError if it cannot listen there. ValueError listing every fault of these. A process that forks serves it after the
        fork.
        """
        insist(
            "Rpcz.serve",
            (is_whole(port, 0, 65_535), f"port must be a whole number from 0 to 65535, not {port!r}"),
            (isinstance(host, str), f"host must be an address, like '127.0.0.1', not {host!r}"),
            *((False, fault) for fault in host_faults(hosts)),
        )
        return Served(self._site(hosts), host, port)

    def asgi(self, *, hosts: Collection[str] = ()) -> App:
        """The page as an ASGI app, to be mounted in one of yours; there is no login, so mount it behind what asks for one.

        hosts: names by which browsers may ask for it, beside localhost and addresses.

        ValueError for a host that is none.
        """
        insist("Rpcz.asgi", *((False, fault) for fault in host_faults(hosts)))
        return app(self._site(hosts))

    def snapshot(self, filter: str = "", *, limit: int = ROWS, method: str = "", side: str = "server") -> RpczState:
        """What there is to see at the moment, as the JSON twin has it.

        filter: only methods with this text in "server /package.Service/Name".
        limit: at most this number of them, the busiest; 100 by default, as on the page.
        method, side: show the samples of this one too.

        ValueError for a limit below 0 or above 10,000, and for a side that is none.
        """
        asked = query({"filter": filter, "limit": str(limit), "method": method, "side": side})
        self._records.settle()
        now = self._now()
        return state_of(
            self._records,
            asked,
            now,
            epoch=self.wall() - now,
            began=self._began,
            title=self._title,
            watched=cards(self._watched, now),
        )

    def _site(self, hosts: Collection[str]) -> Site:
        def read(fields: Query) -> RpczState:
            try:
                asked = query(fields)
            except ValueError as error:
                raise BadQuery(str(error)) from None
            return self.snapshot(**asked._asdict())

        return Site(read, hosts, self._now)
