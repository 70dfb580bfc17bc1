"""What an incoming RPC hands on to the calls that its handler makes: its time, its cancellation, chosen metadata."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from interpose import context, errors
from interpose._call import Call
from interpose._clock import FOREVER, SYSTEM, Clock
from interpose._flow import Flow
from interpose._metadata import Metadata
from interpose._method import Side
from interpose.context import Inherited
from interpose.mechanisms.options import insist, is_clock, is_flag, is_seconds

REQUEST_ID = "x-request-id"
READABLE = "/:@!$&'()*+,;=?#[]|"  # of a subject; what else is not a letter, a digit or one of -._~ is percent-encoded


class PropagateContext:
    """Let the calls that a handler makes inherit from the RPC that it handles. Put it on both sides of a service:

        propagate = PropagateContext(metadata=("x-tenant",))
        server = grpc.server(pool, interceptors=[server_interceptor(propagate, …)])
        channel = intercept_channel(grpc.insecure_channel(target), propagate, …)

    On the server it notes what came in, for the handler and for every thread and task that has a copy of its context
    (`contextvars.copy_context().run` for a ThreadPoolExecutor; asyncio does it by itself). On the client a call that is
    made there inherits:

    - the deadline, less `margin`: what is left of the incoming RPC is the most that the call may take;
    - the end: when the incoming RPC ends, because its client cancelled, left, or got its answer, calls that still run
      are cancelled, and new ones fail with CANCELLED. For calls that shall outlive it: `with context.detached(): …`;
    - the metadata keys named here, with all their values, unless the call has that key itself;
    - the request id, as `x-request-id`, unless the call has one;
    - the subject of the caller's identity, if `identity` names a key for it; in the place of what the call has there.

    An asyncio handler that holds on when it is cancelled keeps its calls until it ends. Outside of any handler nothing
    is changed.

    metadata: keys to hand on. Never more than these: an `authorization` is for one service, not for the next.
    margin:   seconds to keep for the handler's own work after its calls.
    cancel:   let calls end with the incoming RPC.
    identity: a metadata key, like "x-caller", under which the next service is told who makes the incoming call: the subject
              that `Authenticate` found, percent-encoded, and never its token. None: it is not told. The next service must
              believe it only of callers that it knows, by their own token or certificate.
    clock:    where the time is read; the one that was given to the channel or server.
    """

    def __init__(
        self,
        metadata: Iterable[str] = (),
        *,
        margin: float = 0.0,
        cancel: bool = True,
        identity: str | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        keys = () if isinstance(metadata, str) else tuple(metadata)
        insist(
            "PropagateContext",
            (not isinstance(metadata, str), f"metadata must be a tuple of keys, like ({metadata!r},), not one text"),
            (all(map(_is_key, keys)), f"metadata must be metadata keys, like 'x-tenant', not {keys!r}"),
            (
                margin == 0 or is_seconds(margin, FOREVER),
                f"margin must be a number of seconds, 0 or more, not {margin!r}",
            ),
            (is_flag(cancel), f"cancel must be True or False, not {cancel!r}"),
            (
                identity is None or (_is_key(identity) and not identity.lower().endswith("-bin")),
                f"identity must be None or a metadata key for text, like 'x-caller', not {identity!r}",
            ),
            (
                not isinstance(identity, str) or identity.lower() not in [str(key).lower() for key in keys],
                f"identity must be a key of its own, not {identity!r}, which is in metadata as well",
            ),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
        )
        self._keys = tuple(key.lower() for key in keys)
        self._identity = identity and identity.lower()
        self._margin = margin
        self._cancel = cancel
        self._clock = clock

    def __call__(self, call: Call) -> Flow:
        if call.side is Side.SERVER:
            context.set_inherited(Inherited(call.deadline, call.metadata, call.scope() if self._cancel else None))
        elif (inherited := context.inherited()) is not None:
            call = self._heir(call, inherited)
        yield call

    def _heir(self, call: Call, inherited: Inherited) -> Call:
        """The outgoing call with what it inherits."""
        if inherited.deadline is not None:
            ends = inherited.deadline - self._margin
            if ends <= self._clock.now():
                raise errors.DeadlineExceeded("no time is left of the incoming RPC for this call", local=True)
            call = call.with_deadline(ends)
        if self._cancel and inherited.scope is not None:
            if inherited.scope.over:
                raise errors.Cancelled(
                    "the incoming RPC has ended: a call that shall outlive it is made in context.detached()", local=True
                )
            call = call.within(inherited.scope)
        pairs = [
            (key, value) for key in self._keys if key not in call.metadata for value in inherited.metadata.get_all(key)
        ]
        if self._identity is not None:
            # Also without an identity: what stands there may have come from a stranger.
            call = call.without_metadata(self._identity)
            if (identity := context.identity()) is not None:
                pairs.append((self._identity, quote(identity.subject, safe=READABLE)))
        request_id = context.request_id()
        if request_id is not None and REQUEST_ID not in call.metadata and REQUEST_ID not in self._keys:
            pairs.append((REQUEST_ID, request_id))
        return call.with_metadata(*pairs) if pairs else call


def _is_key(key: object) -> bool:
    try:
        Metadata([(key, b"" if str(key).endswith("-bin") else "")])  # type: ignore[list-item]  # that is the question
    except (ValueError, TypeError, AttributeError):
        return False
    return True
