"""Which method a call is for: its name, its kind, and what its proto says about it."""

from __future__ import annotations

import enum
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from interpose._clock import SYSTEM, Clock


class Kind(enum.Enum):
    """The four kinds of RPC: is the request a stream, is the response one?"""

    UNARY_UNARY = "unary_unary"
    UNARY_STREAM = "unary_stream"
    STREAM_UNARY = "stream_unary"
    STREAM_STREAM = "stream_stream"

    request_streaming: bool
    response_streaming: bool

    def __init__(self, value: str) -> None:
        request, response = value.split("_")
        self.request_streaming = request == "stream"
        self.response_streaming = response == "stream"

    @classmethod
    def of(cls, request_streaming: bool, response_streaming: bool) -> Kind:
        """The kind with these two directions."""
        if request_streaming:
            return cls.STREAM_STREAM if response_streaming else cls.STREAM_UNARY
        return cls.UNARY_STREAM if response_streaming else cls.UNARY_UNARY


class Side(enum.Enum):
    """Where an interceptor runs: with the caller, or with the handler."""

    CLIENT = "client"
    SERVER = "server"


CLIENT, SERVER = Side.CLIENT, Side.SERVER


class Idempotency(enum.Enum):
    """`idempotency_level` of a method's proto: may it be executed twice? (google/protobuf/descriptor.proto)"""

    UNKNOWN = 0
    NO_SIDE_EFFECTS = 1
    IDEMPOTENT = 2


class Target:
    """What a client's channel goes to: `str()` gives text like "dns:///localhost:50051", or "" if the channel hides it.

    One for each channel: two channels are two targets, since they may have other credentials.
    """

    __slots__ = ("_core", "_number", "_text", "modules", "private")

    def __init__(self, text: str, core: Any = None, modules: frozenset[str] = frozenset()) -> None:
        self._text = text
        self._core = core  # that of grpc's core, which knows of connections
        self._number = next(_numbers)
        self.private = False  # is it known to be encrypted, or to stay on this machine? See `BearerToken`
        self.modules = modules  # the modules of what is between us and grpc: that of a native interceptor

    @classmethod
    def of(cls, channel: Any) -> Target:
        """That of a native channel, also through those that wrap it; without text if none of them has one."""
        layers = list(_inwards(channel))
        core = next((each for each in layers if hasattr(each, "check_connectivity_state")), None)
        modules = frozenset(type(part).__module__ for layer in layers for part in (layer, *_native_interceptors(layer)))
        return cls(next(filter(None, map(_told_by, layers)), ""), core, modules)

    @property
    def key(self) -> str:
        """Text that distinguishes targets: the address, or a name that this one channel has, like "channel 3"."""
        return self._text or f"channel {self._number}"

    def cannot_connect(self) -> bool:
        """Has the channel no connection at the moment, since none could be made? False where that is not known."""
        try:
            return bool(self._core.check_connectivity_state(False) == _TRANSIENT_FAILURE)
        except Exception:  # a channel that is closed, or one of somebody else's
            return False

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Target({self._text!r})"


_numbers = itertools.count(1)
_TRANSIENT_FAILURE = grpc.ChannelConnectivity.TRANSIENT_FAILURE.value[0]

# Where a channel keeps the one that it wraps: grpc's own interceptors and OpenTelemetry's, ours, and what wrapt makes.
_INSIDE = ("_channel", "_native", "__wrapped__")
MAX_WRAPPERS = 32  # one inside the other; more are a circle


def _inwards(channel: Any) -> Iterator[Any]:
    """A channel, and those that it wraps, down to that of grpc's core."""
    for _ in range(MAX_WRAPPERS):
        if channel is None:
            return
        yield channel
        channel = next((inner for name in _INSIDE if (inner := getattr(channel, name, None)) is not None), None)


def _native_interceptors(channel: Any) -> Iterator[Any]:
    """The native interceptors that a channel itself says it has."""
    yield getattr(channel, "_interceptor", None)  # of grpc.intercept_channel, and of OpenTelemetry's twin of it
    for kind in Kind:
        yield from getattr(channel, f"_{kind.value}_interceptors", ())  # of grpc.aio


def _told_by(channel: Any) -> str:
    """The target that a channel itself says it has; empty if it says none."""
    told = getattr(channel, "target", None)
    try:
        told = told() if callable(told) else told
    except Exception:  # a channel that is closed, or one of somebody else's
        return ""
    if isinstance(told, bytes):
        return told.decode("utf-8", "replace")
    return told if isinstance(told, str) else ""


UNKNOWN = "unknown"  # service and name of a path that is not "/service/name"; go-grpc-middleware's word for it


class Method:
    """One RPC method; `str()` gives "/package.Service/Name".

    Made once per stub method or handler, so its parts cost nothing per call. Two are equal if their names and kinds are.

    target: what the channel goes to (client; None on a server). serializer: of requests, as the stub gave it (client).
    declared: does its name come from a servicer or a generated stub, so that no peer has made it up?
    clock: that of the channel or server; see `call.clock`.
    """

    __slots__ = (
        "_descriptor",
        "clock",
        "declared",
        "full_name",
        "kind",
        "name",
        "package",
        "serializer",
        "service",
        "target",
    )

    def __init__(
        self,
        full_name: str,
        kind: Kind,
        target: Target | None = None,
        serializer: Callable[[Any], bytes] | None = None,
        *,
        declared: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self.clock = clock
        self.declared = declared
        self.full_name = full_name
        self.kind = kind
        self.target = target
        self.serializer = serializer
        service, slash, name = full_name.removeprefix("/").partition("/")
        self.service = service if slash and service and name else UNKNOWN
        self.name = name if slash and service and name else UNKNOWN
        self.package = self.service.rpartition(".")[0]
        self._descriptor: Any = None

    @property
    def descriptor(self) -> Any | None:
        """Google protobuf's method descriptor, or None where the application has not loaded one.

        Found in the default pool if the application imported protobuf; we never import it,
        and never touch a message: messages of any runtime pass through.
        """
        if self._descriptor is None:
            pool = sys.modules.get("google.protobuf.descriptor_pool")
            if pool is not None:
                try:
                    self._descriptor = pool.Default().FindMethodByName(f"{self.service}.{self.name}")
                except KeyError:
                    return None
        return self._descriptor

    @property
    def options(self) -> Any | None:
        """The `MethodOptions` of the proto, or None without a descriptor."""
        return self.descriptor and self.descriptor.GetOptions()

    @property
    def idempotency_level(self) -> Idempotency:
        """What the proto promises about sending twice; UNKNOWN without a descriptor."""
        return Idempotency(self.options.idempotency_level) if self.options is not None else Idempotency.UNKNOWN

    @property
    def request_type(self) -> Any | None:
        """The descriptor of the request message, or None without a descriptor."""
        return self.descriptor and self.descriptor.input_type

    @property
    def response_type(self) -> Any | None:
        """The descriptor of the response message, or None without a descriptor."""
        return self.descriptor and self.descriptor.output_type

    def __str__(self) -> str:
        return self.full_name

    def __repr__(self) -> str:
        return f"Method({self.full_name!r}, {self.kind.name})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Method):
            return NotImplemented
        return self.full_name == other.full_name and self.kind is other.kind

    def __hash__(self) -> int:
        return hash((self.full_name, self.kind))
