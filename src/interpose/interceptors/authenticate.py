"""No handler runs for a caller that is not known."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from interpose import context, errors
from interpose._call import Call
from interpose._executed import is_downstream, not_executed
from interpose._flow import Belongs, Flow, name_of, wait
from interpose._identity import AUTHORIZATION, Credentials, Found, Identity, Verifier
from interpose._kind import kind_of
from interpose._method import Method, Side
from interpose._patterns import listed, patterns
from interpose._served import Served
from interpose.interceptors.guarding import (
    HEALTH_AND_REFLECTION,
    SYNC,
    Table,
    blamed,
    is_async,
    is_over,
    note,
    shown,
    unmatched,
)
from interpose.mechanisms.options import check_options, hook, ruled, whole
from interpose.mechanisms.tally import Tally

REFUSAL = "the call needs valid credentials"  # all that an unknown caller learns

MAX_TOKEN = 8192  # characters; gRPC takes 8 KiB of metadata unless it is set to take more
LONGEST_TOKEN = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticateState:
    """What an `Authenticate` has decided so far, in calls.

    accepted: of known callers. public: of methods that need none. refused: credentials missing or not valid.
    faults: refused because a verifier failed with an exception that it does not refuse with; there is a bug, or an outage.
    """

    accepted: int
    public: int
    refused: int
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnauthenticatedDetails:
    """What `on_refuse` is given. reason: for the log, never for the caller; no credentials are in it."""

    method: str
    peer: str
    reason: str
    fault: bool


@dataclass(init=False, eq=False, repr=False)
class Authenticate:
    """Refuse calls of unknown callers.

    Every call is refused with UNAUTHENTICATED and one fixed text, before a message of a request stream is read, unless
    one of the verifiers knows the caller. The handler, the log and the calls that the handler makes find the answer in
    `context.identity()`. The reason of a refusal goes to the log "interpose" (INFO), never to the caller, and
    credentials go nowhere. Server.

    verifiers:  asked in this order until one gives an identity. Each is a function of `Credentials`, plain or async,
        or a generator that uses `wait`. It gives an `Identity`, a text as its subject, or None: the credentials are not
        of its kind. It raises `errors.Unauthenticated` with the reason to refuse; the next verifier is asked then. Any
        other exception, also what a call of its own ended with, refuses the call at once, whatever the others would
        say, is logged as an error with the place it came from but without its text, and is counted as a
        fault. A plain verifier must not block on an asyncio server. An async one works on asyncio servers only; a sync
        one refuses its calls, and counts faults.
    public:     patterns of the methods that anybody may call, like "/shop.v1.Catalog/*". They have no identity. What you
        give here replaces the default: `public=(*HEALTH_AND_REFLECTION, "/shop.v1.Catalog/*")`.
    max_token:  characters of a bearer token; longer ones are refused unread.
    on_refuse:  called with `UnauthenticatedDetails` after each refusal; what it raises is logged.

    Verifiers and `on_refuse` run where the RPC runs: on the thread of its handler, or in the event loop.
    Defaults: health and reflection are public, since load balancers and tools come without credentials. A token has 8192
    characters, as gRPC takes 8 KiB of metadata unless it is set to take more.

    ValueError listing every fault of these.
    """

    belongs: ClassVar = Belongs(Side.SERVER, "Authenticate belongs on a server: a channel takes BearerToken")

    public: str | Iterable[str] = field(metadata=ruled(patterns))
    max_token: int = field(metadata=ruled(whole(1, LONGEST_TOKEN)))
    on_refuse: Callable[[UnauthenticatedDetails], object] | None = field(metadata=ruled(hook("UnauthenticatedDetails")))

    def __init__(  # and not that of a dataclass: the verifiers are given one by one
        self,
        *verifiers: Verifier,
        public: str | Iterable[str] = HEALTH_AND_REFLECTION,
        max_token: int = MAX_TOKEN,
        on_refuse: Callable[[UnauthenticatedDetails], object] | None = None,
    ) -> None:
        self.public, self.max_token, self.on_refuse = listed(public), max_token, on_refuse
        check_options(self, *_verifier_requirements(verifiers))
        self._verifiers = tuple((name_of(verifier), verifier) for verifier in verifiers)
        self._public = Table(dict.fromkeys(self.public, True))
        self._tally = Tally("accepted", "public", "refused", "faults")

    def __call__(self, call: Call) -> Flow:
        self.belongs.check(call)
        context.set_identity(None)  # whatever was there before is of another call
        if self._public.get(call.method):
            self._tally.add("public")
        else:
            context.set_identity((yield from self._identified(call)))
            self._tally.add("accepted")
        yield call

    def snapshot(self) -> AuthenticateState:
        """What it has decided so far."""
        tally = self._tally
        return AuthenticateState(
            accepted=tally["accepted"], public=tally["public"], refused=tally["refused"], faults=tally["faults"]
        )

    def described(self, method: Method | None) -> str:
        """What it does to a method, or to all, for `describe`."""
        public = ", ".join(row for row, _, _ in self._public.rows) or "nothing"
        open_to_all = method is not None and self._public.get(method)
        return (
            f"{'Let anybody call this method' if open_to_all else 'Refuse calls of unknown callers'}. Public: {public}."
        )

    def unfit(self, asyncio: bool) -> str | None:
        """Why it cannot run on such a server; None if it can."""
        names = [name for name, verifier in self._verifiers if is_async(verifier)]
        return None if asyncio or not names else f"{', '.join(names)} is async, and this is the sync side: {SYNC}"

    def check_served(self, served: Served) -> Iterator[str]:
        """Faults that show when the methods of the server are known."""
        rows = [row for row, _, _ in self._public.rows if row not in HEALTH_AND_REFLECTION]
        yield from unmatched("Authenticate", "public", rows, served)

    # - the caller -

    def _identified(self, call: Call) -> Generator[Any, Any, Identity]:
        """The caller, by the first verifier that knows it; raises the refusal if none does."""
        credentials, reasons = Credentials(call, self.max_token), []
        for name, verifier in self._verifiers:
            try:
                found: Any = verifier(credentials)
                identity = found if type(found) is Identity else (yield from _awaited(found))
                if identity is not None:
                    return identity
            except (GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                if is_over(error):
                    raise
                if not isinstance(error, errors.Unauthenticated) or is_downstream(error):
                    raise self._refused(call, blamed(name, error), fault=True) from None
                reasons.append(f"{name}: {error.details()}")
        raise self._refused(call, "; ".join(reasons) or _unknown(credentials), fault=False)

    def _refused(self, call: Call, reason: str, *, fault: bool) -> errors.Unauthenticated:
        """Note a refusal; gives what the caller gets."""
        self._tally.add("faults" if fault else "refused")
        method, peer = shown(call.method.full_name), shown(call.peer)
        reason = reason if fault else shown(reason)
        details = UnauthenticatedDetails(method=method, peer=peer, reason=reason, fault=fault)
        note(f"Authenticate refused a call of {method} by {peer}", details, self.on_refuse)
        return errors.Unauthenticated(REFUSAL, trailing_metadata=not_executed(call), local=True)


def _verifier_requirements(verifiers: tuple[Any, ...]) -> Iterator[tuple[bool, str]]:
    yield bool(verifiers), "give at least one verifier, like StaticTokens({token: 'subject'}) or a function"
    for one in verifiers:
        yield callable(one), f"a verifier must be a function of Credentials, not {kind_of(one)}{_hint(one)}"
        yield not isinstance(one, type), f"{name_of(one)} is a class: give an instance"


def _hint(one: object) -> str:
    """What to write for tokens that were given as they are; which is never shown, since it would be in a log."""
    return ": write StaticTokens({…})" if isinstance(one, (Mapping, str)) else ""


def _unknown(credentials: Credentials) -> str:
    """Why no verifier has said anything."""
    shown = [str(value).lower() for value in credentials.metadata.get_all(AUTHORIZATION)]
    hint = "" if not shown or shown[0].startswith("bearer ") else f': {AUTHORIZATION} is not of the form "Bearer …"'
    return f"no credentials that a verifier knows{hint}"


def _awaited(found: Any) -> Generator[Any, Any, Identity | None]:
    """What a verifier gave, after any waiting."""
    found = (yield from found) if inspect.isgenerator(found) else (yield from wait(found))
    return _as_identity(found)


def _as_identity(found: Found) -> Identity | None:
    if found is None or isinstance(found, Identity):
        return found
    if isinstance(found, str):
        return Identity(found)
    raise TypeError(f"a verifier gives an Identity, a text or None, not {kind_of(found)}")
