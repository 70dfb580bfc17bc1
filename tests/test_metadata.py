"""Metadata: immutable pairs, as the wire takes them."""

import copy
import pickle
import string
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Metadata
from interpose.testing import Place

KEYS = st.text(string.ascii_lowercase + string.digits + "_-.", min_size=1).filter(
    lambda key: not key.startswith("grpc-")
)
TEXTS = st.tuples(
    KEYS.filter(lambda key: not key.endswith("-bin")), st.text(st.characters(min_codepoint=32, max_codepoint=126))
)
BYTES = st.tuples(KEYS.map(lambda key: f"{key}-bin"), st.binary())
PAIRS: st.SearchStrategy[list[tuple[str, str | bytes]]] = st.lists(st.one_of(TEXTS, BYTES))


@given(PAIRS)
def test_pairs_are_kept(pairs: list[tuple[str, str | bytes]]) -> None:
    """All pairs that can travel stay as they are, in their order, duplicates included."""
    assert list(Metadata(pairs)) == pairs
    assert Metadata().with_pairs(*pairs) == Metadata(pairs) == Metadata.trusted(pairs)


@given(PAIRS)
def test_every_copy_is_the_same(pairs: list[tuple[str, str | bytes]]) -> None:
    """Pickled, copied, and made again, it is equal, of the same type, and has the same hash."""
    metadata = Metadata(pairs)

    for twin in (
        pickle.loads(pickle.dumps(metadata)),
        copy.copy(metadata),
        copy.deepcopy(metadata),
        Metadata(metadata),
    ):
        assert type(twin) is Metadata
        assert twin == metadata
        assert hash(twin) == hash(metadata)


@given(PAIRS, st.data())
def test_look_up(pairs: list[tuple[str, str | bytes]], data: st.DataObject) -> None:
    """A key gives its first value, `get_all` all of them in order, however the key is written."""
    metadata = Metadata(pairs)

    for key in {key for key, _ in pairs}:
        asked = data.draw(st.sampled_from([key, key.upper(), key.title()]))
        values = [value for name, value in pairs if name == key]
        assert metadata.get_all(asked) == values
        assert metadata[asked] == metadata.get(asked) == values[0]
        assert asked in metadata


@given(PAIRS, KEYS)
def test_taking_keys_away(pairs: list[tuple[str, str | bytes]], key: str) -> None:
    """`without` takes every value of its keys, and nothing else."""
    left = Metadata(pairs).with_pairs((key.removesuffix("-bin") or "x", "v")).without(key.removesuffix("-bin") or "x")

    assert list(left) == [pair for pair in pairs if pair[0] != (key.removesuffix("-bin") or "x")]


def test_what_is_not_there() -> None:
    """KeyError for a key that is not there; `get` gives None or the default, `get_all` nothing."""
    metadata = Metadata([("a", "1")])

    with pytest.raises(KeyError, match="b"):
        metadata["b"]
    assert metadata.get("b") is None
    assert metadata.get("b", "default") == "default"
    assert metadata.get_all("b") == []
    assert "b" not in metadata


def test_it_is_a_tuple_of_pairs() -> None:
    """It has a length, indices, slices, and pairs that can be looked for."""
    metadata = Metadata([("a", "1"), ("b", "2"), ("a", "3")])

    assert len(metadata) == 3
    assert metadata[0] == ("a", "1")
    assert metadata[-1] == ("a", "3")
    assert metadata[1:] == (("b", "2"), ("a", "3"))
    assert ("b", "2") in metadata
    assert ("b", "3") not in metadata
    assert not Metadata()
    assert repr(Metadata([("a", "1")])) == "Metadata((('a', '1'),))"


def test_it_cannot_be_changed() -> None:
    """There is no way to put anything into it."""
    metadata: Any = Metadata([("a", "1")])

    with pytest.raises(TypeError):
        metadata["a"] = "2"
    with pytest.raises(TypeError):
        del metadata[0]
    with pytest.raises(AttributeError):
        metadata.extra = 1


def test_a_copy_leaves_the_original() -> None:
    """`with_pairs` and `without` give new ones."""
    metadata = Metadata([("a", "1")])

    assert metadata.with_pairs(("b", "2")) != metadata.without("a") != metadata
    assert list(metadata) == [("a", "1")]


def test_keys_are_written_in_lower_case() -> None:
    """The wire knows no capitals: keys are lowered, rather than refused by the core."""
    assert list(Metadata([("X-Tenant", "A")])) == [("x-tenant", "A")]
    assert Metadata([("X-Sum-Bin", b"\x00")])["x-sum-bin"] == b"\x00"


def test_bytes_of_a_text_key_are_text() -> None:
    """ASCII bytes will do for a text value, as they do for grpc."""
    assert Metadata([("x-tenant", b"A")])["x-tenant"] == "A"


