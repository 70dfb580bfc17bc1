"""The call: what one attempt of an RPC should be. Interceptors ask for things by yielding a changed copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import grpc

from interpose import errors
from interpose._clock import FOREVER, Clock
from interpose._kind import kind_of
from interpose._metadata import Metadata
from interpose._method import Kind, Method, Side
from interpose._scope import Scope

Tap: TypeAlias = Callable[[Any], object]
Map: TypeAlias = Callable[[Any], Any]


class Hook:
    """A tap or a map: what an interceptor wants called with each message."""

    __slots__ = ("asker", "changes", "function")

    def __init__(self, changes: bool, function: Map) -> None:
        self.changes = changes  # does the message become what it returns?
        self.function = function
        self.asker: Any = None  # the interceptor that asked for it; the driver fills it in


DEFAULT_BUFFER = 256 * 1024  # bytes; gRPC's core, default of grpc.per_rpc_retry_buffer_size


class Overflowed(errors.ResourceExhausted):
    """RESOURCE_EXHAUSTED, made here: an attempt needs request messages that outgrew their buffer (see `buffered`)."""


Verdict: TypeAlias = Callable[[Any], float | None]  # the outcome of a copy that failed → seconds until the next one
Ready: TypeAlias = Callable[[], bool]


class Hedging(NamedTuple):
    """Send up to `copies` of the call, one every `delay` seconds, and take the first good answer."""

    copies: int
    delay: float
    verdict: Verdict | None = None
    ready: Ready | None = None


class Asks(NamedTuple):
    """What interceptors asked for beyond what goes on the wire. Hooks are in the order in which they see a message."""

    delay: float = 0.0
    hedging: Hedging | None = None
    requests: tuple[Hook, ...] = ()
    responses: tuple[Hook, ...] = ()
    on_initial_metadata: tuple[Hook, ...] = ()
    initial_metadata: Metadata = Metadata()
    buffer: int | None = None
    scope: Scope | None = None  # the incoming RPC that it ends with
    patience: float | None = None  # seconds in which a response stream has to begin
    resumes: bool = False

    def sign(self, asker: Any) -> None:
        """Note on the hooks that are new which interceptor asked for them."""
        for hook in (*self.requests, *self.responses, *self.on_initial_metadata):
            hook.asker = hook.asker or asker


NOTHING = Asks()


class Incoming(Protocol):
    """What a server's call asks of its context, when an interceptor wants to know."""

    def received_metadata(self) -> Any: ...

    def arrived_with(self) -> float | None: ...

    def deadline(self) -> float | None: ...

    def peer(self) -> str: ...

    def scope(self) -> Scope: ...

    def auth_context(self) -> Any: ...


