"""All that is to be served, checked before anything is started; and what is registered on the server."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from interpose import aio, sync
from interpose._attach import intercept_server
from interpose._describe import describe
from interpose._flow import Interceptor, named
from interpose._order import warn_of_order
from interpose._served import Served
from interpose._shell.serving import check_served
from interpose.serving import standard
from interpose.serving.address import Port, Unix
from interpose.serving.app import App, load
from interpose.serving.certificates import Certificates
from interpose.serving.options import CHECKS, CannotServe, Options, can_be_asked
from interpose.serving.readiness import Readiness
from interpose.serving.tracking import Running, Tracked, TrackedOnLoop

if TYPE_CHECKING:
    from interpose.policy import Policy

_log = logging.getLogger("interpose")

PROBES = 2  # threads that answer health checks of a sync server, also while all others are busy


class Site:
    """Application, address, certificates and interceptors. shared: the port is one that several processes share.

    CannotServe if one of them is not as it must be.
    """

    def __init__(
        self,
        app: App,
        options: Options,
        stack: Sequence[Interceptor],
        policy: Policy | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self.app = app
        self.options = options
        self.policy = policy
        self.stack = (*stack, *(policy.server if policy else ()), *_limit(options))
        if app.ready and self.stack:
            raise CannotServe(
                "a server that has handlers already cannot be given interceptors: make it with intercept_server, "
                "or let the application be a function that registers servicers"
            )
        own = _of_a_made_server(options) if app.ready else ""
        if own:
            raise CannotServe(f"a server that is ready has options of its own: give {own} where it is made")
        self._standard = standard.wanted(options)
        self.address = Unix(options.uds) if options.uds else Port(options.host, options.port, shared=shared)
        self.certificates = None if options.tls_key is None else Certificates(*_files(options))
        self.running: Running = {}  # the RPCs of the application
        self.ours: Running = {}  # those of health, reflection and channelz
        self.health: Any = None
        self.checks = [load(check) if isinstance(check, str) else check for check in options.ready]
        if not all(map(can_be_asked, self.checks)):
            raise CannotServe(CHECKS)

    @property
    def channel_options(self) -> list[tuple[str, Any]]:
        """What grpc's server is made with."""
        age = self.options.max_connection_age
        ages = [("grpc.max_connection_age_ms", round(1000 * age))] if age is not None else []
        if age is not None:
            grace = round(1000 * self.options.timeout_graceful_shutdown)
            ages.append(("grpc.max_connection_age_grace_ms", grace))
        return [*self.address.options, *ages, *self.options.options]

    def open(self, native: Any) -> Opened:
        """The server as the application, and the services of ours, register with it."""
        return Opened(self, native)

    def readiness(self, call: Callable[[Callable[[], Any]], Any], tell: Callable[[bool], object]) -> Callable[[], None]:
        """Look whether the checks pass, now and from now on; gives what ends that."""
        if not self.checks or self.health is None:
            return lambda: None
        readiness, over = Readiness(self.checks, call, tell), threading.Event()
        readiness.look()
        threading.Thread(target=readiness.run, args=(over,), name="interpose-ready", daemon=True).start()
        return over.set

    def bind(self, native: Any) -> None:
        """Listen, but answer nothing yet."""
        self.address.bind(native, None if self.certificates is None else self.certificates.credentials())

    @property
    def where(self) -> str:
        """Address, TLS, and what runs the handlers."""
        tls = "no TLS" if self.certificates is None else "mutual TLS" if self.options.tls_client_ca else "TLS"
        threads = "threads of its own" if self.app.ready else f"{self.options.pool_size} threads"
        kind = "asyncio" if self.app.asyncio else threads
        return f"{self.address.shown} ({tls}), {kind}"

    @property
    def what(self) -> str:
        """The interceptors, and the services beside the application's."""
        stack = f"interceptors {named(self.stack)}" if self.stack else "no interceptors"
        return f"{stack}, {' and '.join(self._standard) or 'no health'}"

    def announce(self) -> None:
        """The one line that says what runs."""
        _log.info("serving on %s, 1 process, %s, pid %d", self.where, self.what, os.getpid())

    def warn(self) -> None:
        """Say what is known to be wrong in the stack, a line for each; the stack in words for those who debug."""
        _log.debug("%s", describe(*self.stack))
        warn_of_order(tuple(self.stack))


