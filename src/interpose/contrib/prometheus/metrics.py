"""Count RPCs for Prometheus, with the names and labels of go-grpc-middleware."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from grpc import StatusCode
from prometheus_client import REGISTRY

from interpose._call import Call
from interpose._flow import Flow, Interceptor, check
from interpose._method import SERVER, Kind, Method, Side
from interpose._patterns import Patterns, listed, patterns
from interpose.contrib.prometheus.collector import Counted, MethodState, Options
from interpose.contrib.prometheus.counts import MethodCounts
from interpose.contrib.prometheus.exemplars import current_span, from_function
from interpose.contrib.prometheus.naming import BUCKETS, LABEL, RESERVED, WORDS, Naming
from interpose.mechanisms.options import check_options, insist, is_flag, must_be, one_of, option

Exemplars: TypeAlias = "bool | Callable[[], Mapping[str, str] | None]"

MAX_BUCKETS = 100
MAX_STACK = 100  # characters of the name of a stack

_log = logging.getLogger("interpose")
_counted: WeakKeyDictionary[Any, Counted] = WeakKeyDictionary()  # by registry


# - what holds of its options -

BOUNDS = "True, False, or bounds in seconds that grow, like (0.01, 0.1, 1.0)"


def _is_registry(value: object) -> bool:
    return callable(getattr(value, "register", None)) and not isinstance(value, type)


def _read_once(histogram: Any) -> Any:
    several = isinstance(histogram, Iterable) and not isinstance(histogram, str)
    return tuple(histogram) if several else histogram


def _bounds(histogram: Any) -> tuple[Any, ...] | None:
    """The bounds of the buckets; None for no histogram; an empty tuple for what is none."""
    if histogram is False:
        return None
    if histogram is True:
        return BUCKETS
    given = histogram if isinstance(histogram, tuple) else ()
    return given[:-1] if given[-1:] == (float("inf"),) else given  # it is there anyway


def _grow(bounds: tuple[Any, ...]) -> bool:
    numbers = all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds)
    if not numbers or not 0 < len(bounds) <= MAX_BUCKETS:
        return False
    return bounds[0] > 0 and all(
        low < high < float("inf") for low, high in zip(bounds, (*bounds[1:], 1e300), strict=True)
    )


def _is_histogram(histogram: object) -> bool:
    bounds = _bounds(histogram)
    return bounds is None or _grow(bounds)


def _label_faults(option: str, labels: object) -> Iterator[str]:
    if not (labels is None or isinstance(labels, Mapping)):
        yield f"{option} must be a dict like {{'zone': 'eu-1'}}, not {labels!r}"
        return
    for name, value in (labels or {}).items():
        if not (isinstance(name, str) and LABEL.fullmatch(name)) or name.startswith("__"):
            yield f"{option} must have names like 'zone', not {name!r}"
        if name in RESERVED:
            yield f"{option} must not have {name!r}: there is such a label already; name it otherwise"
        if not isinstance(value, str):
            yield f"{option} must have texts as values, not {value!r} for {name!r}"


def _are_exemplars(value: object) -> bool:
    return is_flag(value) or callable(value)


@dataclass(eq=False, repr=False, kw_only=True)
class PrometheusMetrics:
    """Count RPCs for Prometheus: started, handled by code, messages, in flight, and how long they took.

    Names, labels, values and help texts are go-grpc-middleware's, so its dashboards fit: `grpc_server_handled_total`
    with `grpc_type`, `grpc_service`, `grpc_method` and `grpc_code`, and its like. Beside them, under `interpose_`: RPCs in
    flight, attempts, and RPCs that were refused before they were sent or handled; and what `watch` adds.

    One object may be on any number of channels and servers, and any number of objects may count into one registry.
    Each RPC counts once, when it has ended, however it ended; a message of a stream counts when it passes. Inside of
    `Retry` each attempt counts as an RPC.

    Methods whose names may be made up by a peer are counted as `unknown`, see `methods`; nothing else that a peer sends
    gets into a label. What fails in here is logged once, and no RPC fails by it.

    registry:  where it is registered; prometheus_client's default one unless given.
    naming:    "go", or "python" for the values of py-grpc-prometheus: `UNARY` and `NOT_FOUND` for `unary` and `NotFound`.
    histogram: how long RPCs took, as a histogram: True with the buckets of go-grpc-middleware, or bounds of your own, in
               seconds, growing. False: none.
    labels:    more labels, the same on each series: `{"zone": "eu-1"}`.
    exemplars: True: the trace and span id of a span that is sampled and current when the RPC starts, where the
               application uses OpenTelemetry. A function: it gives the labels, or None. False: none. Only scrapes in the
               OpenMetrics format show them.
    methods:   patterns of methods that have labels of their own, as in docs/when.md. Those that a proto in protobuf's
               pool, a generated stub or a servicer declares have them anyway, and the first four others.
    wall:      seconds since 1970, for exemplars.

    `exemplars` and `wall` run where the RPC runs: on its thread, or in its event loop. What they raise is logged once, and
    the RPC goes on.

    ValueError listing every fault of the options; also if the registry counts already with other options, or has series of
    these names that are somebody else's.
    """

    registry: Any = option(REGISTRY, must_be("a prometheus_client.CollectorRegistry()", _is_registry))
    naming: Naming = option("go", one_of(*WORDS))
    histogram: bool | Iterable[float] = option(False, must_be(BOUNDS, _is_histogram))
    labels: Mapping[str, str] | None = option(None, _label_faults)
    exemplars: Exemplars = option(True, must_be("True, False, or a function that gives labels", _are_exemplars))
    methods: str | Iterable[str] = option((), patterns)
    wall: Callable[[], float] = option(time.time, must_be("a function like time.time", callable))

    def __post_init__(self) -> None:
        self.histogram, self.methods = _read_once(self.histogram), listed(self.methods)
        check_options(self)
        options = Options(self.naming, _bounds(self.histogram), dict(self.labels or {}))
        self._counted = _counted_by(self.registry, options)
        self._server: dict[str, MethodCounts] = {}
        self._client: dict[str, MethodCounts] = {}
        self._methods = Patterns(self.methods)
        self._trace = from_function(self.exemplars) if callable(self.exemplars) else None
        self._complained = False

    def __call__(self, call: Call) -> Flow:
        # Whatever fails in here: the RPC is not to blame. It counts when it has begun, and from then on to its end.
        counts: MethodCounts | None
        began, trace = 0.0, None
        try:
            method = call._method
            counts = (self._server if call._side is SERVER else self._client).get(method.full_name)
            if counts is None or counts.kind is not method.kind:
                counts = self._counts_of(call)
            if self._trace is not None:
                trace = self._trace()
            began = call._method.clock.now()
            if counts.streams:
                call = counts.tapped(call)
            counts.begun()
        except BaseException:
            self._complain()
            counts = None
        if counts is None:
            yield call
            return
        code, attempts = StatusCode.CANCELLED, 1  # of a flow that is closed, and never gets the end
        try:
            outcome = yield call
            code, attempts = outcome._code, outcome._attempts
        finally:
            try:
                seconds = call._method.clock.now() - began
                counts.ended(code, seconds, attempts, (trace, seconds, self.wall()) if trace else None)
            except BaseException:
                self._complain()

    def snapshot(self) -> list[MethodState]:
        """What this process has counted for the registry, by side and method; for those who have no Prometheus."""
        return self._counted.snapshot()

    def preregister(self, *declared: Any, side: Side = Side.SERVER) -> None:
        """Show the series of these methods at zero, with all 17 codes, before any RPC: `metrics.preregister(orders_pb2)`.

        An alert that asks for an increase sees the first failure only if there was a zero before. Nine methods are some
        300 lines of a scrape with a histogram.

        declared: modules that protoc made (all services in them), descriptors of files or services, or `Method`s.
        TypeError for anything else.
        """
        for method in (method for one in declared for method in _methods_of(one)):
            self._counted.register(side, method)

    def watch(self, stack: str, *interceptors: Interceptor) -> None:
        """Show what these say of themselves with each scrape: `metrics.watch("payments", retry, breaker)`.

        Retries, hedges and their budgets, modes of circuit breakers, concurrency and rate limits; chains are opened, and
        any other interceptor is passed over, so a whole stack may be given. docs/prometheus.md lists the series.

        stack: a name of yours, for the label `stack`. Two of a kind under one name are added up.
        ValueError for a name that is none. TypeError for what is no interceptor.
        """
        insist(
            "PrometheusMetrics.watch",
            (isinstance(stack, str) and 0 < len(stack) <= MAX_STACK, f"stack must be a short text, not {stack!r:.200}"),
        )
        for interceptor in interceptors:
            check(interceptor)
        self._counted.watch(stack, interceptors)

    # - when a method is seen for the first time -

    def _counts_of(self, call: Call) -> MethodCounts:
        """The counts of a method, also the next time, unless it is one of those that are counted together."""
        if self.exemplars is True:
            self._trace = current_span()  # an application that has served nothing yet may still have to import it
        side, method = call._side, call._method
        counts = self._counted.counts_of(side, method, self._methods)
        if counts.kind is not None:
            (self._server if side is SERVER else self._client)[method.full_name] = counts
        return counts

    def _complain(self) -> None:
        if not self._complained:
            self._complained = True
            _log.exception("PrometheusMetrics could not count an RPC; its later failures are not logged")


def _counted_by(registry: Any, options: Options) -> Counted:
    """What a registry counts: the same for all who count into it."""
    known = _counted.get(registry)
    if known is None:
        try:
            known = _counted[registry] = Counted(registry, options)
        except ValueError as error:
            raise ValueError(
                f"PrometheusMetrics: the registry has series of these names that are not ours, of py-grpc-prometheus perhaps; "
                f"take those away, or give a registry of its own, registry=CollectorRegistry(): {error}"
            ) from error
    insist(
        "PrometheusMetrics",
        *(
            (
                ours == theirs,
                f"{name} must be {theirs!r}, as the registry has it already, or another registry; not {ours!r}",
            )
            for name, ours, theirs in zip(Options._fields, options, known.options, strict=True)
        ),
    )
    return known


# --- options --------------------------------------------------------------------------------------------------------


def _methods_of(declared: Any) -> Iterator[Method]:
    """The methods of a module that protoc made, of a descriptor, or a method itself."""
    if isinstance(declared, Method):
        yield declared
        return
    declared = getattr(declared, "DESCRIPTOR", declared)
    services = getattr(declared, "services_by_name", None)
    if services is None and not hasattr(declared, "methods"):
        raise TypeError(
            f"preregister: give a module that protoc made, like orders_pb2, a descriptor or a Method, not {declared!r}"
        )
    for service in [declared] if services is None else services.values():
        for method in service.methods:
            kind = Kind.of(method.client_streaming, method.server_streaming)
            yield Method(f"/{service.full_name}/{method.name}", kind)
