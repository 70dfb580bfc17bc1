"""Workers of a server with many processes, whose counts are shared: `python -m tests.contrib.prometheus.workers 4`.

Metrics are made first, one RPC is counted, and then so many processes are forked; with 0 it serves itself. Each process
prints its id and its target, answers `ANSWERS` calls, lets the next one hang, and ends when its standard input does.
"""

from __future__ import annotations

import os
import sys

import grpc
from prometheus_client import CollectorRegistry

from interpose.contrib.prometheus import PrometheusMetrics
from interpose.testing import Echo, ok, play
from tests.interceptors.driving import failing, incoming

ANSWERS = 25


def serve(metrics: PrometheusMetrics) -> None:
    """Be a worker."""
    with Echo([*[ok()] * ANSWERS, ok(hang=True), ...]).serve(metrics) as target:
        os.write(1, f"{os.getpid()} {target}\n".encode())  # at once, so that the lines of two processes do not mix
        sys.stdin.read()


def main(count: int) -> None:
    metrics = PrometheusMetrics(registry=CollectorRegistry(), histogram=True)
    play(metrics, [failing(grpc.StatusCode.ABORTED)], **incoming())
    forked = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            serve(metrics)
            os._exit(0)
        forked.append(pid)
    for pid in forked:
        os.waitpid(pid, 0)
    if not count:
        serve(metrics)


if __name__ == "__main__":
    main(int(sys.argv[1]))
