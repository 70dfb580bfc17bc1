"""What an incoming RPC hands on to the calls that its handler makes: its time, its cancellation, chosen metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any
from urllib.parse import quote

from interpose import context, errors
from interpose._call import Call
from interpose._clock import FOREVER
from interpose._flow import Flow
from interpose._metadata import Metadata
from interpose._method import Side
from interpose.context import Inherited
from interpose.mechanisms.options import FLAG, check_options, is_seconds, must_be, option

REQUEST_ID = "x-request-id"
READABLE = "/:@!$&'()*+,;=?#[]|"  # of a subject; what else is not a letter, a digit or one of -._~ is percent-encoded


# - what holds of its options -


def _is_key(key: object) -> bool:
    try:
        Metadata([(key, b"" if str(key).endswith("-bin") else "")])  # type: ignore[list-item]  # that is the question
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _is_text_key(key: object) -> bool:
    return key is None or (_is_key(key) and not str(key).lower().endswith("-bin"))


def _keys_faults(name: str, keys: Any) -> Iterator[str]:
    if isinstance(keys, str):
        yield f"{name} must be a tuple of keys, like ({keys!r},), not one text"
    elif not all(map(_is_key, keys)):
        yield f"{name} must be metadata keys, like 'x-tenant', not {keys!r}"


@dataclass(eq=False, repr=False)
class PropagateContext:
    """Let the calls that a handler makes inherit from the RPC that it handles. Put it on both sides of a service:

        propagate = PropagateContext(metadata=("x-tenant",))
        server = grpc.server(pool, interceptors=[server_interceptor(propagate, …)])
        channel = intercept_channel(grpc.insecure_channel(target), propagate, …)

    On the server it notes what came in, for the handler and for every thread and task that has a copy of its context.
    asyncio copies it by itself; a ThreadPoolExecutor needs `contextvars.copy_context().run`. On the client a call
    that is made there inherits:

    - the deadline, less `margin`: what is left of the incoming RPC is the most that the call may take;
    - the end: when the incoming RPC ends, because its client cancelled, left, or got its answer, calls that still run
      are cancelled, and new ones fail with CANCELLED. For calls that must outlive it: `with interpose.detached(): …`;
    - the metadata keys named here, with all their values, unless the call has that key itself;
    - the request id, as `x-request-id`, unless the call has one;
    - the subject of the caller's identity, if `identity` names a key for it; in the place of what the call has there.

    An asyncio handler that holds on when it is cancelled keeps its calls until it ends. Outside of any handler nothing
    is changed.

    metadata: keys to hand on. Never more than these: an `authorization` is for one service, not for the next.
    margin:   seconds to keep for the handler's own work after its calls.
    cancel:   let calls end with the incoming RPC.
    identity: a metadata key, like "x-caller", under which the next service gets the caller of the incoming RPC: the subject
              that `Authenticate` found, percent-encoded, and never its token. None: it is not sent. The next service must
              believe it only of callers that it knows, by their own token or certificate.

    ValueError listing every fault of the options.
    """

    metadata: Iterable[str] = option((), _keys_faults)
    _: KW_ONLY
    margin: float = option(
        0.0, must_be("a number of seconds, 0 or more", lambda margin: margin == 0 or is_seconds(margin, FOREVER))
    )
    cancel: bool = option(True, FLAG)
    identity: str | None = option(None, must_be("None or a metadata key for text, like 'x-caller'", _is_text_key))

    def __post_init__(self) -> None:
        self.metadata = self.metadata if isinstance(self.metadata, str) else tuple(self.metadata)
        identity, keys = self.identity, [str(key).lower() for key in self.metadata]
        own = not isinstance(identity, str) or isinstance(self.metadata, str) or identity.lower() not in keys
        check_options(self, (own, f"identity must be a key of its own, not {identity!r}, which is in metadata as well"))
        self._keys = tuple(keys)
        self._identity = identity and identity.lower()

    def __call__(self, call: Call) -> Flow:
        if call.side is Side.SERVER:
            context.set_inherited(Inherited(call.deadline, call.metadata, call.scope() if self.cancel else None))
        elif (inherited := context.inherited()) is not None:
            call = self._heir(call, inherited)
        yield call

    def _heir(self, call: Call, inherited: Inherited) -> Call:
        """The outgoing call with what it inherits."""
        if inherited.deadline is not None:
            ends = inherited.deadline - self.margin
            if ends <= call.clock.now():
                raise errors.DeadlineExceeded("no time is left of the incoming RPC for this call", local=True)
            call = call.with_deadline(ends)
        if self.cancel and inherited.scope is not None:
            if inherited.scope.over:
                raise errors.Cancelled(
                    "the incoming RPC has ended: make calls that must outlive it inside of interpose.detached()",
                    local=True,
                )
            call = call.within(inherited.scope)
        pairs = [
            (key, value) for key in self._keys if key not in call.metadata for value in inherited.metadata.get_all(key)
        ]
        if self._identity is not None:
            # Also without an identity: what is there may have come from an unknown caller.
            call = call.without_metadata(self._identity)
            if (identity := context.identity()) is not None:
                pairs.append((self._identity, quote(identity.subject, safe=READABLE)))
        request_id = context.request_id()
        if request_id is not None and REQUEST_ID not in call.metadata and REQUEST_ID not in self._keys:
            pairs.append((REQUEST_ID, request_id))
        return call.with_metadata(*pairs) if pairs else call
