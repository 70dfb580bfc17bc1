"""Serializers and deserializers: what was encoded already, and failures in a form that grpc can handle."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType
from typing import Any, NoReturn
from weakref import WeakSet

from interpose import errors
from interpose._details import can_be_details
from interpose._kind import kind_of
from interpose._messages import Pass

_log = logging.getLogger("interpose")


class Encoded:
    """A request message that was serialized already: it is kept to be sent again, or grpc would hide a failure."""

    __slots__ = ("data", "message")

    # Set by `encoded`, without the frame of a constructor: each message of an asyncio upload comes there.
    data: bytes
    message: Any


def encoder(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """A serializer that takes what was encoded before as it is."""

    def encode(message: Any) -> bytes:
        if type(message) is Encoded:
            return message.data
        return message if serialize is None else serialize(message)

    return encode


def encoded(message: Any, encode: Callable[[Any], bytes]) -> Encoded:
    """The message, serialized to be kept."""
    made = Encoded()
    made.message, made.data = message, bytes_of(message, encode)
    return made


def bytes_of(message: Any, encode: Callable[[Any], bytes]) -> bytes:
    """The message, serialized; what the serializer raises becomes INTERNAL, in grpc's words."""
    try:
        data = encode(message)
    except BaseException as error:
        raise errors.Internal("Exception serializing request!", local=True) from error
    if not isinstance(data, bytes):  # grpc.aio would end the call without a word, or not at all
        raise errors.Internal(f"the serializer gave {kind_of(data)}, not bytes", local=True)
    return data


def plain(request: Any) -> Any:
    """The message itself, of one that may have been serialized."""
    return request.message if type(request) is Encoded else request


# --- (de)serializers that fail ----------------------------------------------------------------------------------------


def guarded(convert: Pass | None) -> Pass | None:
    """A (de)serializer that fails in a form that grpc can handle: with an Exception whose text can be had.

    Anything else ends a thread of grpc's, and with it a channel or a server, or leaves the peer without a status.
    """
    if convert is None or isinstance(convert, _NATIVE) or made_here(convert, _guarded):
        return convert

    @functools.wraps(convert)
    def converted(message: Any) -> Any:
        try:
            return convert(message)
        except BaseException as error:
            if can_be_details(error):
                raise
            _log.exception(
                "a serializer or deserializer raised what grpc cannot handle; raising a RuntimeError instead"
            )
            raise RuntimeError(f"it raised {type(error).__name__}") from None

    _guarded.add(converted)
    return converted


# What was made here already, so that a server with several layers of ours has one around each message.
_guarded: WeakSet[Pass] = WeakSet()
_decoders: WeakSet[Pass] = WeakSet()
_telling: WeakSet[Pass] = WeakSet()


def made_here(convert: Pass, made: WeakSet[Pass]) -> bool:
    """Is it one of these?"""
    return isinstance(convert, FunctionType) and convert in made


_NATIVE = (BuiltinFunctionType, MethodDescriptorType)  # protobuf's own, in C: they raise nothing odd


class Undecodable:
    """In the place of a message that the deserializer failed on, where grpc would make something else of the failure."""

    __slots__ = ("cause",)

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause

    def fail(self, what: str) -> NoReturn:
        """Raise INTERNAL, in sync grpc's words; what: "request" or "response"."""
        raise errors.Internal(f"Exception deserializing {what}!", local=True) from self.cause


def decoder(deserialize: Pass | None) -> Pass | None:
    """A deserializer that gives an `Undecodable` instead of raising."""
    if deserialize is None or made_here(deserialize, _decoders):
        return deserialize

    @functools.wraps(deserialize)
    def decoded(data: Any) -> Any:
        try:
            return deserialize(data)
        except BaseException as error:
            return Undecodable(error)

    _guarded.add(decoded)
    _decoders.add(decoded)
    return decoded


def telling(serialize: Pass | None, note: Callable[[], object]) -> Pass | None:
    """The serializer of a response stream, which notes that it failed: grpc only drops the handler's generator."""
    if serialize is None or made_here(serialize, _telling):
        return serialize

    @functools.wraps(serialize)
    def serialized(message: Any) -> Any:
        try:
            return serialize(message)
        except BaseException as error:
            # As text: code that keeps the error keeps its traceback, and by it the generator, which has to be dropped. So
            # does an error that is in a variable of the function that raised it.
            _log.error("Exception serializing message!\n%s", traceback.format_exc())
            traceback.clear_frames(error.__traceback__)
            note()
            return None  # which sync grpc takes for a failure

    _telling.add(serialized)
    return serialized


class EncodedAhead:
    """The serializer of a plain handler's response stream, which is tried before grpc is given the message.

    A failure is ours to answer then, and the thread that makes the messages is free (it stood still with grpcio 1.85.1).
    """

    def __init__(self, serialize: Callable[[Any], bytes] | None) -> None:
        self._serialize = serialize
        self._data: dict[int, Encoded] = {}  # of the messages on their way, by identity

    def check(self, message: Any) -> None:
        """Serialize a message that comes next; raises INTERNAL if that fails."""
        if self._serialize is not None:
            self._data[id(message)] = encoded(message, self._serialize)

    def __call__(self, message: Any) -> bytes:
        ahead = self._data.pop(id(message), None)
        if ahead is not None:
            return ahead.data
        return message if self._serialize is None else self._serialize(message)
