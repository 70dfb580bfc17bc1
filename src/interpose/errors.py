"""Statuses as exceptions: one class per gRPC status code.

    grpc.RpcError
    └── StatusError            code(), details(), trailing_metadata(), error_details, local
        ├── Cancelled  Unknown  InvalidArgument  DeadlineExceeded  NotFound  AlreadyExists
        ├── PermissionDenied  ResourceExhausted  FailedPrecondition  Aborted  OutOfRange
        └── Unimplemented  Internal  Unavailable  DataLoss  Unauthenticated

Raise one in a handler or an interceptor and the RPC ends with that status; catch one around an intercepted stub.
What a stub raises is native as well: `grpc.RpcError` on both stacks, `grpc.Call` and `grpc.Future` on sync,
`grpc.aio.AioRpcError` on asyncio.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import grpc

from interpose._metadata import Metadata

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "StatusError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "of",
    "parse_details",
]

RICH_KEY = "grpc-status-details-bin"  # a serialized google.rpc.Status


class StatusError(grpc.RpcError):
    """An RPC that ended with a status other than OK.

    details: text for the peer.
    rich: messages of google.rpc (`BadRequest`, `RetryInfo` …) that travel with the status; needs the extra `status`.
    trailing_metadata: pairs sent behind the response; ValueError for what the wire would refuse.
    local: the status was made on this side and no peer ever sent it (a limit, an open breaker, a deadline already passed).
    """

    status_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    _coded: ClassVar[bool] = False  # has the class a code of its own, or of a class between it and this one?

    # What an application's own class has that forgets to call this constructor: its RPC must end all the same.
    _details = ""
    _initial_metadata = _trailing_metadata = Metadata()
    local = False
    _debug_error_string = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "status_code" in vars(cls):
            if cls.status_code is grpc.StatusCode.OK or not isinstance(cls.status_code, grpc.StatusCode):
                raise TypeError(
                    f"{cls.__name__}.status_code must be a grpc.StatusCode other than OK, not {cls.status_code!r}"
                )
            cls._coded = True

    def __init__(
        self,
        details: str = "",
        *rich: Any,
        trailing_metadata: Any = (),
        initial_metadata: Any = (),
        local: bool = False,
        debug_error_string: str = "",
    ) -> None:
        if not self._coded:
            raise TypeError(
                f"{type(self).__name__} has no code of its own: "
                "raise one of the subclasses of StatusError, or errors.of(code)(details)"
            )
        Exception.__init__(self, details)  # not super(): mixed with grpc.aio.AioRpcError that would be its constructor
        self._details = details if isinstance(details, str) else str(details)  # NotFound(order_id) fails nowhere later
        self._initial_metadata = Metadata.trusted(initial_metadata)
        self._trailing_metadata = (
            trailing_metadata if isinstance(trailing_metadata, Metadata) else Metadata(trailing_metadata)
        )
        if rich:
            packed = _rich().pack(self.status_code, self._details, rich)
            self._trailing_metadata = self._trailing_metadata.with_pairs((RICH_KEY, packed))
        self.local = local
        self._debug_error_string = debug_error_string

    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self.status_code

    def details(self) -> str:
        """The text that came with the code."""
        return self._details

    def initial_metadata(self) -> Metadata:
        """What the server sent in front of the response."""
        return self._initial_metadata

    def trailing_metadata(self) -> Metadata:
        """What the server sent behind the response."""
        return self._trailing_metadata

    def debug_error_string(self) -> str:
        """What gRPC's core says about the failure, for people."""
        return self._debug_error_string

    @property
    def error_details(self) -> tuple[Any, ...]:
        """The google.rpc messages sent with the status; empty if there are none or they cannot be read.

        One of a type that is not known here stays a packed `Any`. The code is not read from them: `code()` has it.
        ImportError with the line to install if there are some and the extra `status` is missing.
        """
        return parse_details(self._trailing_metadata)

    def __str__(self) -> str:
        where = ", made locally" if self.local else ""
        return f"{self.status_code.name}{where}: {self._details}"

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f"\tstatus = {self.status_code}\n"
            f'\tdetails = "{self._details}"\n'
            f'\tdebug_error_string = "{self._debug_error_string}"\n'
            ">"
        )

    def __reduce__(self) -> Any:
        return _rebuilt, (*getattr(self, "_both", (type(self), None)), self.args, self.__dict__)


