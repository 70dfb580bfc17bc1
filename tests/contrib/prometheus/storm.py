"""A small storm, minute by minute on a clock of its own: all is well, a server is down, all is well again.

What a registry shows at each tick is kept, with the time of the tick, as the text that Prometheus takes for its past.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest

from interpose import Call, Flow, intercept_channel, intercept_server
from interpose.contrib.opentelemetry import OtelMetrics
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.interceptors import CircuitBreaker, ConcurrencyLimit, Hedge, RateLimit, Retry
from interpose.mechanisms.budget import Unlimited
from interpose.mechanisms.window import calls
from interpose.testing import FakeClock, ok, play
from tests.interceptors.driving import failing, incoming
from tests.support.patience import PATIENCE

TICK = 15  # seconds, between two scrapes
TICKS = 24  # of each phase: six minutes, one more than the alert rules look back
START = 1_700_000_000  # seconds since 1970
HEALTHY, DOWN, RECOVERED = (START + TICK * (phase * TICKS - 1) for phase in (1, 2, 3))  # the last scrape of each phase

SERVICE = "storm.v1.Shop"
GETS = 6  # calls of a tick, in each phase
SEARCHES = 2
MISSING = 1  # of the gets, while the server is up
PINGS, ADMITTED = 3, 2  # of a tick, and how many of them the rate limit lets pass
INSISTED = 10  # gets of a tick that are retried whatever the budget says, while the server is down

Code = grpc.StatusCode


class Store:
    """The counts of a rate limit, in a store that is out of reach at times."""

    def __init__(self) -> None:
        self.away = False

    def limiter(self, *_: Any, **__: Any) -> Store:
        return self

    def take(self, keys: Any, patience: int, clock: Any) -> tuple[int, ...] | None:
        return None if self.away else (0,) * len(keys)

    def __len__(self) -> int:
        return 1


class Storm:
    """Servers, clients and their stacks. registry: what it counts in."""

    def __init__(self, stack: ExitStack) -> None:
        self.registry = CollectorRegistry()
        self.clock = FakeClock()
        self.down = False
        options: Any = {"registry": self.registry, "histogram": True, "labels": {"job": "shop"}}
        self.metrics = PrometheusMetrics(**options)
        reader = PrometheusMetricReader(disable_target_info=True)
        self._exported = reader._collector
        REGISTRY.unregister(self._exported)  # in which other tests count
        self._otel = OtelMetrics(MeterProvider([reader], shutdown_on_exit=False))
        self._slow = PrometheusMetrics(**options)
        self._slots = ConcurrencyLimit(1, queue=0, exempt=[f"/{SERVICE}/{name}" for name in ("Get", "Search", "Ping")])
        self._quiet = threading.Condition()
        self._under_way = 0  # RPCs at the server
        self._released = threading.Event()  # the rest of a stream
        self._released.set()
        self._store = Store()
        self._held = CircuitBreaker(clock=self.clock)
        self._held.force_open("nobody's")
        self._held.reset()
        target = stack.enter_context(self._serving())
        self._channel = stack.enter_context(grpc.insecure_channel(target))
        self._clients()

    @contextmanager
    def _serving(self) -> Iterator[str]:
        limit = RateLimit(
            f"{ADMITTED} per {TICK} seconds",
            key=lambda call: "everyone" if call.method.name == "Ping" else None,
        )
        shared = RateLimit("1/second", store=self._store)  # type: ignore[arg-type]  # a bare one
        self.metrics.watch("server", limit, shared, self._slots)
        with futures.ThreadPoolExecutor(4) as pool:
            stack = self._noted, self.metrics, self._otel, limit, shared, self._slots
            server = intercept_server(grpc.server(pool), *stack, clock=self.clock)
            unary = grpc.unary_unary_rpc_method_handler(self._answer)
            stream = grpc.unary_stream_rpc_method_handler(self._watch)
            handlers = {"Get": unary, "Search": unary, "Ask": unary, "Ping": unary, "Watch": stream}
            server.add_registered_method_handlers(SERVICE, handlers)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            yield f"127.0.0.1:{port}"
            server.stop(None).wait()

    def _noted(self, call: Call) -> Flow:
        with self._quiet:
            self._under_way += 1
        try:
            yield call
        finally:
            with self._quiet:
                self._under_way -= 1
                self._quiet.notify()

    def _pass_time(self) -> None:
        """Move the clock while nothing is under way: the copy of a search that lost may outlive the search."""
        with self._quiet:
            assert self._quiet.wait_for(lambda: self._under_way == 0, PATIENCE)
            self.clock.advance(TICK)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"missing":
            context.abort(Code.NOT_FOUND, "no such thing")
        if self.down and request == b"get":
            context.abort(Code.UNAVAILABLE, "down")
        return request

    def _watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"a"
        self._released.wait()
        yield b"b"

    def _clients(self) -> None:
        retry = Retry(3, safe=True, backoff=lambda _: 0.0)
        breaker = CircuitBreaker(minimum=5, window=calls(10), open_for=2 * TICK, clock=self.clock)
        hedge = Hedge(2, delay=0.0, safe=True)
        stubborn = Retry(3, safe=True, backoff=lambda _: 0.0, budget=Unlimited())
        self.metrics.watch("client", retry, breaker, hedge, self._held)
        self._get = self._stub("Get", self.metrics, self._otel, retry, breaker)
        self._insist = self._stub("Get", self.metrics, self._otel, stubborn)
        self._search = self._stub("Search", self.metrics, self._otel, hedge)
        self._ask = self._stub("Ask", self.metrics)
        self._ping = self._stub("Ping", self.metrics)
        self._stream = intercept_channel(self._channel, self.metrics, clock=self.clock).unary_stream(
            f"/{SERVICE}/Watch"
        )

    def _stub(self, name: str, *stack: Any) -> Callable[[bytes], Code]:
        multicallable = intercept_channel(self._channel, *stack, clock=self.clock).unary_unary(
            f"/{SERVICE}/{name}", _registered_method=True
        )

        def call(request: bytes) -> Code:
            try:
                multicallable(request)
            except grpc.RpcError as error:
                code: Code = error.code()
                return code
            return Code.OK

        return call

    def tick(self) -> None:
        """What happens in a quarter of a minute."""
        self._pass_time()
        for _ in range(GETS):
            self._get(b"get")
        for _ in range(SEARCHES):
            self._search(b"search")
        for _ in range(MISSING):
            self._get(b"missing")
        assert [self._ping(b"ping") for _ in range(PINGS)].count(Code.OK) == ADMITTED
        assert list(self._stream(b"watch")) == [b"a", b"b"]
        self._store.away = self.down
        if self.down:
            self._bad_day()

    def _bad_day(self) -> None:
        """What happens besides, while a server is down."""
        for _ in range(INSISTED):
            self._insist(b"get")
        self._released.clear()
        watching = self._stream(b"watch")
        next(watching)  # it has the only slot
        assert self._ask(b"ask") is Code.UNAVAILABLE
        self._released.set()
        assert list(watching) == [b"b"]
        for number in range(10):
            play(self.metrics, [failing(Code.UNIMPLEMENTED)], **incoming(name=f"/made.up/Name{number}"))
        play(self._slow, [ok(delay=2.0)], clock=self.clock, **incoming(name=f"/{SERVICE}/Get"))

    def phase(self, down: bool) -> Iterator[list[Metric]]:
        """The scrapes of a phase."""
        self.down = down
        self._held.force_open("nobody's") if down else self._held.reset("nobody's")
        for _ in range(TICKS):
            self.tick()
            yield [*self.registry.collect(), *self._of_otel()]

    def _of_otel(self) -> Iterator[Metric]:
        """What OpenTelemetry's exporter for Prometheus shows, with the label that a scrape adds."""
        for family in self._exported.collect():
            family.samples = [sample._replace(labels={**sample.labels, "job": "shop"}) for sample in family.samples]
            yield family


class Past:
    """A registry that shows the samples of many scrapes, each with its time."""

    def __init__(self, scrapes: Sequence[list[Metric]]) -> None:
        self._families: dict[str, Metric] = {}
        for number, scrape in enumerate(scrapes):
            for family in scrape:
                kept = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                kept.samples += [sample._replace(timestamp=START + TICK * number) for sample in family.samples]

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def blown() -> tuple[str, CollectorRegistry]:
    """The text of all scrapes of a storm, and what the registry shows at its end."""
    with ExitStack() as stack:
        storm = Storm(stack)
        scrapes = [scrape for down in (False, True, False) for scrape in storm.phase(down)]
    text = generate_latest(Past(scrapes)).decode()  # type: ignore[arg-type]  # it has what is needed of a registry
    return text, storm.registry
