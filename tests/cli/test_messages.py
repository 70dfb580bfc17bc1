"""JSON that is read line by line, and types that a server does not tell."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.cli.messages import BadMessage, message_of, opened, values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(JSON, st.sampled_from([None, 2]), st.sampled_from(["\n", "\n\n"])), max_size=5))
def test_values_come_back_however_they_are_set(written: list[tuple[Any, int | None, str]]) -> None:
    """One in a line, or over several lines, with empty lines between them."""
    text = "".join(json.dumps(value, indent=indent) + end for value, indent, end in written)

    assert list(values(text.splitlines(keepends=True))) == [value for value, _, _ in written]


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4))
def test_values_may_share_a_line(written: list[Any]) -> None:
    """One behind the other."""
    assert list(values(["".join(map(json.dumps, written))])) == written


def test_a_value_comes_with_its_last_line() -> None:
    """It is not held until the next one begins: a server may be waiting for it."""
    read: list[str] = []

    def lines() -> Any:
        for line in ("{\n", '"a": "}"\n', "}\n", "7\n"):
            read.append(line)
            yield line

    assert next(values(lines())) == {"a": "}"}
    assert len(read) == 3


@pytest.mark.parametrize(
    ("lines", "where"), [(["{}\n", "\n", "{\n", '"a" 1}\n'], "line 4, column 5"), (["[1,\n", "2"], "line 2, column 2")]
)
def test_the_place_of_a_fault(lines: list[str], where: str) -> None:
    """The line and the column in all that was read."""
    with pytest.raises(BadMessage, match=f"no JSON at {where}"):
        list(values(lines))


class Gone:
    """A pool that asks a server which has gone."""

    def FindMessageTypeByName(self, name: str) -> Any:
        """It cannot say."""
        raise grpc.RpcError


def test_a_type_that_cannot_be_asked_for(protos: tuple[ModuleType, ModuleType]) -> None:
    """A server that has gone in the meantime makes a type one that is not known, and nothing worse."""
    item: Any = protos[0].Item

    with pytest.raises(BadMessage, match=r"extra: .*nowhere\.Thing"):
        message_of({"extra": {"@type": "a.b/nowhere.Thing"}}, item.DESCRIPTOR, Gone())
    part = item(extra={"type_url": "a.b/nowhere.Thing", "value": b"1"}).extra
    assert opened(part, Gone()) == ("nowhere.Thing", {"value": "MQ=="})