class Opened:
    """One server with its two sorts of handlers: the application's and ours, each noted where it runs."""

    def __init__(self, site: Site, server: Any) -> None:
        self._site = site
        self._server = server
        native = getattr(server, "_native", server)  # of one that intercept_server has made
        kind = TrackedOnLoop if site.app.asyncio else Tracked
        self._probes = None if site.app.asyncio else ThreadPoolExecutor(PROBES, "interpose-health")
        self._tracked = [kind(native, site.running), kind(native, site.ours), kind(native, site.ours, self._probes)]
        app, ours, probed = self._tracked
        # Made before anything is registered: a server with handlers takes no interceptors.
        self._wrapped = {
            server: intercept_server(server, *site.stack) if site.stack else server for server in self._tracked
        }
        self.app: Any = server if site.app.ready else self._wrapped[app]
        if site.app.ready:
            app.take_over()
        self._ours = self._chosen(ours)
        self._probed = self._chosen(probed)

    def _chosen(self, tracked: Any) -> Callable[[str], Any]:
        """A server for one of the standard services: with interceptors around it, or bare where that was asked for."""
        return lambda name: tracked if name in self._site.options.bare else self._wrapped[tracked]

    @property
    def services(self) -> list[str]:
        """The names of the application's services."""
        return list(self._tracked[0].services)

    @property
    def healthy(self) -> list[str]:
        """The names of which our health service is to say how they do: each service, and all together."""
        return [] if self._site.health is None else ["", *self.services]

    def add_standard(self) -> None:
        """Register health, reflection and channelz, but those that the application has registered itself."""
        names = [name for name in self._site._standard if standard.SERVICES[name] not in self.services]
        if "health" in names:
            self._site.health = standard.health(self._site.app.asyncio)
            standard.add_health(self._site.health, self._probed("health"))
        if "channelz" in names:
            standard.add_channelz(self._ours("channelz"))
        if "reflection" in names:
            services = [*self.services, *(standard.SERVICES[name] for name in names)]
            standard.add_reflection(services, self._ours("reflection"))
        self._check()

    def _check(self) -> None:
        """CannotServe if the interceptors have tables that do not fit the methods that are served through them."""
        served = [
            server._registered.served()
            for server in self._wrapped.values()
            if isinstance(server, sync.Server | aio.Server)
        ]
        methods = tuple(method for one in served for method in one.methods)
        if not served or self._site.app.ready:
            return
        try:
            check_served(self._site.stack, Served(methods, any(one.generic for one in served), self._site.app.asyncio))
        except ValueError as error:
            raise CannotServe(str(error)) from None

    def stopping(self) -> None:
        """From now on, an RPC that ends early was ended by the server."""
        for server in (self._server, *self._wrapped.values()):
            if isinstance(server, sync.Server | aio.Server):
                server._stop.begin(0.0)

    def flush(self, seconds: float) -> None:
        """Wait until those who watch our health have been sent what it is, for so long at most."""
        self._tracked[2].flush(seconds)

    def close(self) -> None:
        if self._probes is not None:
            self._probes.shutdown(wait=False)
            self._tracked[2].close()


def _limit(options: Options) -> tuple[Interceptor, ...]:
    """Innermost, so that logs and metrics see refusals. No call waits in a queue: as uvicorn does."""
    if options.limit_concurrency is None:
        return ()
    from interpose.interceptors.concurrency_limit import ConcurrencyLimit, Fixed  # a server starts sooner without it

    return (ConcurrencyLimit(Fixed(options.limit_concurrency), queue=0),)


def _of_a_made_server(options: Options) -> str:
    """Which options were given that only count where grpc's server is made."""
    given = [name for name in ("max_connection_age", "threads") if getattr(options, name) is not None]
    return ", ".join([*given, *(["options"] if options.options else [])])


def _files(options: Options) -> tuple[str, str, str | None]:
    assert options.tls_key is not None
    assert options.tls_cert is not None
    return options.tls_key, options.tls_cert, options.tls_client_ca
