"""The outcome: how an attempt ended. A failure is a value like a success."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from interpose._metadata import Metadata
from interpose.errors import StatusError, parse_details

_log = logging.getLogger("interpose")

OK = grpc.StatusCode.OK


class Ended(Protocol):
    """A native call that has ended: it still has the metadata of the response."""

    def initial_metadata(self) -> Any: ...

    def trailing_metadata(self) -> Any: ...


def told_by(error: StatusError) -> tuple[grpc.StatusCode, str, Metadata]:
    """Code, details and trailing metadata of an error; of an application's own that fails to give them, what is certain."""
    try:
        return error.code(), error.details(), error.trailing_metadata()
    except BaseException:
        _log.exception(
            "a %s could not give its code, details and metadata; using its status_code alone", type(error).__name__
        )
        return error.status_code, "", Metadata()


class Outcome:
    """How one attempt of an RPC ended: answered, refused, failed, cancelled, or never sent. Immutable.

    A flow is given one for every call that it yields, exactly one, and only once the RPC has ended:
    a stream has been read to its end, or was cancelled, or broke.
    """

    __slots__ = (
        "_attempts",
        "_code",
        "_details",
        "_elapsed",
        "_ended",
        "_error",
        "_initial_metadata",
        "_replayable",
        "_requests",
        "_response",
        "_responses",
        "_trailing_metadata",
    )

    def __init__(
        self,
        code: grpc.StatusCode = OK,
        response: Any = None,
        details: str = "",
        error: BaseException | None = None,
        requests: int = 0,
        responses: int = 0,
        elapsed: float = 0.0,
        replayable: bool = False,
        ended: Ended | None = None,
        initial_metadata: Metadata | None = None,
        trailing_metadata: Metadata | None = None,
    ) -> None:
        self._code = code
        self._response = response
        self._details = details
        self._error = error
        self._requests = requests
        self._responses = responses
        self._elapsed = elapsed
        self._replayable = replayable
        self._ended = ended
        self._initial_metadata = initial_metadata
        self._trailing_metadata = trailing_metadata
        self._attempts = 0

    @classmethod
    def success(cls, response: Any = None, *, trailing_metadata: Iterable[tuple[str, str | bytes]] = ()) -> Outcome:
        """An answer made here. For a response stream `response` is an iterable of messages (or None for none)."""
        return cls(OK, response, replayable=True, trailing_metadata=Metadata(trailing_metadata))

    @classmethod
    def failure(cls, error: StatusError) -> Outcome:
        """The failure that this error describes; the same as raising it in a flow."""
        code, details, _ = told_by(error)
        return cls(code, None, details, error, replayable=True)

    @property
    def ok(self) -> bool:
        """Did it end with OK?"""
        return self._code is OK

    @property
    def code(self) -> grpc.StatusCode:
        """The status code; UNKNOWN for a handler's unexpected exception, INTERNAL for a local fault."""
        return self._code

    @property
    def details(self) -> str:
        """The text beside the code; empty on success."""
        return self._details

    @property
    def error(self) -> BaseException | None:
        """What the failure would raise: a `StatusError`, or the exception of a handler or of grpc itself."""
        return self._error

    @property
    def local(self) -> bool:
        """Was the failure made on this side, without a peer's answer?"""
        return self._error is not None and getattr(self._error, "local", True)

    @property
    def response(self) -> Any:
        """The response message (unary responses); None for streams and failures."""
        return self._response

    @property
    def initial_metadata(self) -> Metadata:
        """What was sent in front of the response."""
        if self._initial_metadata is None:
            self._initial_metadata = Metadata.trusted(self._ended.initial_metadata() if self._ended else None)
        return self._initial_metadata

    @property
    def trailing_metadata(self) -> Metadata:
        """What was sent behind the response."""
        if self._trailing_metadata is None:
            if isinstance(self._error, StatusError):
                self._trailing_metadata = told_by(self._error)[2]
            else:
                self._trailing_metadata = Metadata.trusted(self._ended.trailing_metadata() if self._ended else None)
        return self._trailing_metadata

    @property
    def requests(self) -> int:
        """How many request messages passed in this attempt."""
        return self._requests

    @property
    def responses(self) -> int:
        """How many response messages were delivered."""
        return self._responses

    @property
    def attempts(self) -> int:
        """How many attempts the RPC has made so far, this one included; 0 if it was answered without sending."""
        return self._attempts

    @property
    def elapsed(self) -> float:
        """Seconds from the start of this attempt to its end."""
        return self._elapsed

    @property
    def replayable(self) -> bool:
        """May the call be yielded again? Not once a response was delivered or a request stream was read and not kept."""
        return self._replayable

    @property
    def error_details(self) -> tuple[Any, ...]:
        """The google.rpc messages sent with a failure, parsed when asked for."""
        return parse_details(self.trailing_metadata)

    def with_response(self, message: Any) -> Outcome:
        """Let the caller see another message (unary responses)."""
        return self._copy("_response", message)

    def with_trailing_metadata(self, *pairs: tuple[str, str | bytes]) -> Outcome:
        """Add pairs behind the trailing metadata that is there; ValueError for what the wire would refuse."""
        return self._copy("_trailing_metadata", self.trailing_metadata.with_pairs(*pairs))

    def _after(self, told: Outcome | None) -> Outcome:
        """Take over what had happened to the RPC before a flow put this outcome in the place of that one."""
        if told is self:
            return self
        # A copy: a flow may keep an outcome and answer many RPCs with it.
        outcome, was = self._copy("_response", self._response), told or _UNSENT
        outcome._attempts, outcome._requests, outcome._responses = was._attempts, was._requests, was._responses
        outcome._elapsed, outcome._replayable = was._elapsed, was._replayable
        return outcome

    def _copy(self, slot: str, value: Any) -> Outcome:
        outcome = Outcome.__new__(Outcome)
        for name in Outcome.__slots__:
            setattr(outcome, name, getattr(self, name))
        setattr(outcome, slot, value)
        return outcome

    def __repr__(self) -> str:
        details = f" {self.details!r}" if self.details else ""
        return f"<Outcome {self.code.name}{details}, {self.requests} requests, {self.responses} responses>"


class Received(Outcome):
    """OK, one message each way: what nearly every RPC of a client ends with. What is the same in all is on the class."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self) -> None: ...

    else:
        __init__ = object.__init__

    _code = OK
    _details = ""
    _error = None
    _requests = _responses = 1
    _replayable = True


class Answered(Received):
    """The same on a server, where no metadata comes with it."""

    __slots__ = ()

    _ended = None
    _initial_metadata = _trailing_metadata = Metadata()


_UNSENT = Outcome(replayable=True)