def _rebuilt(kind: type[StatusError], native: type | None, args: tuple[Any, ...], state: dict[str, Any]) -> StatusError:
    """An error of this class, and of grpc's own if one is given; no constructor runs, which may want other arguments."""
    if native is not None:
        kind = native_class(kind, native)
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class Cancelled(StatusError):
    """CANCELLED: the caller gave up."""

    status_code = grpc.StatusCode.CANCELLED


class Unknown(StatusError):
    """UNKNOWN: a failure without a better name."""

    status_code = grpc.StatusCode.UNKNOWN


class InvalidArgument(StatusError):
    """INVALID_ARGUMENT: the request is wrong whatever the state of the system."""

    status_code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(StatusError):
    """DEADLINE_EXCEEDED: the time ran out first."""

    status_code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(StatusError):
    """NOT_FOUND: what was asked for is not there."""

    status_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(StatusError):
    """ALREADY_EXISTS: what should be made is there already."""

    status_code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(StatusError):
    """PERMISSION_DENIED: the caller is known and may not."""

    status_code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(StatusError):
    """RESOURCE_EXHAUSTED: a quota or a size limit was reached."""

    status_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(StatusError):
    """FAILED_PRECONDITION: the system is not in the state this needs."""

    status_code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(StatusError):
    """ABORTED: a conflict with another operation; start over."""

    status_code = grpc.StatusCode.ABORTED


class OutOfRange(StatusError):
    """OUT_OF_RANGE: beyond the end of what exists now."""

    status_code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(StatusError):
    """UNIMPLEMENTED: the server does not know this method."""

    status_code = grpc.StatusCode.UNIMPLEMENTED


class Internal(StatusError):
    """INTERNAL: something that must hold does not."""

    status_code = grpc.StatusCode.INTERNAL


class Unavailable(StatusError):
    """UNAVAILABLE: not now; the call may be sent again."""

    status_code = grpc.StatusCode.UNAVAILABLE


class DataLoss(StatusError):
    """DATA_LOSS: data is gone or damaged for good."""

    status_code = grpc.StatusCode.DATA_LOSS


class Unauthenticated(StatusError):
    """UNAUTHENTICATED: the caller is not known."""

    status_code = grpc.StatusCode.UNAUTHENTICATED


_CLASSES: dict[grpc.StatusCode, type[StatusError]] = {kind.status_code: kind for kind in StatusError.__subclasses__()}


def of(code: grpc.StatusCode) -> type[StatusError]:
    """The class of a status code; ValueError for OK, which is no error."""
    try:
        return _CLASSES[code]
    except KeyError:
        raise ValueError(f"there is no error class for {code!r}: give a grpc.StatusCode other than OK") from None


_native: dict[tuple[type[StatusError], type], type[StatusError]] = {}


def native_class(kind: type[StatusError], native: type) -> type[StatusError]:
    """The class that is both: typed, and grpc's own."""
    if issubclass(kind, native):
        return kind
    both = _native.get((kind, native))
    if both is None:
        # `_both`: pickle finds no class that was made here, only the two that it was made of.
        members = {"__module__": kind.__module__, "_both": (kind, native)}
        both = _native[kind, native] = type(kind.__name__, (kind, native), members)
    return both


def nativized(error: StatusError, native: type) -> StatusError:
    """The same error as an instance of grpc's own class as well: what a stub raises."""
    if isinstance(error, native):
        return error
    twin = _rebuilt(type(error), native, error.args, error.__dict__)
    twin.__cause__ = error.__cause__
    return twin


def parse_details(trailing_metadata: Metadata) -> tuple[Any, ...]:
    """The google.rpc messages in trailing metadata; imports protobuf only if there are any."""
    packed = trailing_metadata.get(RICH_KEY)
    if packed is None:
        return ()
    messages: tuple[Any, ...] = _rich().unpack(packed)
    return messages


def _rich() -> Any:
    """What packs and opens rich details."""
    # By name and late: only RPCs that carry rich details pay for protobuf, or need it installed.
    return importlib.import_module("interpose.contrib.status")