class Call:
    """One attempt of an RPC, before it is sent (client) or handled (server). Immutable.

    Every `with_…` and its like returns a new call; yield it, and that is what happens.
    """

    __slots__ = (
        "_asks",
        "_compression",
        "_context",
        "_credentials",
        "_deadline",
        "_metadata",
        "_method",
        "_request",
        "_side",
        "_timeout",
        "_wait_for_ready",
    )

    def __init__(
        self,
        method: Method,
        side: Side = Side.CLIENT,
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = (),
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
        deadline: float | None = None,
        context: Incoming | None = None,
        asks: Asks = NOTHING,
    ) -> None:
        self._method = method
        self._side = side
        self._request = request
        self._timeout = timeout
        self._metadata = metadata
        self._credentials = credentials
        self._wait_for_ready = wait_for_ready
        self._compression = compression
        self._deadline = deadline
        self._context = context
        self._asks = asks

    @property
    def method(self) -> Method:
        """The method called; `str()` gives "/package.Service/Name"."""
        return self._method

    @property
    def kind(self) -> Kind:
        """Which directions stream."""
        return self._method.kind

    @property
    def side(self) -> Side:
        """CLIENT while sending, SERVER while handling."""
        return self._side

    @property
    def request(self) -> Any:
        """The request message; None when requests are a stream (see `tap` and `map` for those)."""
        return self._request

    @property
    def timeout(self) -> float | None:
        """Seconds this attempt may take; None: only the RPC's deadline limits it.

        On a server, unless an interceptor set one: what was left of the client's deadline when the RPC arrived.
        """
        if self._timeout is None and self._context is not None:
            return self._context.arrived_with()
        return self._timeout

    @property
    def deadline(self) -> float | None:
        """When the whole RPC must have ended, in seconds of the monotonic clock; fixed when the stub was called."""
        if self._deadline is None and self._context is not None:
            return self._context.deadline()
        return self._deadline

    @property
    def clock(self) -> Clock:
        """The clock of the channel or server: `call.clock.now()` is in the same seconds as `call.deadline`."""
        return self._method.clock

    @property
    def metadata(self) -> Metadata:
        """What the request carries besides its messages (on a server: what the client sent)."""
        metadata = self._metadata
        if type(metadata) is not Metadata:
            # Read when first asked for: asyncio servers convert it from C at every look.
            source = self._context.received_metadata() if metadata is None and self._context is not None else metadata
            metadata = self._metadata = Metadata.trusted(source)
        return metadata

    @property
    def credentials(self) -> Any:
        """`grpc.CallCredentials`, or None (client)."""
        return self._credentials

    @property
    def wait_for_ready(self) -> bool | None:
        """Wait for a connection rather than fail at once (client)."""
        return self._wait_for_ready

    @property
    def compression(self) -> Any:
        """`grpc.Compression`, or None (client)."""
        return self._compression

    @property
    def peer(self) -> str | None:
        """The client's address as grpc writes it, like "ipv4:127.0.0.1:5000" (server; None on a client)."""
        return None if self._context is None else str(self._context.peer())

    @property
    def auth_context(self) -> Any:
        """What the transport knows of the client, by grpc's own names, like `{"peer_dns": [b"web.example"]}` with TLS.

        Server; empty on a client, and once the RPC has ended.
        """
        return {} if self._context is None else self._context.auth_context()

    def encoded(self) -> bytes:
        """The request as the bytes that are sent, by the stub's own serializer, maps included (client, unary requests).

        Serializes it each time; raises what the serializer raises, and ValueError for any other call.
        """
        if self.side is Side.SERVER or self.kind.request_streaming:
            raise ValueError("encoded: only a client's call with one request knows how to serialize it")
        message = self._request
        for hook in self._asks.requests:
            message = hook.function(message) if hook.changes else message
        serialize = self._method.serializer
        data: bytes = message if serialize is None else serialize(message)
        return data

    @property
    def delay(self) -> float:
        """Seconds that pass before the call is sent."""
        return self._asks.delay

    def with_metadata(self, *pairs: tuple[str, str | bytes]) -> Call:
        """Add pairs behind those that are there; ValueError for a key or value that the wire would refuse."""
        return self._copy("_metadata", self.metadata.with_pairs(*pairs))

    def without_metadata(self, *keys: str) -> Call:
        """Take away every value of these keys."""
        return self._copy("_metadata", self.metadata.without(*keys))

    def with_timeout(self, seconds: float | None) -> Call:
        """Let this attempt take at most `seconds`. The RPC's own deadline still holds, whichever is first.

        On a server: an asyncio handler is cancelled; a plain one sees it in `time_remaining()` and its response
        stream is ended at the next message, but a thread that is busy cannot be interrupted. ValueError for nan, TypeError for
        what is no number.
        """
        if seconds is not None and math.isnan(_number("seconds", seconds)):
            raise ValueError("with_timeout: seconds must be a number or None, not nan")
        return self._copy("_timeout", seconds)

    def answered_within(self, seconds: float) -> Call:
        """Let the server begin to answer this attempt within `seconds`, or it fails with DEADLINE_EXCEEDED, `error.local`.

        A response stream has begun with its initial metadata or first message, and may then last as long as it likes.
        A unary response has to have come, as by `with_timeout`. Client; ValueError on a server, and for a number that is not
        above 0. TypeError for what is no number.
        """
        if self.side is Side.SERVER:
            raise ValueError("answered_within: a server answers itself; limit its handler with with_timeout")
        if not 0 < _number("seconds", seconds) < FOREVER:
            raise ValueError(f"answered_within: seconds must be above 0 and below {FOREVER:g}, not {seconds!r}")
        if self.kind.response_streaming:
            return self._ask(patience=seconds)
        timeout = self._timeout
        return self.with_timeout(seconds if timeout is None or seconds < timeout else timeout)

    def with_deadline(self, when: float | None) -> Call:
        """Let the whole RPC, attempts and pauses included, end by `when`, in seconds of the monotonic clock.

        It can only be made earlier: a later one than there is changes nothing. On a server it limits the handler. ValueError
        for None and what is not finite, TypeError for what is no number.
        """
        if when is None or when - _number("when", when) != 0:
            raise ValueError(f"with_deadline: when must be a finite time of the monotonic clock, not {when!r}")
        there = self.deadline
        return self if there is not None and there <= when else self._copy("_deadline", when)

    def within(self, scope: Scope) -> Call:
        """Cancel it when the incoming RPC of this scope ends (client)."""
        return self._ask(scope=scope)

    def scope(self) -> Scope:
        """What ends with this incoming RPC: see `within` (server; ValueError on a client)."""
        if self._context is None:
            raise ValueError("scope: only an incoming RPC, while it is handled, has calls that end with it")
        return self._context.scope()

    def with_compression(self, compression: grpc.Compression | None) -> Call:
        """Compress its request messages so; None: as the channel does. Client; ValueError on a server.

        TypeError for what is no `grpc.Compression`.
        """
        if self.side is Side.SERVER:
            raise ValueError("with_compression: requests come from the client; a handler calls context.set_compression")
        if not isinstance(compression, (grpc.Compression, NoneType)):
            raise TypeError(f"with_compression: give a grpc.Compression or None, not {kind_of(compression)}")
        return self._copy("_compression", compression)

    def with_wait_for_ready(self, wait: bool | None) -> Call:
        """True: wait for a connection, until the deadline; False: fail at once without one; None: as the channel does.

        Client; ValueError on a server. TypeError for another value.
        """
        if self.side is Side.SERVER:
            raise ValueError("with_wait_for_ready: the connection is there; only a client can wait for one")
        if not isinstance(wait, (bool, NoneType)):
            raise TypeError(f"with_wait_for_ready: give True, False or None, not {kind_of(wait)}")
        return self._copy("_wait_for_ready", wait)

    def with_credentials(self, credentials: grpc.CallCredentials | None) -> Call:
        """Send it with these call credentials in the place of those that it has; None: without any (client).

        Those of the channel are sent as well. To add to the call's own use `grpc.composite_call_credentials`. On an insecure
        channel gRPC ends a call that has credentials with UNAUTHENTICATED, and sends nothing. ValueError on a server, TypeError
        for what is no `grpc.CallCredentials`.
        """
        if self.side is Side.SERVER:
            raise ValueError("with_credentials: only a client sends credentials; a server reads call.metadata")
        if not isinstance(credentials, (grpc.CallCredentials, NoneType)):
            raise TypeError(f"with_credentials: give grpc.CallCredentials or None, not {kind_of(credentials)}")
        return self._copy("_credentials", credentials)

    def with_request(self, message: Any) -> Call:
        """Send another message instead. ValueError for a request stream: use `map`."""
        if self.kind.request_streaming:
            raise ValueError(f"{self.method} has a request stream: use map(requests=…) to change its messages")
        return self._copy("_request", message)

    def after(self, seconds: float) -> Call:
        """Send it `seconds` later, while the RPC's deadline runs on. ValueError for less than 0, TypeError for no number."""
        if not 0 <= _number("seconds", seconds) < FOREVER:
            raise ValueError(f"after: seconds must be from 0 to {FOREVER:g}, not {seconds!r}")
        return self._ask(delay=seconds)

    def hedged(self, *, copies: int, delay: float, verdict: Verdict | None = None, ready: Ready | None = None) -> Call:
        """Send up to `copies` of it, one every `delay` seconds, until one has a good answer; the others are cancelled.

        A copy that fails lets the next one go at once (gRFC A6). Of response streams the first to deliver a message is
        taken, and it goes on. Client. A request stream is kept for the copies, as by `buffered()`. On sync channels each
        copy of a response stream has a thread until one of them is taken.

        verdict: what to do when a copy has failed: of its outcome, the seconds until the next one goes (0.0: at once;
                 math.inf: no more, wait for those that run), or None: that failure is the answer.
        ready:   asked before each copy but the first; False: no more of them. Both are called on any thread. What they raise is
                 logged: then the failure of the copy is the answer, or no more copies are sent.

        ValueError on a server, for fewer than 2 copies and for a delay below 0. TypeError for what is no number or function.
        """
        if self.side is Side.SERVER:
            raise ValueError("hedged: only calls of a client can be hedged")
        if not isinstance(copies, int) or copies < 2 or not 0 <= _number("delay", delay) < FOREVER:
            raise ValueError(
                f"hedged: copies must be 2 or more and delay 0 or more seconds, not {copies!r} and {delay!r}"
            )
        if not all(hook is None or callable(hook) for hook in (verdict, ready)):
            raise TypeError(f"hedged: verdict and ready must be functions, not {kind_of(verdict)} and {kind_of(ready)}")
        buffer = self._asks.buffer
        if buffer is None and self.kind.request_streaming:
            buffer = DEFAULT_BUFFER  # each copy needs the whole stream
        return self._ask(hedging=Hedging(copies, delay, verdict, ready), buffer=buffer)

    def resumed(self) -> Call:
        """Go on with a response stream that broke: it may be sent although messages of it were delivered.

        What it sends is delivered behind them, so it should ask for what comes after (see `Retry(resume=…)`). Client,
        one request and a stream of responses; ValueError for any other call.
        """
        if self.side is Side.SERVER or self.kind is not Kind.UNARY_STREAM:
            raise ValueError("resumed: only a client's call with one request and a response stream can be resumed")
        return self._ask(resumes=True)

    def tap(
        self, *, requests: Tap | None = None, responses: Tap | None = None, initial_metadata: Tap | None = None
    ) -> Call:
        """See each message as it passes, and the response's initial metadata; unary messages too.

        The functions run on the thread, or in the loop, that delivers the message. What they raise ends the RPC: a
        `StatusError` with its status, all else with INTERNAL and the interceptor's name. TypeError for what is no function.
        """
        return self._hooked(False, requests, responses, initial_metadata)

    def map(self, *, requests: Map | None = None, responses: Map | None = None) -> Call:
        """Change each message as it passes; unary messages too.

        A function that returns None for a message ends the RPC with INTERNAL and the interceptor's name: one that changes
        the message in place returns it as well. They run, and raise, as those of `tap` do.
        """
        return self._hooked(True, requests, responses, None)

    def buffered(self, max_bytes: int = DEFAULT_BUFFER) -> Call:
        """Keep up to `max_bytes` of request messages, so that a request stream can be sent again.

        Once they overflow nothing is kept and `outcome.replayable` is false. Client; unary requests need no buffer.
        Messages are kept as bytes; where a `map` has still to change them, as the objects that the application gave. By default
        256 KiB, the per-RPC retry buffer of gRPC's core. ValueError for less than 0.
        """
        if max_bytes < 0:
            raise ValueError(f"buffered: max_bytes must be 0 or more, not {max_bytes!r}")
        return self._ask(buffer=max_bytes)

    def with_initial_metadata(self, *pairs: tuple[str, str | bytes]) -> Call:
        """Send these in front of the response, beside what the handler sends itself.

        Server; ValueError on a client, and for a key or value that the wire would refuse.
        """
        if self.side is Side.CLIENT:
            raise ValueError("with_initial_metadata: only a server sends initial metadata; a client uses with_metadata")
        return self._ask(initial_metadata=self._asks.initial_metadata.with_pairs(*pairs))

    def _hooked(self, changes: bool, requests: Map | None, responses: Map | None, initial: Tap | None) -> Call:
        asks = self._asks
        for name, hook in (("requests", requests), ("responses", responses), ("initial_metadata", initial)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be a function of one message, not {kind_of(hook)}")
        # An outer interceptor comes first on the way out and last on the way back.
        return self._ask(
            requests=asks.requests if requests is None else (*asks.requests, Hook(changes, requests)),
            responses=asks.responses if responses is None else (Hook(changes, responses), *asks.responses),
            on_initial_metadata=asks.on_initial_metadata
            if initial is None
            else (Hook(False, initial), *asks.on_initial_metadata),
        )

    def _ask(self, **changes: Any) -> Call:
        return self._copy("_asks", self._asks._replace(**changes))

    def _copy(self, slot: str, value: Any) -> Call:
        call = Call.__new__(Call)
        call._method = self._method
        call._side = self._side
        call._request = self._request
        call._timeout = self._timeout
        call._metadata = self._metadata
        call._credentials = self._credentials
        call._wait_for_ready = self._wait_for_ready
        call._compression = self._compression
        call._deadline = self._deadline
        call._context = self._context
        call._asks = self._asks
        setattr(call, slot, value)
        return call

    def __repr__(self) -> str:
        return f"<Call {self.method} ({self.kind.value}, {self.side.value}), timeout {self.timeout}>"


class Arrived(Call):
    """The call of an RPC that has come in, before any interceptor asked for anything; its defaults are on the class."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self) -> None: ...

    else:
        __init__ = object.__init__

    _side = Side.SERVER
    _asks = NOTHING
    _timeout = _deadline = _credentials = _wait_for_ready = _compression = None


class Begun(Call):
    """The call of an RPC that its application has just begun: what no stub can be asked for is on the class."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self) -> None: ...

    else:
        __init__ = object.__init__

    _side = Side.CLIENT
    _asks = NOTHING
    _context = None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {kind_of(value)}")
    return value
