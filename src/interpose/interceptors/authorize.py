"""No handler runs for a caller that may not call it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from interpose import context, errors
from interpose._call import Call
from interpose._executed import is_downstream, not_executed
from interpose._flow import Belongs, Flow, name_of, wait
from interpose._identity import Identity, is_scope
from interpose._kind import kind_of
from interpose._method import Method, Side
from interpose._patterns import EVERYTHING, faults_of
from interpose._served import Served
from interpose.interceptors.guarding import (
    HEALTH_AND_REFLECTION,
    SYNC,
    Table,
    blamed,
    is_async,
    is_over,
    listed,
    note,
    shown,
    unmatched,
)
from interpose.mechanisms.options import insist, is_function_or_none
from interpose.mechanisms.tally import Tally

CATCH_ALL = (*EVERYTHING, "/*", "*/*", "/*/*")

REFUSAL = "the caller may not call this method"  # all that a caller learns

Rule: TypeAlias = Callable[[Identity, Call], bool | Awaitable[bool]]


class Require:
    """A rule: callers that have all of these scopes. Made by `require`."""

    __slots__ = ("scopes",)

    def __init__(self, scopes: frozenset[str]) -> None:
        self.scopes = scopes

    def __call__(self, identity: Identity, call: Call) -> bool:
        return self.scopes <= identity.scopes

    def __repr__(self) -> str:
        return f"require({', '.join(map(repr, sorted(self.scopes)))})"


def require(*scopes: str) -> Require:
    """A rule for `Authorize`: callers that have all of these scopes, `require("orders.read")`.

    Without any it allows every caller that `Authenticate` knows. ValueError for a scope that is none.
    """
    insist(
        "require",
        *(
            (is_scope(scope), f"a scope must be a text without spaces, like 'orders.read', not {scope!r:.100}")
            for scope in scopes
        ),
    )
    return Require(frozenset(scopes))


def anyone(identity: Identity | None, call: Call) -> bool:
    """A rule for `Authorize`: everybody, callers without credentials too. Only this one allows callers without an identity."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizeState:
    """What an `Authorize` has decided so far, in calls.

    allowed, denied: as the policy says. faults: denied because a rule raised, or gave something else than True or False.
    """

    allowed: int
    denied: int
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedDetails:
    """What `on_deny` is given. subject: None for a caller that is not known. reason: for the log, never for the caller."""

    method: str
    subject: str | None
    reason: str
    fault: bool


