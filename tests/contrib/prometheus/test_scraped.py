"""A real Prometheus scrapes a real server."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric

from interpose import Interceptor, Kind, Side
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.interceptors import CircuitBreaker, ConcurrencyLimit, Hedge, RateLimit, Retry
from interpose.testing import Place, failed, ok
from tests.contrib.prometheus.server import PrometheusServer, checked
from tests.support.patience import PATIENCE

Code = grpc.StatusCode
STACK: list[Interceptor] = [Retry(), Hedge(), CircuitBreaker(), ConcurrencyLimit(5), RateLimit("9/second")]
CONFIG = """
scrape_configs:
  - job_name: shop
    scrape_interval: 500ms
    scrape_timeout: 500ms
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""
TRACE = "0" * 31 + "7"

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.slow]


@contextmanager
def shown(registry: CollectorRegistry) -> Iterator[int]:
    """The port where a registry is shown, as services do it."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


@pytest.fixture
def registry() -> CollectorRegistry:
    """It has counted all sorts of RPCs, on both sides."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, histogram=True, exemplars=lambda: {"trace_id": TRACE})
    metrics.watch("shop", *STACK)
    for side in Side:
        for kind in Kind:
            with Place(asyncio=True, side=side, kind=kind).open(metrics, script=[ok(), failed(Code.NOT_FOUND)]) as rpc:
                rpc.call("a")
                rpc.call("a")
    return registry


class Scrapes:
    """A collector without series of its own."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)

    def collect(self) -> list[Metric]:
        self.came.release()
        return []


def test_what_it_has_scraped(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Each sample has the value that the registry shows, and exemplars lead to the trace."""
    scrapes = Scrapes()
    registry.register(scrapes)
    with shown(registry) as port, PrometheusServer(tmp_path, CONFIG % port) as prometheus:
        while not prometheus.query("up == 1"):  # a scrape was kept; on a busy machine one may take too long
            assert scrapes.came.acquire(timeout=PATIENCE)
        found = prometheus.query('{job="shop"}')
        now = time.time()
        exemplars = prometheus.exemplars("grpc_server_handled_total", now - 600, now + 600)

    values = {series_of(series["metric"]): float(series["value"][1]) for series in found}
    for sample in (sample for family in registry.collect() for sample in family.samples):
        assert values[series_of({"__name__": sample.name, **sample.labels})] == sample.value, sample
    assert {one["labels"]["trace_id"] for series in exemplars for one in series["exemplars"]} == {TRACE}


def series_of(labels: dict[str, str]) -> frozenset[Any]:
    """What tells a series apart, without what the scrape itself adds."""
    return frozenset(pair for pair in labels.items() if pair[0] not in {"job", "instance"})


def test_the_text_is_well_formed(registry: CollectorRegistry) -> None:
    """By promtool's judgement: names, units and help texts as Prometheus recommends."""
    with shown(registry) as port, urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        assert checked("check", "metrics", given=answer.read().decode()) == ""
