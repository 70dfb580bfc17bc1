"""This program's own token on every call that it makes, fresh, and never on a wire that others can read."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import grpc
from grpc import StatusCode

from interpose import errors
from interpose._background import Background
from interpose._call import Call
from interpose._clock import FOREVER, Clock
from interpose._flow import Belongs, Flow, wait
from interpose._identity import AUTHORIZATION, is_token
from interpose._kind import kind_of
from interpose._method import Side, Target
from interpose._outcome import Outcome
from interpose.interceptors.guarding import is_async
from interpose.interceptors.repeating import SAFE, Declared, is_safe, was_not_executed
from interpose.mechanisms.addresses import is_local
from interpose.mechanisms.options import check_options, hook, insist, is_flag, is_number, must_be, option, ruled
from interpose.mechanisms.tally import Tally

REFRESH_BEFORE = 30.0  # seconds; more than an RPC takes and a token endpoint may hang
PAUSE = 1.0  # seconds after a failure in which the provider is not asked again
REFUSED_PAUSE = (
    10.0  # seconds after a token was renewed since the last one was refused, in which that is not done again
)

INSECURE = (
    "BearerToken sends no token over an insecure channel: use grpc.secure_channel, or insecure='local' for unix sockets and "
    "loopback, or insecure=True where the network itself is private"
)

_log = logging.getLogger("interpose")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that lasts: `Token(text, expires_in=3600)`. Its text is never shown.

    text: what the server is to be sent. expires_in: seconds that it is good for; None: until a server refuses it.

    ValueError for a text that is no token, or a time that is none.
    """

    text: str
    expires_in: float | None = None

    def __post_init__(self) -> None:
        seconds = self.expires_in
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        insist(
            "Token",
            (is_token(self.text), "text must be a text of letters, digits and -._~+/ only"),
            (
                seconds is None or (number and 0 < seconds <= FOREVER),
                f"expires_in must be a number of seconds above 0, or None, not {seconds if number else kind_of(seconds)}",
            ),
        )

    def __repr__(self) -> str:
        return f"Token(…, expires_in={self.expires_in})"


