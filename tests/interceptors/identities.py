"""What the tests of guards share: callers that are known, and handlers that say who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from interpose import Call, Flow, Interceptor, Outcome, Side, chain, context
from interpose.interceptors import Identity
from interpose.testing import ok, play
from tests.facts.serving import KINDS


def subject() -> str:
    """Who makes the call that is handled here."""
    identity = context.identity()
    return "nobody" if identity is None else identity.subject


def known(sort: str) -> dict[str, Any]:
    """Handlers for every kind of RPC that answer with the subject."""

    def unary(_: Any, native: Any) -> str:
        return subject()

    def stream(_: Any, native: Any) -> Iterator[str]:
        yield subject()
        yield subject()

    async def unary_later(_: Any, native: Any) -> str:
        return subject()

    async def stream_later(_: Any, native: Any) -> AsyncIterator[str]:
        yield subject()
        yield subject()

    plain, later = (unary, stream), (unary_later, stream_later)
    return {kind: (later if sort == "async" else plain)[kind.endswith("stream")] for kind in KINDS}


def served_by(interceptor: Interceptor, *, identity: Identity | None, refused: bool = False, **options: Any) -> Outcome:
    """How an incoming call of this caller ends, by hand. refused: insist that no handler is called."""

    def identified(call: Call) -> Flow:
        context.set_identity(identity)
        yield call

    options = {"side": Side.SERVER, "method": "/shop.v1.Orders/Place", **options}
    script = [] if refused else [ok(), ...]
    return play(chain(identified, interceptor), script, **options).outcome
