"""What grpc's own texts mean: the one table of them, each with the versions on which it was seen.

grpc says what became of a call by a status code, and in most cases the code is all that counts. A few times only the text
beside it says whether the call can have been executed, or whether it ever left. `tests/test_wording.py` makes each row of
the table happen on a wire, with the newest grpcio and with the oldest that we support.

A text alone proves little: a server that passes the status of another server on sends the same text. So a row is
believed only of a status that this side made, as far as grpc shows that; see `sent_by_peer` and `Target.cannot_connect`.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from grpc import StatusCode


class Meaning(enum.Enum):
    """What became of a call, as its text has it."""

    UNCONNECTED = "no connection came about"
    REFUSED = "the server did not look at the stream"
    SAID_REFUSED = "the stream is said to be refused, which a proxy says of calls that were executed as well"
    FROM_PROXY = "an HTTP status that no gRPC server sent: a proxy answered, which may have called the server"
    NO_CREDENTIALS = "a credentials plugin failed on this side, and nothing was sent"
    TOO_LARGE = "a message is over a limit, and always will be"
    CUT_OFF = "the connection or the server ended under the call, which may have been executed"
    WITHOUT_STATUS = "the response ended without a status, which no gRPC server does: a proxy answered"


class Wording(NamedTuple):
    """A row of the table: where `text` is found in the details beside `code`, this is the meaning."""

    meaning: Meaning
    code: StatusCode
    text: str  # a regular expression; case does not count
    seen: str  # on which versions of grpcio; tests hold the oldest and the newest


# From 1.79 at the earliest, grpc puts what ended a stream into "Stream removed (…)".
_REMOVED = r"^(Stream removed \()?"

TABLE = (
    Wording(Meaning.UNCONNECTED, StatusCode.UNAVAILABLE, "^failed to connect to all addresses", "1.66.2 to 1.85.3"),
    Wording(Meaning.UNCONNECTED, StatusCode.UNAVAILABLE, "^connections to all backends failing", "1.66.2 to 1.85.3"),
    Wording(Meaning.UNCONNECTED, StatusCode.UNAVAILABLE, "^DNS resolution failed for ", "1.66.2 to 1.78.0"),
    Wording(Meaning.UNCONNECTED, StatusCode.UNAVAILABLE, "^errors resolving ", "1.85.3"),
    # A GOAWAY that left the stream out (RFC 9113, 6.8). A connection that broke after one had come, with the call under
    # way, reads "Stream removed (Socket closed (GOAWAY received; …))": it proves nothing. Where the connection breaks at once,
    # a call that was left out may read so too, seldom.
    Wording(Meaning.REFUSED, StatusCode.UNAVAILABLE, _REMOVED + "GOAWAY received;", "1.66.2 to 1.85.3"),
    # REFUSED_STREAM (RFC 9113, 7) would be a promise. But haproxy (seen: 2.6.12) says it to its clients whenever the
    # connection to a server breaks before the response, whatever that server has done: haproxy/haproxy#3414.
    Wording(
        Meaning.SAID_REFUSED,
        StatusCode.UNAVAILABLE,
        _REMOVED + r"(RST_STREAM \()?Received RST_STREAM with error code 7\)*$",
        "1.66.2 to 1.85.3",
    ),
    # 429, 502, 503 and 504 (gRPC's http-grpc-status-mapping.md).
    Wording(Meaning.FROM_PROXY, StatusCode.UNAVAILABLE, "^Received http2 header with status: ", "1.66.2 to 1.85.3"),
    # The same page of a proxy, if the core came to its end before it looked at its HTTP status. Behind a 502 with a body that
    # was 2 of 10 asyncio calls with a response stream, 6 of 1,000 sync ones, and no call with one response.
    Wording(
        Meaning.WITHOUT_STATUS,
        StatusCode.UNKNOWN,
        r"^Stream removed( \(Data frame with END_STREAM flag received\))?$",
        "1.66.2 to 1.85.3",
    ),
    Wording(
        Meaning.NO_CREDENTIALS,
        StatusCode.UNAVAILABLE,
        "^Getting metadata from plugin failed with error",
        "1.66.2 to 1.85.3",
    ),
    # It gave pairs that cannot be sent.
    Wording(Meaning.NO_CREDENTIALS, StatusCode.UNAVAILABLE, "^Illegal metadata$", "1.66.2 to 1.85.3"),
    Wording(
        Meaning.TOO_LARGE,
        StatusCode.RESOURCE_EXHAUSTED,
        _REMOVED + "(CLIENT|SERVER): (Sent|Received) message larger than max",
        "1.66.2 to 1.85.3",
    ),
    # Of calls that ended so, 16 to 35 in 100 had been executed, when servers were killed and connections reset
    # (tests/storm). "Cancelling all calls" is what `server.stop` says to handlers that run.
    Wording(
        Meaning.CUT_OFF,
        StatusCode.UNAVAILABLE,
        "Stream removed|Socket closed|recvmsg|sendmsg|reset by peer|broken pipe|keepalive|ping timeout|RST_STREAM"
        "|Cancelling all calls",
        "1.66.2 to 1.85.3",
    ),
)

_COMPILED = tuple((row, re.compile(row.text, re.IGNORECASE)) for row in TABLE)
_CODES = {row.code for row in TABLE}


def meaning_of(code: StatusCode, details: str) -> Meaning | None:
    """What a status means by its text, if somebody on this side wrote it; None for all other texts."""
    if code not in _CODES:
        return None
    return next((row.meaning for row, text in _COMPILED if row.code is code and text.search(details)), None)


# What would say to a client that the call was not executed, if this side had written it.
EXONERATING = frozenset({Meaning.UNCONNECTED, Meaning.REFUSED, Meaning.NO_CREDENTIALS})

# What a client may take so, by convention or in an older version.
MISLEADING = EXONERATING | {Meaning.SAID_REFUSED}

# Not even by convention: the call may have been under way.
INCRIMINATING = frozenset({Meaning.CUT_OFF, Meaning.FROM_PROXY})

# "UNKNOWN:Error received from peer ipv4:127.0.0.1:50051 {grpc_message:…". Of a status that the core made itself the same
# text has no address. Seen on 1.66.2 to 1.78.0; 1.85.3 no longer says which side made a status.
_PEER = re.compile(r"Error received from peer [^ {]")


def sent_by_peer(debug_error_string: str) -> bool:
    """Does the core say that a server sent this status? False proves nothing: newer versions never say it.

    True is no proof either: of asyncio's stream_unary calls it says so of what the transport made as well.
    """
    return _PEER.search(debug_error_string) is not None


# Here the peer is named, though it is not to blame.
_ON_ARRIVAL = re.compile(_REMOVED + "CLIENT: Received", re.IGNORECASE)


def made_here(code: StatusCode, details: str, debug_error_string: str) -> bool:
    """Is it a failure of this side that the core describes like a server's: of credentials, or of a limit on sizes?"""
    meaning = meaning_of(code, details)
    if meaning is Meaning.TOO_LARGE and "SERVER:" not in details:
        return _ON_ARRIVAL.search(details) is not None or not sent_by_peer(debug_error_string)
    return meaning is Meaning.NO_CREDENTIALS and not sent_by_peer(debug_error_string)
