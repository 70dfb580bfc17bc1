"""What one registry counts: the methods that are known, their counts, and how a scrape shows them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from grpc import StatusCode
from prometheus_client import utils
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric, Sample

from interpose._method import UNKNOWN, Kind, Method, Side
from interpose._patterns import Patterns
from interpose.contrib.prometheus.counts import OK, CountsInTurns, MethodCounts
from interpose.contrib.prometheus.exemplars import exemplar_of
from interpose.contrib.prometheus.naming import BUCKETS, SERIES, WORDS, Naming, Series
from interpose.contrib.prometheus.processes import Files, WrittenCounts, are_many
from interpose.contrib.prometheus.watching import Watched

MAX_METHODS = 1024  # of a side that have series of their own; far beyond those of any service
# Of those that nothing declares. A service written by hand has a few; what a handler for every name is asked for is
# without end, and a scrape must stay short.
MAX_UNDECLARED = 4

# Without a GIL it takes several steps to add to a number.
ONE_STEP: bool = getattr(sys, "_is_gil_enabled", lambda: True)()

_log = logging.getLogger("interpose")


class Options(NamedTuple):
    """What all interceptors of a registry have to agree upon."""

    naming: Naming
    histogram: tuple[float, ...] | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodState:
    """What has been counted of a method in this process; of `PrometheusMetrics.snapshot`.

    side: where. service, name: "unknown" for those that are counted together. requests: RPCs that have started;
    in_flight: of them have not ended. codes: how many ended with each code. messages_received, messages_sent: of this side.
    seconds: that all which have ended took together. buckets: how many took at most as long as each bound, in seconds.
    """

    side: Side
    service: str
    name: str
    requests: int
    in_flight: int
    codes: dict[StatusCode, int]
    messages_received: int
    messages_sent: int
    seconds: float
    buckets: dict[float, int]

    @property
    def errors(self) -> int:
        """How many ended with another code than OK."""
        return sum(count for code, count in self.codes.items() if code is not OK)

    @property
    def mean(self) -> float | None:
        """Seconds that an RPC took on average; None before one has ended."""
        ended = sum(self.codes.values())
        return self.seconds / ended if ended else None

    def latency(self, quantile: float) -> float | None:
        """Seconds that this share of the RPCs stayed below, by the buckets, as Prometheus' histogram_quantile has it.

        None before one has ended. Beyond the last bound it is that bound. ValueError unless from 0 to 1.
        """
        if not 0 <= quantile <= 1:
            raise ValueError(f"latency: quantile must be from 0 to 1, not {quantile!r}")
        bounds, up_to = list(self.buckets), list(self.buckets.values())
        if not up_to or not up_to[-1]:
            return None
        rank = quantile * up_to[-1]
        place = next(place for place, count in enumerate(up_to) if count >= rank)
        if bounds[place] == float("inf"):
            return bounds[place - 1]
        low, before = (bounds[place - 1], up_to[place - 1]) if place else (0.0, 0)
        inside = up_to[place] - before
        return low + (bounds[place] - low) * ((rank - before) / inside if inside else 1.0)


class Counted:
    """All that one registry counts; registered there as a collector."""

    def __init__(self, registry: Any, options: Options) -> None:
        self.options = options
        self.watched = Watched(options.labels)
        self._bounds = BUCKETS if options.histogram is None else options.histogram
        self._words = WORDS[options.naming]
        self._known: dict[Side, dict[str, MethodCounts]] = {side: {} for side in Side}
        self._together: dict[Side, MethodCounts] = {}
        self._undeclared: dict[Side, list[str]] = {side: [] for side in Side}
        self._extra = tuple(options.labels), tuple(options.labels.values())
        self._files: dict[Side, Files] | None = None
        if are_many():
            self._files = {side: Files(side, self._extra[0], options.histogram, registry) for side in Side}
        registry.register(self)

    # - methods -

    def counts_of(self, side: Side, method: Method, declared: Patterns) -> MethodCounts:
        """The counts of a method, or of all that have none of their own."""
        known = self._known[side]
        counts = known.get(method.full_name)
        if counts is None and self._may_have_its_own(side, method, declared):
            labels = (self._words.types[method.kind], method.service, method.name)
            counts = known.setdefault(method.full_name, self._made(side, labels, method.kind))
        if counts is None or counts.kind is not method.kind:
            return self.together(side)
        return counts

    def together(self, side: Side) -> MethodCounts:
        """The counts of all methods that have none of their own."""
        counts = self._together.get(side)
        return counts or self._together.setdefault(side, self._made(side, (UNKNOWN,) * 3, None))

    def register(self, side: Side, method: Method) -> None:
        """Show a method, and all codes that it may end with, from now on."""
        counts = self.counts_of(side, method, Patterns("*"))
        for code in StatusCode:
            counts.ends_of(code)

    def _may_have_its_own(self, side: Side, method: Method, declared: Patterns) -> bool:
        if method.service == UNKNOWN or len(self._known[side]) >= MAX_METHODS:
            return False
        if method.declared or declared(method.full_name) or method.descriptor is not None:
            return True
        undeclared = self._undeclared[side]
        if len(undeclared) < MAX_UNDECLARED:
            undeclared.append(method.full_name)
            return True
        if len(undeclared) == MAX_UNDECLARED:
            undeclared.append("")  # it is said once
            _log.warning(
                "PrometheusMetrics counts methods as unknown from here on that neither a proto in protobuf's pool nor a "
                "generated stub or servicer declares, since their names may be made up; declare them: "
                "PrometheusMetrics(methods=['/package.Service/*'])"
            )
        return False

    def _made(self, side: Side, labels: tuple[str, ...], kind: Kind | None) -> MethodCounts:
        if self._files is not None:
            return WrittenCounts(labels, kind, self._bounds, self._files[side], self._words, self._extra[1])
        return (MethodCounts if ONE_STEP else CountsInTurns)(labels, kind, self._bounds)

    def watch(self, stack: str, interceptors: Iterable[Any]) -> None:
        """Show what these say of themselves, from now on."""
        if self._files is not None:
            _log.warning(
                "PrometheusMetrics.watch(%r): with PROMETHEUS_MULTIPROC_DIR only counts of RPCs are shared; what the "
                "interceptors say of themselves is seen by a scrape of this process alone",
                stack,
            )
        self.watched.add(stack, interceptors)

    # - what users see -

    def snapshot(self) -> list[MethodState]:
        """What has been counted, by side and method."""
        return [_state(side, counts, self._bounds) for side in Side for counts in self._of(side)]

    def _of(self, side: Side) -> list[MethodCounts]:
        together = self._together.get(side)
        return [*list(self._known[side].values()), *([] if together is None else [together])]

    # - what Prometheus sees -

    def describe(self) -> Iterator[Metric]:
        """The families, empty: by them a registry refuses two that have the same name."""
        if self._files is None:
            for side in Side:
                yield from self._families(side, [])
        yield from self.watched.names()

    def collect(self) -> Iterator[Metric]:
        """The families with what has been counted."""
        if self._files is None:
            for side in Side:
                if counts := self._of(side):
                    yield from self._families(side, counts)
        yield from self.watched.families()

    def _families(self, side: Side, all_counts: list[MethodCounts]) -> Iterator[Metric]:
        series, messages = SERIES[side], {counts.labels: counts.messages() for counts in all_counts}
        requests, responses = (series.received, series.sent) if side is Side.SERVER else (series.sent, series.received)

        def each(one: Series, value: Callable[[MethodCounts], float]) -> Metric:
            return self._family(one, ((counts.labels, value(counts)) for counts in all_counts))

        # Ends before starts: never more of them. What ends between the two looks at a method is still in flight.
        handled = self._handled(series.handled, all_counts)
        ended_and_started = {one.labels: (one.handled, one.started) for one in all_counts}
        yield each(series.started, lambda counts: ended_and_started[counts.labels][1])
        yield handled
        yield each(requests, lambda counts: messages[counts.labels][0])
        yield each(responses, lambda counts: messages[counts.labels][1])
        yield each(series.in_flight, lambda counts: _in_flight(*ended_and_started[counts.labels]))
        yield each(series.refused, lambda counts: counts.refused)
        if series.attempts is not None:
            yield each(series.attempts, lambda counts: counts.attempts)
        if self.options.histogram is not None:
            yield self._handling(series.handling, all_counts)

    def _family(self, series: Series, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        names, values = self._extra
        make = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
        family = make(series.name, series.help, labels=(*series.labels, *names))
        for labels, value in samples:
            family.add_metric((*labels, *values), value)
        return family

    def _handled(self, series: Series, all_counts: list[MethodCounts]) -> Metric:
        names, values = self._extra
        family = CounterMetricFamily(series.name, series.help, labels=(*series.labels, *names))
        for counts in all_counts:
            for code, ends in list(counts.by_code.items()):
                labels = dict(
                    zip((*series.labels, *names), (*counts.labels, self._words.codes[code], *values), strict=True)
                )
                # Not by `add_metric`, which takes no exemplar in prometheus_client 0.21.
                family.samples.append(Sample(series.name, labels, ends.total, None, exemplar_of(ends.exemplar, 1.0)))
        return family

    def _handling(self, series: Series, all_counts: list[MethodCounts]) -> Metric:
        names, values = self._extra
        family = HistogramMetricFamily(series.name, series.help, labels=(*series.labels, *names))
        for counts in all_counts:
            family.add_metric((*counts.labels, *values), self._buckets(counts), counts.seconds)
        return family

    def _buckets(self, counts: MethodCounts) -> list[Any]:
        """Bound, how many, and an exemplar, of each bucket."""
        every = list(counts.by_code.values())
        last = [
            max((seen for ends in every if (seen := ends.exemplars.get(place))), key=lambda seen: seen[2], default=None)
            for place in range(len(self._bounds) + 1)
        ]
        return [
            [_as_go(bound), up_to, exemplar_of(seen)]
            for bound, up_to, seen in zip((*self._bounds, float("inf")), counts.buckets(), last, strict=True)
        ]


def _in_flight(ended: int, started: int) -> int:
    return max(started - ended, 0)


_as_go: Callable[[float], str] = utils.floatToGoString  # dashboards select buckets by this text


def _state(side: Side, counts: MethodCounts, bounds: tuple[float, ...]) -> MethodState:
    codes = {code: ends.total for code, ends in list(counts.by_code.items()) if ends.total}
    requests, responses = counts.messages()
    received, sent = (requests, responses) if side is Side.SERVER else (responses, requests)
    _, service, name = counts.labels
    return MethodState(
        side=side,
        service=service,
        name=name,
        requests=counts.started,
        in_flight=counts.started - sum(codes.values()),
        codes=codes,
        messages_received=received,
        messages_sent=sent,
        seconds=counts.seconds,
        buckets=dict(zip((*bounds, float("inf")), counts.buckets(), strict=True)),
    )
