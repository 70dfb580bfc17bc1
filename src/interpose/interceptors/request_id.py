"""One id for a request wherever it goes: from the caller to the handler, and on to what the handler calls."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable

from interpose._call import Call
from interpose._flow import Flow
from interpose._metadata import Metadata
from interpose._method import CLIENT, SERVER, Side
from interpose.context import request_id, set_request_id
from interpose.mechanisms.options import insist, is_flag

HEADER = "x-request-id"

# What uuids, ULIDs, trace ids, base64 and "host:pid" are made of. Nothing that a log, a shell or a query would read.
WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/=:@\-]{1,128}")


def fresh_id() -> str:
    """128 random bits as 32 hexadecimal digits; eight times as fast as a UUID."""
    return random.getrandbits(128).to_bytes(16, "big").hex()


class RequestId:
    """Give every RPC an id: in `interpose.request_id()`, in the log, and in the metadata of what it calls.

    On a server: the id that the client sent, if it is well-formed, else a fresh one. The handler finds exactly one in
    its metadata. On a client: the id that the application put into the metadata, else that of the incoming RPC whose
    handler makes this call, else a fresh one. Exactly one is sent.

    An id is well-formed if it has 1 to 128 characters out of A-Z a-z 0-9 . _ ~ + / = : @ -

    header: the metadata key that carries it.
    trust:  accept ids of clients (server). False at the edge, where unknown clients call.
    make:   gives a fresh id; the RPC fails with INTERNAL if metadata cannot carry what it gives.
    echo:   send the id back in the trailing metadata (server), so that a caller can quote it.

    `make` runs where the RPC begins: on its thread, or in its event loop. What it raises ends the RPC with INTERNAL.
    By default it gives 128 random bits, as many as a UUID or a trace id has.

    ValueError listing every fault of these.
    """

    def __init__(
        self, header: str = HEADER, *, trust: bool = True, make: Callable[[], str] = fresh_id, echo: bool = False
    ) -> None:
        insist(
            "RequestId",
            (_carries_text(header), f"header must be a metadata key for text, like {HEADER!r}, not {header!r}"),
            (is_flag(trust), f"trust must be True or False, not {trust!r}"),
            (callable(make), f"make must be a function that gives an id, not {make!r}"),
            (is_flag(echo), f"echo must be True or False, not {echo!r}"),
        )
        self._header = header.lower()
        self._trust = trust
        self._make = make
        self._fresh = fresh_id if make is fresh_id else self._made
        self._echo = echo

    def __call__(self, call: Call) -> Flow:
        there = call.metadata
        found = there.get_all(self._header) if there else []
        request_id = self._accepted(call._side, found) or self._fresh()
        if found != [request_id]:
            others = there.without(self._header) if found else there
            # Not by `with_metadata`, which would check again what is known to be well-formed.
            call = call._copy("_metadata", others._plus(self._header, request_id))
        set_request_id(request_id)
        outcome = yield call
        if self._echo and call._side is SERVER and not outcome.trailing_metadata.get_all(self._header):
            return outcome.with_trailing_metadata((self._header, request_id))
        return None

    def _accepted(self, side: Side, found: list[str | bytes]) -> str | None:
        """The id that is there already, or None."""
        if side is SERVER and not self._trust:
            return None
        for value in found:
            if isinstance(value, str) and WELL_FORMED.fullmatch(value):
                return value
        known = request_id() if side is CLIENT else None
        return known if known is not None and WELL_FORMED.fullmatch(known) else None

    def _made(self) -> str:
        """An id of the application's, which metadata can carry; ValueError if it made one that they cannot."""
        [(_, request_id)] = Metadata([(self._header, self._make())])
        return str(request_id)


class RequestIdFilter(logging.Filter):
    """Put `request_id` on every record that is made while a request is handled, for `%(request_id)s` and JSON.

    Give it to handlers, `handler.addFilter(RequestIdFilter())`: a filter of a logger does not see the records of the
    loggers below it. A record that has a `request_id` keeps it. All records pass.

    default: what a record has that is made outside of any request.

    ValueError for a default that is no text.
    """

    def __init__(self, default: str = "-") -> None:
        insist("RequestIdFilter", (isinstance(default, str), f"default must be text, like '-', not {default!r}"))
        super().__init__()
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, with an id."""
        record.__dict__.setdefault("request_id", request_id() or self._default)
        return True


def _carries_text(header: str) -> bool:
    try:
        Metadata([(header, "id")])
    except ValueError:
        return False
    return True