class Authorize:
    """Deny calls that their caller may not make.

    A call is denied with PERMISSION_DENIED and one fixed text, before a message of a request stream is read, unless the
    rule for its method allows it. The reason goes to the log "interpose" (INFO), never to the caller. Put it inside of
    `Authenticate`: without an identity everything is denied, but for the rule `anyone`. Server.

    policy: one rule for every method, or a table from patterns of methods to rules:

            Authorize({"/shop.v1.Orders/{Get,List}*": require("orders.read"),
                       "/shop.v1.Orders/*": require("orders.write"),
                       "/shop.v1.Catalog/*": anyone})

        The first row that fits decides. A method that no row fits is denied. A rule is `require(…)`, `anyone`, or a
        function of the identity and the call, plain or async, that gives True or False. What else it gives, and what it
        raises, denies the call, is logged as an error, and is counted as a fault.
    public: patterns of the methods that need no rule; by default health and reflection, as for `Authenticate`. A row of
        the policy that names such a method decides all the same; one for everything, like "*", does not.
    on_deny: called with `DeniedDetails` after each denial; what it raises is logged.

    Rules and `on_deny` run where the RPC runs: on the thread of its handler, or in the event loop.

    ValueError listing every fault of these.
    """

    belongs: ClassVar = Belongs(Side.SERVER, "Authorize belongs on a server: give it to intercept_server")

    def __init__(
        self,
        policy: Rule | Mapping[str, Rule],
        *,
        public: str | Iterable[str] = HEALTH_AND_REFLECTION,
        on_deny: Callable[[DeniedDetails], object] | None = None,
    ) -> None:
        public = listed(public)
        insist(
            "Authorize",
            *_policy_requirements(policy),
            *((False, fault) for fault in faults_of(public, "public")),
            (is_function_or_none(on_deny), f"on_deny must be a function of DeniedDetails, not {on_deny!r}"),
        )
        self._policy = dict(policy) if isinstance(policy, Mapping) else {EVERYTHING[0]: policy}
        self._public = dict.fromkeys((public,) if isinstance(public, str) else public, anyone)
        self._table: Table[Rule] = Table(_in_order(self._policy, self._public))
        self._on_deny = on_deny
        self._tally = Tally("allowed", "denied", "faults")

    def __call__(self, call: Call) -> Flow:
        self.belongs.check(call)
        rule = self._table.get(call.method)
        if rule is not anyone:
            yield from self._judge(rule, context.identity(), call)
        self._tally.add("allowed")
        yield call

    def snapshot(self) -> AuthorizeState:
        """What it has decided so far."""
        tally = self._tally
        return AuthorizeState(allowed=tally["allowed"], denied=tally["denied"], faults=tally["faults"])

    def described(self, method: Method | None) -> str:
        """What it does to a method, or to all, for `describe`."""
        if method is None:
            rows = "; ".join(f"{row}: {_said(rule)}" for row, rule in {**self._public, **self._policy}.items())
            return f"Deny calls that their caller may not make. {rows}."
        rule = self._table.get(method)
        if rule is None:
            return "Deny this method to everybody: no row of the policy fits it."
        return f"Deny calls that their caller may not make. This method: {_said(rule)}."

    def unfit(self, asyncio: bool) -> str | None:
        """Why it cannot run on such a server; None if it can."""
        rows = [repr(row) for row, rule in self._policy.items() if is_async(rule)]
        return (
            None
            if asyncio or not rows
            else f"the rule of {', '.join(rows)} is async, and this is the sync side: {SYNC}"
        )

    def check_served(self, served: Served) -> Iterator[str]:
        """Faults that show when the methods of the server are known: rows that no method of it comes to."""
        rows = [row for row in self._policy if row not in CATCH_ALL]
        yield from unmatched("Authorize", "the row", rows, served)
        yield from unmatched("Authorize", "public", self._public.keys() - {*HEALTH_AND_REFLECTION}, served)

    # - the decision -

    def _judge(self, rule: Any, identity: Identity | None, call: Call) -> Generator[Any, Any, None]:
        """Go on if the rule allows the call; raises the denial if it does not."""
        if rule is None:
            raise self._denied(call, identity, "no row of the policy fits the method")
        if identity is None:
            raise self._denied(call, None, "the caller is not known; is Authenticate outside of Authorize?")
        try:
            verdict = rule(identity, call)
            if type(verdict) is not bool:
                verdict = yield from wait(verdict)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if is_over(error):
                raise
            if isinstance(error, errors.PermissionDenied) and not is_downstream(error):
                raise self._denied(call, identity, f"{_said(rule)}: {error.details()}") from None
            raise self._denied(call, identity, blamed(_said(rule), error), fault=True) from None
        if verdict is not True:
            fault = verdict is not False
            what = f"gave {kind_of(verdict)}, not True or False" if fault else "does not allow it"
            raise self._denied(call, identity, f"{_said(rule)} {what}", fault=fault)

    def _denied(
        self, call: Call, identity: Identity | None, reason: str, *, fault: bool = False
    ) -> errors.PermissionDenied:
        """Note a denial; gives what the caller gets."""
        self._tally.add("faults" if fault else "denied")
        method, subject = shown(call.method.full_name), None if identity is None else shown(identity.subject)
        reason = reason if fault else shown(reason)
        details = DeniedDetails(method=method, subject=subject, reason=reason, fault=fault)
        note(f"Authorize denied {method} to {subject}", details, self._on_deny)
        return errors.PermissionDenied(REFUSAL, trailing_metadata=not_executed(call), local=True)


def _in_order(policy: Mapping[str, Rule], public: Mapping[str, Rule]) -> dict[str, Rule]:
    """All rows as they decide. What is public comes before the first row for everything: one that names it holds."""
    first = next((place for place, row in enumerate(policy) if row in CATCH_ALL), len(policy))
    rows = list(policy.items())
    return dict([*rows[:first], *((row, rule) for row, rule in public.items() if row not in policy), *rows[first:]])


def _policy_requirements(policy: object) -> Iterator[tuple[bool, str]]:
    if not isinstance(policy, Mapping):
        yield from _rule_requirements("policy", policy)
        return
    yield bool(policy), "policy must have at least one row, like {'/shop.v1.Orders/*': require('orders.read')}"
    for row, rule in policy.items():
        yield from ((False, fault) for fault in faults_of(row, "the row"))
        yield from _rule_requirements(f"the rule of {row!r}", rule)


def _rule_requirements(field: str, rule: object) -> Iterator[tuple[bool, str]]:
    if isinstance(rule, str):
        yield False, f"{field} must be a rule: write require({rule!r}), not {rule!r}"
        return
    plain = callable(rule) and not isinstance(rule, type) and rule is not require
    yield plain, f"{field} must be require(…), anyone or a function of the identity and the call, not {rule!r:.100}"


def _said(rule: Any) -> str:
    return repr(rule) if isinstance(rule, Require) else name_of(rule)
