"""What is sent at the end of an RPC on a server, as a value: both shells carry it out."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import grpc

from interpose import errors
from interpose._details import MAX_DETAILS, MAX_STATUS, can_be_details, described, field_size, sendable
from interpose._executed import vouched
from interpose._metadata import Metadata, Pair
from interpose._outcome import Outcome

_log = logging.getLogger("interpose")


class Closing(NamedTuple):
    """What is to be sent. Where there is an error it is to be raised: grpc logs it, and answers with its text."""

    ok: bool
    response: Any = None
    code: grpc.StatusCode | None = None  # None: as grpc has it, OK for a response and UNKNOWN for an exception
    details: str = ""
    error: BaseException | None = None
    trailing: Metadata = Metadata()
    initial: Metadata = Metadata()  # in front of the response, if nothing was sent there


def closing(outcome: Outcome, initial: Metadata, of_the_task: tuple[type[BaseException], ...] = ()) -> Closing:
    """How an RPC with this outcome is closed.

    of_the_task: exceptions that mean something else to the task that the handler runs in; not raised with a status.
    """
    details = sendable(outcome.details) if outcome.details else ""
    if outcome.ok:
        return Closing(True, outcome.response, None, details, None, outcome.trailing_metadata, initial)
    trailing, error, code = trailers(outcome), unexpected(outcome), outcome.code
    chosen = None if code is grpc.StatusCode.UNKNOWN else code
    if isinstance(error, of_the_task) and chosen is not None:
        error = None
    if error is not None and can_be_details(error):
        return Closing(False, None, chosen, details, error, trailing, initial)
    if error is not None:
        _log.error("a handler raised what grpc cannot answer", exc_info=error)
        details = details or sendable(described(error))
    return Closing(False, None, code, details, None, trailing, initial)


def unexpected(outcome: Outcome) -> BaseException | None:
    """The handler's own exception, if no flow made a status of it: grpc logs and answers it as it always does."""
    error = outcome.error
    return None if error is None or isinstance(error, errors.StatusError) else error


def trailers(outcome: Outcome) -> Metadata:
    """Trailing metadata that reaches the client, with a failure's status: what is too much is left out, largest first.

    So is what the wire refuses, of an error that came from another server; of several packed statuses the last is kept.
    An answer keeps what it has: a client may be set to take more, and one that is not gets a status that says so.
    """
    trailing = outcome.trailing_metadata if outcome.ok else vouched(outcome)
    if not trailing or outcome.ok:
        return trailing
    details, said = outcome.details, sendable(outcome.details)
    # Where grpc answers an exception, its text is the details.
    room = MAX_STATUS - (MAX_DETAILS if unexpected(outcome) else field_size("grpc-message", said))
    pairs: list[Pair] = list(trailing)
    statuses = [place for place, (key, _) in enumerate(pairs) if key == errors.RICH_KEY]
    as_it_is = not statuses or (len(statuses) == 1 and said == details)
    if as_it_is and sum(field_size(*pair) for pair in pairs) <= room and all(map(_travels, pairs)):
        return trailing
    kept: dict[int, Pair] = {}
    for place, pair in sorted(enumerate(pairs), key=lambda placed: field_size(*placed[1])):
        fits = pair if place not in statuses else _fitted(pair, details, room) if place == statuses[-1] else None
        if fits is not None and field_size(*fits) <= room and _travels(fits):
            kept[place] = fits
            room -= field_size(*fits)
    left_out = {key for place, (key, _) in enumerate(pairs) if place not in {*kept, *statuses[:-1]}}
    if left_out:
        _log.error("trailing metadata is left out, or the client would not see the status: %r", sorted(left_out))
    return Metadata.trusted(kept[place] for place in sorted(kept))


def _travels(pair: Pair) -> bool:
    """Does the wire take it?"""
    try:
        Metadata((pair,))
    except ValueError:
        return False
    return True


def _fitted(packed: Pair, details: str, room: int) -> Pair | None:
    """Packed error details, as many as there is room for; None without any."""
    key, status = packed
    try:
        status = errors._rich().fitted(status, details, (room - field_size(key, b"")) // 4 * 3)
    except ImportError:  # packed by hand: it cannot be opened here
        return packed
    return None if status is None else (key, status)
