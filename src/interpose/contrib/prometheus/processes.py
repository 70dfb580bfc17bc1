"""prometheus_client's multi-process mode: each process writes its counts to files, and a scrape adds up those of all.

It is on where PROMETHEUS_MULTIPROC_DIR is set before prometheus_client is imported. Then our counts are written through to
prometheus_client's own counters, whose files outlive a process that is killed. That takes some ten times as long.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from grpc import StatusCode
from prometheus_client import Counter, Gauge, Histogram, values

from interpose._method import Kind, Side
from interpose.contrib.prometheus.counts import OK, MethodCounts, Seen, forked, in_turn
from interpose.contrib.prometheus.naming import SERIES, Series, Words

_log = logging.getLogger("interpose")

# A gauge is the sum of the processes that live: what was in flight in one that is killed has ended, once
# prometheus_client.multiprocess.mark_process_dead(pid) says so.
LIVE = "livesum"


def are_many() -> bool:
    """Is the multi-process mode on?"""
    return values.ValueClass is not values.MutexValue


class Files:
    """prometheus_client's own metrics of one side, which it keeps in files."""

    def __init__(self, side: Side, extra: tuple[str, ...], histogram: tuple[float, ...] | None, registry: Any) -> None:
        series = SERIES[side]

        def made(kind: Any, one: Series, **options: Any) -> Any:
            return kind(one.name, one.help, (*one.labels, *extra), registry=registry, **options)

        self.started = made(Counter, series.started)
        self.handled = made(Counter, series.handled)
        self.received = made(Counter, series.received)
        self.sent = made(Counter, series.sent)
        self.refused = made(Counter, series.refused)
        self.attempts = None if series.attempts is None else made(Counter, series.attempts)
        self.in_flight = made(Gauge, series.in_flight, multiprocess_mode=LIVE)
        self.handling = None if histogram is None else made(Histogram, series.handling, buckets=histogram)
        # Requests are what a server receives, and what a client sends.
        self.requests, self.responses = (
            (self.received, self.sent) if side is Side.SERVER else (self.sent, self.received)
        )


class WrittenCounts(MethodCounts):
    """Counts that are written to files as well, one after the other: prometheus_client takes a lock that is not ours."""

    __slots__ = (
        "_attempts",
        "_codes",
        "_handled",
        "_handling",
        "_in_flight",
        "_refused",
        "_requests",
        "_responses",
        "_started",
    )

    def __init__(
        self,
        labels: tuple[str, ...],
        kind: Kind | None,
        bounds: tuple[float, ...],
        files: Files,
        words: Words,
        extra: tuple[str, ...],
    ) -> None:
        def bound(family: Any) -> Any:
            return None if family is None else family.labels(*labels, *extra)

        self._started = bound(files.started)
        self._requests = bound(files.requests)
        self._responses = bound(files.responses)
        self._refused = bound(files.refused)
        self._attempts = bound(files.attempts)
        self._in_flight = bound(files.in_flight)
        self._handling = bound(files.handling)
        self._handled: Callable[[StatusCode], Any] = lambda code: files.handled.labels(
            *labels, words.codes[code], *extra
        )
        self._codes: dict[StatusCode, Any] = {}
        super().__init__(labels, kind, bounds)

    def ends_of(self, code: StatusCode) -> Any:
        ends = super().ends_of(code)
        if code not in self._codes:
            self._codes[code] = self._handled(code)
        return ends

    def begun(self) -> None:
        _written(self._write_begun)

    def request_passed(self, _: Any) -> None:
        _written(self._write_request)

    def response_passed(self, _: Any) -> None:
        _written(self._write_response)

    def ended(self, code: StatusCode, seconds: float, attempts: int, seen: Seen | None) -> None:
        _written(partial(self._write_ended, code, seconds, attempts))

    def _write_begun(self) -> None:
        super().begun()
        self._started.inc()
        self._in_flight.inc()
        if self.kind is not None and not self.kind.request_streaming:
            self._requests.inc()

    def _write_request(self) -> None:
        super().request_passed(None)
        self._requests.inc()

    def _write_response(self) -> None:
        super().response_passed(None)
        self._responses.inc()

    def _write_ended(self, code: StatusCode, seconds: float, attempts: int) -> None:
        super().ended(code, seconds, attempts, None)  # exemplars are not for many processes
        self._codes[code].inc()
        self._in_flight.dec()
        if self.kind is not None and not self.kind.response_streaming:
            self._responses.inc()
        if self._handling is not None:
            self._handling.observe(seconds)
        if attempts and self._attempts is not None:
            self._attempts.inc(attempts)
        if not attempts and code is not OK:
            self._refused.inc()


def _written(work: Callable[[], object]) -> None:
    """Do it in turn. What the files refuse is said once, and harms nothing else."""
    in_turn(partial(_carefully, work))


_unsaid = [True]


def _carefully(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        if _unsaid:
            _unsaid.clear()
            _log.exception("PrometheusMetrics could not write to its files; later failures are not logged")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)
