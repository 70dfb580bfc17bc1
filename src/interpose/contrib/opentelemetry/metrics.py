"""`OtelMetrics`: how long RPCs take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from grpc import StatusCode
from opentelemetry import metrics
from opentelemetry.metrics import Meter, MeterProvider

from interpose._call import Call
from interpose._flow import Fitted, Flow
from interpose._method import Kind, Method, Side
from interpose.contrib.opentelemetry.conventions import (
    BOUNDARIES,
    ONE_SEMCONV,
    ONE_STATUS,
    SCOPE,
    STATUS,
    Attributes,
    Conventions,
    Semconv,
    Value,
)
from interpose.contrib.opentelemetry.faults import Faults
from interpose.mechanisms.lru import Registry
from interpose.mechanisms.options import check_options, must_be, option

MAX_SETS = 1000  # of attributes; beyond 2000 the SDK makes one point of all others, and with it loses the methods
MAX_METHODS = 1024  # fitted for flows that call this one themselves

Cell: TypeAlias = tuple[Callable[[float, Attributes], None], float, Attributes]  # record, units of a second, attributes


PROVIDER = "a MeterProvider, like that of opentelemetry.sdk.metrics, or None"


def _is_provider(value: object) -> bool:
    return value is None or callable(getattr(value, "get_meter", None))


@dataclass(eq=False, repr=False)
class OtelMetrics:
    """Measure how long each RPC takes, from its begin to its end, whatever that is, by method and code.

    The histograms `rpc.server.call.duration` and `rpc.client.call.duration`, in seconds, with the boundaries of
    OpenTelemetry's semantic conventions: from 5 ms to 10 s. Attributes are `rpc.system.name`, `rpc.method`, the code,
    `error.type` if it is an error on this side, and on a client `server.address` and `server.port`. The SDK takes a
    sampled span that is current as an exemplar, wherever `Tracing` is in the stack.

    However many interceptors share a provider, there is one set of instruments, and there are at most 1000 sets of
    attributes; what comes after them counts for the method `_OTHER`. A meter that fails does not touch an RPC: the log
    says so once.

    provider: of OpenTelemetry's SDK, or any other; unless given, the global one, also if it is set later.
    semconv:  "new", "old" or "both" generations of names, as for `Tracing`; old ones are `rpc.server.duration` and
        `rpc.client.duration`, in milliseconds.
    status:   the new attribute of the code: "rpc.status_code", or "rpc.response.status_code" as it was until 1.44.

    ValueError listing every fault of these.
    """

    provider: MeterProvider | None = option(None, must_be(PROVIDER, _is_provider))
    _: KW_ONLY
    semconv: Semconv | None = option(None, ONE_SEMCONV)
    status: str = option(STATUS, ONE_STATUS)

    def __post_init__(self) -> None:
        check_options(self)
        self.kept = _kept_of(self.provider)
        self.generations = generations(Conventions.of(self.semconv, self.status))
        self.faults = Faults("OtelMetrics")
        self._known: Registry[Method, Fitted] = Registry(MAX_METHODS, self.fitted)

    def __call__(self, call: Call) -> Flow:
        """For flows that call it; channels and servers use what is `fitted`."""
        layer = self._known[call.method].layer
        assert layer is not None
        return (yield from layer(call))

    def fitted(self, method: Method) -> Fitted:
        """What it does to a method."""
        return Fitted(_Measured(self, method).flow)


class _Measured:
    """One method: what is recorded at the end, by code; made when a code comes for the first time."""

    __slots__ = ("_arrived", "_left", "_method", "_metrics")

    def __init__(self, metrics: OtelMetrics, method: Method) -> None:
        self._metrics = metrics
        self._method = method
        self._arrived: dict[StatusCode, list[Cell]] = {}
        self._left: dict[StatusCode, list[Cell]] = {}

    def flow(self, call: Call) -> Flow:
        started = call._method.clock.now()
        outcome = yield call
        try:
            elapsed = call._method.clock.now() - started
            side, code = call._side, outcome._code
            cells = self._arrived if side is Side.SERVER else self._left
            for record, units, attributes in cells.get(code) or self._made(cells, side, code):
                record(elapsed * units, attributes)
        except BaseException:
            self._metrics.faults()

    def _made(self, cells: dict[StatusCode, list[Cell]], side: Side, code: StatusCode) -> list[Cell]:
        kept, generations = self._metrics.kept, self._metrics.generations
        made = cells[code] = [kept.cell(one, self._method, side, code) for one in generations]
        return made


class Generation(NamedTuple):
    """The names of one generation. units: of a second."""

    conventions: Conventions
    name: str
    unit: str
    units: float
    boundaries: tuple[float, ...] | None


def generations(conventions: Conventions) -> list[Generation]:
    """Those that were asked for, each with attributes of its own."""
    new = Generation(conventions._replace(old=False), "rpc.{}.call.duration", "s", 1.0, BOUNDARIES)
    old = Generation(conventions._replace(new=False), "rpc.{}.duration", "ms", 1e3, None)
    return [new] * conventions.new + [old] * conventions.old


_OTHER = Method("", Kind.UNARY_UNARY)
_DIRECTION = {Side.SERVER: "incoming", Side.CLIENT: "outgoing"}


class _Kept:
    """What all interceptors of one provider share: the instruments, and the sets of attributes that there are."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._instruments: Registry[tuple[Generation, Side], Any] = Registry(MAX_SETS, self._made)
        self._sets: set[tuple[Side, frozenset[tuple[str, Value]]]] = set()

    def cell(self, generation: Generation, method: Method, side: Side, code: StatusCode) -> Cell:
        """What is recorded for a method that ends with this code."""
        attributes = generation.conventions.of_method(method) | generation.conventions.of_code(code, side)
        key = (side, frozenset(attributes.items()))
        if key not in self._sets and len(self._sets) >= MAX_SETS:
            attributes = generation.conventions.of_method(_OTHER) | generation.conventions.of_code(code, side)
        else:
            self._sets.add(key)
        return self._instruments[generation, side].record, generation.units, attributes

    def _made(self, key: tuple[Generation, Side]) -> Any:
        generation, side = key
        return self._meter.create_histogram(
            generation.name.format(side.value),
            unit=generation.unit,
            description=f"Measures the duration of an {_DIRECTION[side]} Remote Procedure Call (RPC).",
            explicit_bucket_boundaries_advisory=generation.boundaries,
        )


class _Global:
    """Stands for the global provider, which may be set later."""


_GLOBAL = _Global()
_KEPT: WeakKeyDictionary[Any, _Kept] = WeakKeyDictionary()


def _kept_of(provider: MeterProvider | None) -> _Kept:
    """What is kept for a provider. One that cannot be remembered has it for one interceptor."""
    owner: Any = _GLOBAL if provider is None else provider
    try:
        kept = _KEPT.get(owner)
        if kept is None:
            kept = _KEPT.setdefault(owner, _Kept(metrics.get_meter(SCOPE, meter_provider=provider)))
    except TypeError:
        return _Kept(metrics.get_meter(SCOPE, meter_provider=provider))
    return kept