@pytest.mark.parametrize("key", ["grpc-retry-pushback-ms", "grpc-internal-encoding-request"])
def test_keys_of_grpc_that_may_be_set(key: str) -> None:
    """Of gRPC's own keys, those that are meant for applications pass."""
    assert Metadata([(key, "12")])[key] == "12"


@pytest.mark.parametrize(
    ("pair", "field", "remedy"),
    [
        ("ab", "not of a str", 'write ("x-key", "value")'),
        (("a",), "not of a tuple", 'write ("x-key", "value")'),
        (["a", "b"], "not of a list", 'write ("x-key", "value")'),
        ((b"a", "b"), "a metadata key is a bytes, not text", "write it as a str"),
        (("", "b"), "key ''", "not be empty"),
        (("a b", "c"), "key 'a b'", "may hold only the characters 0-9 a-z _ - ."),
        (("ä", "c"), "key 'ä'", "may hold only"),
        (("a\n", "c"), r"key 'a\n'", "may hold only"),
        ((":path", "c"), "key ':path'", "may hold only"),
        (("grpc-status", "0"), "key 'grpc-status'", "use your own, like 'x-grpc-status'"),
        (("GRPC-Timeout", "1S"), "key 'grpc-timeout'", "use your own"),
        (("x-sum-bin", "text"), "'x-sum-bin'", "must be bytes, not a str"),
        (("x-sum", 5), "'x-sum'", "must be text, not an int: write str(…)"),
        (("x-sum", None), "'x-sum'", "must be text, not None"),
        (("x-sum", "ü"), "'x-sum'", "percent-encode it, or send bytes under 'x-sum-bin'"),
        (("x-sum", "a\r\nb"), "'x-sum'", "percent-encode it"),
        (("x-sum", "a\n"), "'x-sum'", "percent-encode it"),
        (("x-sum", "\x00"), "'x-sum'", "percent-encode it"),
        (("x-sum", b"\xff"), "'x-sum'", "percent-encode it"),
    ],
)
def test_what_the_wire_would_refuse(pair: Any, field: str, remedy: str) -> None:
    """ValueError that names the key and says what to do, whichever way the pair comes in."""
    for make in (lambda: Metadata([pair]), lambda: Metadata().with_pairs(pair)):
        with pytest.raises(ValueError, match="metadata") as refusal:
            make()
        assert field in str(refusal.value)
        assert remedy in str(refusal.value)


@given(st.tuples(st.text(), st.one_of(st.text(), st.binary(), st.none(), st.integers())))
def test_any_pair_is_taken_or_refused(pair: Any) -> None:
    """Whatever is given, it is a pair that the wire takes, or a ValueError."""
    try:
        [(key, value)] = Metadata([pair])
    except ValueError:
        return
    assert key == key.lower()
    assert key.isascii()
    assert isinstance(value, bytes) if key.endswith("-bin") else (isinstance(value, str) and value.isascii())


def test_what_comes_from_the_wire_is_taken_as_it_is() -> None:
    """Nothing is checked that a peer sent, or that grpc will judge; also not when it is pickled."""
    pairs = [("grpc-status", "0"), ("X-Odd", "ü")]
    metadata = Metadata.trusted(pairs)

    assert list(metadata) == pairs
    assert metadata["x-odd"] == "ü"
    assert pickle.loads(pickle.dumps(metadata)) == metadata
    assert Metadata.trusted(metadata) is metadata
    assert Metadata.trusted(None) == Metadata()
    assert list(Metadata.trusted(grpc.aio.Metadata(("a", "1"), ("a", "2")))) == [("a", "1"), ("a", "2")]
    assert list(metadata.without("x-odd")) == [("grpc-status", "0")]


def test_what_is_taken_reaches_the_peer(place: Place) -> None:
    """Odd but allowed pairs arrive as they were sent."""
    pairs = Metadata([("a", ""), ("x.y_z-0", " ~"), ("a", "two"), ("sum-bin", bytes(range(256))), ("sum-bin", b"")])

    with place.open() as rpc:
        reply = rpc.call("a", metadata=pairs)

    assert reply.ok
    for key in ("a", "x.y_z-0", "sum-bin"):
        assert rpc.attempts[0].values(key) == pairs.get_all(key)


def test_a_pair_of_ours_is_behind_the_others() -> None:
    """As one that `with_pairs` adds: of a key that occurs twice, the last one is the newest."""
    pairs = Metadata([("a", "1"), ("b", "2")])._plus("a", "3")

    assert list(pairs) == [("a", "1"), ("b", "2"), ("a", "3")]
    assert pairs.get_all("a") == ["1", "3"]