Given: TypeAlias = Token | str
Provider: TypeAlias = Callable[[], Given | Awaitable[Given]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerTokenState:
    """What a `BearerToken` holds, and has done so far.

    expires_in: seconds that the token is still good for; None without one, infinite for one that does not say.
    fetched, failures: how often the provider gave a token, or failed. refused: tokens that a server refused.
    resent: calls that were sent again with a newer token.
    """

    expires_in: float | None
    fetched: int
    failures: int
    refused: int
    resent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshDetails:
    """What `on_refresh` is given. expires_in: of the new token, in seconds. error: what the provider failed with instead."""

    expires_in: float | None
    error: BaseException | None


class _Held(NamedTuple):
    """The token that is sent now, by the clock: when to fetch the next one, and when this one is of no use."""

    header: str
    renew: float
    until: float
    clock: Clock

    def __repr__(self) -> str:
        return f"<token, until {self.until}>"  # never what it is


# - what holds of its options -


def _provider_faults(name: str, provider: object) -> Iterable[str]:
    # Not with what it is: that may be the token.
    return () if callable(provider) else (f"{name} must be a function that gives a Token, not the token itself",)


def _is_before(value: object) -> bool:
    return is_number(value) and 0 <= value < FOREVER


def _is_insecure(value: object) -> bool:
    return is_flag(value) or value == "local"


@dataclass(eq=False, repr=False)
class BearerToken:
    """Send a token with every call, as `authorization: Bearer …`. Client.

    The provider is asked when the first call needs a token, and again before it expires; one time for all calls that
    wait for it. While a token is good no call waits. If the provider fails, the calls that have no good token end with
    UNAVAILABLE. A call that has `authorization` in its metadata is left as it is. Put it inside of `Retry` and `Hedge`.

    A call that the server refuses with UNAUTHENTICATED is sent once more with a newer token, if that is safe. Nothing
    of it may have been answered, and its requests must still be there (see `call.buffered`). It must be safe to
    execute twice, or the server says that it was not executed, as `Authenticate` does. A handler may pass on such a
    status from another server, after it has done its work. Other calls fail, and only the next ones have the newer
    token.

    **Insecure channels.** The token is not sent over a channel that is not encrypted: such a call ends with
    UNAUTHENTICATED, `error.local`. gRPC itself decides. The first call of each channel hands it the token as call
    credentials, which it refuses on insecure channels. Once it has taken them, tokens travel as metadata, which costs
    less.

    provider:       gives a `Token`, or a text that is good until it is refused. A plain function runs in a thread of its
        own, and may block. An `async def` function runs in a task, on asyncio channels only. Neither belongs to an RPC.
    refresh_before: seconds before it expires in which the next token is fetched; of a short-lived one half of its time.
    insecure:       False; "local": also send it over insecure channels to unix sockets and loopback addresses, where
        everybody who can read it is on this machine; True: over any channel.
    safe:           True, or a function of the call: it may be executed twice. None: as its proto says.
    on_refresh:     called with `RefreshDetails` when the provider has given a token, or failed, on the thread or in the task
        of the provider; what it raises is logged.

    `safe` runs where the RPC runs; what it raises ends the call with its failure.
    Defaults: refresh_before 30 s, which is more than a call takes and than a token endpoint may hang.

    ValueError listing every fault of these.
    """

    belongs: ClassVar = Belongs(Side.CLIENT, "BearerToken belongs on a channel: a server takes Authenticate")

    provider: Provider = field(metadata=ruled(_provider_faults))
    _: KW_ONLY
    refresh_before: float = option(REFRESH_BEFORE, must_be("a number of seconds, 0 or more", _is_before))
    insecure: bool | Literal["local"] = option(False, must_be("False, 'local' or True", _is_insecure))
    safe: Declared = option(None, SAFE)
    on_refresh: Callable[[RefreshDetails], object] | None = option(None, hook("RefreshDetails"))

    def __post_init__(self) -> None:
        check_options(self)
        self._provider: Callable[[], Any] = self.provider
        self._is_async = is_async(self.provider)
        self._held: _Held | None = None
        self._failure: tuple[float, BaseException] | None = None  # until when the provider is left alone, and why
        self._renewed_at = -math.inf  # when a refused token was last replaced
        self._background: Background[None] = Background("interpose-token")
        self._tally = Tally("fetched", "failures", "refused", "resent")

    def __call__(self, call: Call) -> Flow:
        self.belongs.check(call)
        if AUTHORIZATION in call.metadata:
            yield call
            return None
        held = yield from self._good(call)
        outcome = yield from self._sent(call, held)
        if outcome.code is not StatusCode.UNAUTHENTICATED or outcome.local or not self._may_renew(call, held):
            return None
        if not self._can_bear_another(call, outcome):
            return None
        try:
            newer = yield from self._good(call)
        except errors.StatusError:  # the log has why
            return None
        if newer.header == held.header:
            return None
        self._tally.add("resent")
        yield from self._sent(call, newer)

    def unfit(self, asyncio: bool) -> str | None:
        """Why it cannot run on such a channel; None if it can."""
        if asyncio or not self._is_async:
            return None
        return "its provider is async, and this is the sync side: give a plain function"

    def snapshot(self) -> BearerTokenState:
        """What it holds, and has done so far."""
        held, tally = self._held, self._tally
        return BearerTokenState(
            expires_in=None if held is None else max(held.until - held.clock.now(), 0.0),
            fetched=tally["fetched"],
            failures=tally["failures"],
            refused=tally["refused"],
            resent=tally["resent"],
        )

    # - a call with a token -

    def _sent(self, call: Call, held: _Held) -> Flow:
        """Send the call with this token, where no other party can read it; gives its outcome."""
        target = call.method.target
        if self.insecure is True or (target is not None and (target.private or self._is_local(target))):
            return (yield call.with_metadata((AUTHORIZATION, held.header)))
        proof = _Proof(held.header, target)
        ours = grpc.metadata_call_credentials(proof)
        both = ours if call.credentials is None else grpc.composite_call_credentials(call.credentials, ours)
        outcome = yield call.with_credentials(both)
        refused = outcome.code is StatusCode.UNAUTHENTICATED or isinstance(outcome.error, grpc.aio.UsageError)
        if refused and not proof.asked:
            raise errors.Unauthenticated(INSECURE, local=True)
        return outcome

    def _is_local(self, target: Target) -> bool:
        return self.insecure == "local" and is_local(str(target))

    def _may_renew(self, call: Call, held: _Held) -> bool:
        """A server has refused this token: is there a newer one, or may one be fetched?"""
        self._tally.add("refused")
        if self._held is not held:
            return True
        now = call.clock.now()
        if now < self._renewed_at + REFUSED_PAUSE:  # the newest one is refused as well: it is not the token's age
            return False
        self._renewed_at, self._held = now, None
        return True

    def _can_bear_another(self, call: Call, outcome: Outcome) -> bool:
        """May the call be sent again after this?"""
        return outcome.replayable and (
            is_safe(self.safe, call) or was_not_executed(call, outcome, outcome.attempts - 1)
        )

    # - the token -

    def _good(self, call: Call) -> Generator[Any, Any, _Held]:
        """A token that is good now. Waits if there is none, and otherwise fetches the next one if it is time to."""
        while True:
            held, now = self._held, call.clock.now()
            if held is not None and now < held.renew:
                return held
            if self in _fetching.get():
                raise errors.Internal(
                    "the provider of a BearerToken makes a call through that BearerToken: give it a channel without one",
                    local=True,
                )
            if self._failure is not None and now < self._failure[0]:
                if held is not None and now < held.until:
                    return held
                raise self._unavailable()
            try:
                fetch = self._start(held, call.clock)
            except RuntimeError as error:  # no thread to be had
                self._fail(error, call.clock)
                continue
            if held is not None and now < held.until:
                return held
            yield from wait(fetch, deadline=self._until(call))

    def _until(self, call: Call) -> float | None:
        """How long a call waits for a token: as long as its attempt may take."""
        return None if call.timeout is None else call.clock.now() + call.timeout

    def _unavailable(self) -> errors.Unavailable:
        error = errors.Unavailable("BearerToken has no token: its provider failed, see the log", local=True)
        error.__cause__ = self._failure[1] if self._failure is not None else None
        return error

    def _start(self, seen: _Held | None, clock: Clock) -> Future[None]:
        """Ask the provider beside the RPC; once, however many calls come meanwhile."""
        if self._is_async:
            return self._background.start_task(partial(self._fetch_later, seen, clock))
        return self._background.start(partial(self._fetch, seen, clock))

    def _fetch(self, seen: _Held | None, clock: Clock) -> None:
        """Ask a plain provider, in a thread of its own. Never raises."""
        if self._is_settled(seen, clock):
            return
        before = _fetching.get()
        _fetching.set((*before, self))
        try:
            given: Any = self._provider()
        except BaseException as error:
            given = error
        finally:
            _fetching.set(before)
        self._settle(given, clock)

    async def _fetch_later(self, seen: _Held | None, clock: Clock) -> None:
        """Ask an async provider, in a task of its own."""
        if self._is_settled(seen, clock):
            return
        _fetching.set((*_fetching.get(), self))
        try:
            given: Any = await self._provider()
        except Exception as error:
            given = error
        self._settle(given, clock)

    def _is_settled(self, seen: _Held | None, clock: Clock) -> bool:
        """Has another piece of work, which has just ended, given what a call wanted that had looked before?"""
        return self._held is not seen or (self._failure is not None and clock.now() < self._failure[0])

    def _settle(self, given: Any, clock: Clock) -> None:
        """The provider has given this, or failed with it."""
        if not isinstance(given, BaseException):
            try:
                self._take(given, clock)
                return
            except Exception as error:
                given = error
        self._fail(given, clock)

    def _take(self, given: Any, clock: Clock) -> None:
        """A new token."""
        if hasattr(given, "__await__"):
            raise TypeError("a provider that gives an awaitable must be an `async def` function")
        token = Token(given) if isinstance(given, str) else given
        if not isinstance(token, Token):
            raise TypeError(f"a provider gives a Token or a text, not {kind_of(token)}")
        now, lasts = clock.now(), math.inf if token.expires_in is None else token.expires_in
        renew = now + lasts - min(self.refresh_before, lasts / 2)
        self._held = _Held(f"Bearer {token.text}", renew, now + lasts, clock)
        self._failure = None
        self._tally.add("fetched")
        self._tell(RefreshDetails(expires_in=lasts, error=None))

    def _fail(self, error: BaseException, clock: Clock) -> None:
        self._failure = (clock.now() + PAUSE, error)
        self._tally.add("failures")
        _log.warning("BearerToken: its provider raised %s", type(error).__name__)  # its text may hold a secret
        self._tell(RefreshDetails(expires_in=None, error=error))

    def _tell(self, details: RefreshDetails) -> None:
        if self.on_refresh is not None:
            try:
                self.on_refresh(details)
            except Exception:
                _log.exception("on_refresh failed; the token is used all the same")


class _Proof(grpc.AuthMetadataPlugin):
    """The token as call credentials. That gRPC asks for it shows that the channel is private."""

    def __init__(self, header: str, target: Target | None) -> None:
        self._header = header
        self._target = target
        self.asked = False

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        self.asked = True
        # Not for a channel that does not say where it goes, which may be several; nor for xDS, where each server may have
        # other credentials.
        if self._target is not None and str(self._target) and not str(self._target).startswith("xds:"):
            self._target.private = True
        callback(((AUTHORIZATION, self._header),), None)


# The BearerTokens whose provider runs here: one that calls through its own BearerToken would wait for itself.
_fetching: ContextVar[tuple[BearerToken, ...]] = ContextVar("interpose.fetching", default=())
