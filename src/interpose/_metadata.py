"""Metadata: the pairs that travel beside the messages of an RPC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, TypeAlias, overload

from interpose._kind import kind_of

Pair: TypeAlias = tuple[str, str | bytes]


class Metadatum(NamedTuple):
    """A key and its value, named as in grpc's own pairs: handlers and native interceptors read `.key` and `.value`."""

    key: str
    value: str | bytes


# Names and values as the gRPC wire protocol allows them (PROTOCOL-HTTP2.md, "Custom-Metadata").
_KEY = re.compile(r"[0-9a-z_.\-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


class Metadata(tuple[Any, ...]):  # of pairs; Any, so that type checkers allow `"key" in metadata`
    """Immutable pairs of key and value: duplicate keys kept, order kept, look-up blind to case.

    It is a tuple of pairs, so grpc takes it as it is. `metadata["key"]` gives the first value,
    `get_all` all of them; values of keys that end in "-bin" are bytes, all others printable ASCII text.
    Making one from pairs checks them and raises ValueError for what the wire would refuse.
    """

    __slots__ = ()

    def __new__(cls, pairs: Iterable[tuple[str, str | bytes]] = ()) -> Metadata:
        return tuple.__new__(cls, [_checked(pair) for pair in pairs])

    @classmethod
    def trusted(cls, pairs: Iterable[Any] | None) -> Metadata:
        """Take pairs as they are: from the wire, or from an application that grpc will judge."""
        if not pairs:
            return NONE
        return pairs if isinstance(pairs, Metadata) else tuple.__new__(Metadata, pairs)

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Pair]: ...

    @overload
    def __getitem__(self, key: str) -> str | bytes: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, key: str | SupportsIndex | slice) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # also by key
        """The first value of a key (KeyError if there is none), or the pair at an index."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        wanted = key.lower()
        for name, value in self:
            if name == wanted or name.lower() == wanted:
                return value
        raise KeyError(key)

    @overload
    def get(self, key: str) -> str | bytes | None: ...
    @overload
    def get(self, key: str, default: str) -> str | bytes: ...
    def get(self, key: str, default: str | None = None) -> str | bytes | None:
        """The first value of a key, or `default`."""
        wanted = key.lower()
        for name, value in self:
            if name == wanted or name.lower() == wanted:
                return value
        return default

    def get_all(self, key: str) -> list[str | bytes]:
        """Every value of a key, in the order sent; empty if there is none."""
        wanted = key.lower()
        return [value for name, value in self if name.lower() == wanted]

    def __contains__(self, key: object) -> bool:
        """Is there a value for this key (text), or is this very pair in it?"""
        return self.get(key) is not None if isinstance(key, str) else super().__contains__(key)

    def with_pairs(self, *pairs: tuple[str, str | bytes]) -> Metadata:
        """A copy with these pairs behind the others; ValueError for a key or value that cannot be sent."""
        return tuple.__new__(Metadata, (*self, *[_checked(pair) for pair in pairs]))

    def _plus(self, key: str, value: str) -> Metadata:
        """A copy with one pair more, of an interceptor of ours: it is not checked, and names are not made lower case."""
        return _tuple(Metadata, self + (_tuple(Metadatum, (key, value)),))  # noqa: RUF005  half as dear

    def without(self, *keys: str) -> Metadata:
        """A copy without any value of these keys."""
        unwanted = {key.lower() for key in keys}
        return tuple.__new__(Metadata, [pair for pair in self if pair[0].lower() not in unwanted])

    def __reduce__(self) -> Any:
        # A peer's pairs must survive pickling, also those we would not send; grpc's own class of pairs would not.
        return _restored, (tuple(map(tuple, self)),)

    def __repr__(self) -> str:
        return f"Metadata({tuple(map(tuple, self))})"


NONE = Metadata()
_tuple = tuple.__new__  # at hand: a quarter of what it costs to add a pair is to look it up


def _restored(pairs: tuple[tuple[str, str | bytes], ...]) -> Metadata:
    """Metadata that was pickled."""
    return Metadata.trusted(Metadatum(*pair) for pair in pairs)


def _checked(pair: Any) -> Pair:
    """One pair as it can travel: key in lower case, value of the type its key asks for."""
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise ValueError(f'metadata is made of (key, value) pairs, not of {kind_of(pair)}: write ("x-key", "value")')
    key, value = pair
    if not isinstance(key, str):
        raise ValueError(f"a metadata key is {kind_of(key)}, not text: write it as a str")
    key = key.lower()
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r} may hold only the characters 0-9 a-z _ - . and not be empty")
    if key.startswith("grpc-") and key not in _SETTABLE:
        raise ValueError(
            f"metadata key {key!r} belongs to gRPC itself, which drops or misreads it; use your own, like 'x-{key}'"
        )
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise ValueError(f"metadata value of {key!r} must be bytes, not {kind_of(value)}: keys in -bin carry bytes")
        return Metadatum(key, value)
    if isinstance(value, bytes):  # as grpc does; what is no ASCII is refused below
        value = value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError(f"metadata value of {key!r} must be text, not {kind_of(value)}: write str(…)")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"metadata value of {key!r} has characters other than printable ASCII; "
            f"percent-encode it, or send bytes under '{key}-bin'"
        )
    return Metadatum(key, value)


# Of gRPC's own keys, those an application may set itself.
_SETTABLE = frozenset({"grpc-retry-pushback-ms", "grpc-status-details-bin", "grpc-internal-encoding-request"})
