"""Values know their lines: in JSON and TOML, whatever the layout."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.policy import json_text, toml_text
from interpose.policy.document import Node, Unreadable, plain

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=5)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | NAMES
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


def lines(node: Node, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], int]:
    """The line of every name and item, by its path."""
    found = {path: node.key_line or node.line}
    inside: Any = node.value.items() if isinstance(node.value, dict) else ()
    inside = enumerate(node.value) if isinstance(node.value, list) else inside
    for name, part in inside:
        found |= lines(part, (*path, name))
    return found


@given(VALUES, st.sampled_from([None, 0, 1, 3]))
def test_json_reads_as_python_reads_it(value: Any, indent: int | None) -> None:
    """Every value, in every layout."""
    text = json.dumps(value, indent=indent)

    assert plain(json_text.read(text)) == json.loads(text)


@given(VALUES, st.integers(0, 3))
def test_a_line_more_above_is_a_line_more_for_all(value: Any, above: int) -> None:
    """In a layout with a line for each value, lines grow with every value, and begin where the text does."""
    node = json_text.read("\n" * above + json.dumps(value, indent=1))
    found = list(lines(node).values())

    assert found[0] == 1 + above
    assert found == sorted(found)
    assert len(set(found)) == len(found)


def test_json_tells_the_line_of_names_and_of_values() -> None:
    """They may stand on two; texts may hold what looks like structure."""
    node = json_text.read('{\n"a":\n1, "b,}\\"": ["x]",\n"y"]\n}')

    assert (node.value["a"].key_line, node.value["a"].line) == (2, 3)
    assert lines(node) == {(): 1, ("a",): 2, ('b,}"',): 3, ('b,}"', 0): 3, ('b,}"', 1): 4}


TOML = '''\
# a policy, with [brackets] = "and more"
title = "x" # a = 1
dotted.name.inside = 1

[[client]]
Retry = { attempts = 3, codes = [
  "UNAVAILABLE", # one
  "ABORTED",
], backoff = { exponential = { cap = "2s" } } }

[[client]]
[client.methods]
"/shop.v1.Orders/*" = [{ Deadline = "5s" },
                       "RequestId"]
'/a.B/"#"' = []

[[client]]
text = """
a = 1
[b]
\\""" still """""
literal = \'\'\'c'd
\'\'\'
after = 1979-05-27 07:32:00
[server]
last = [[1,
2], []]
'''

PLACES = {
    ("title",): 2,
    ("dotted",): 3,
    ("dotted", "name", "inside"): 3,
    ("client",): 5,
    ("client", 0): 5,
    ("client", 0, "Retry"): 6,
    ("client", 0, "Retry", "attempts"): 6,
    ("client", 0, "Retry", "codes", 0): 7,
    ("client", 0, "Retry", "codes", 1): 8,
    ("client", 0, "Retry", "backoff", "exponential", "cap"): 9,
    ("client", 1): 11,
    ("client", 1, "methods"): 12,
    ("client", 1, "methods", "/shop.v1.Orders/*"): 13,
    ("client", 1, "methods", "/shop.v1.Orders/*", 0, "Deadline"): 13,
    ("client", 1, "methods", "/shop.v1.Orders/*", 1): 14,
    ("client", 1, "methods", '/a.B/"#"'): 15,
    ("client", 2): 17,
    ("client", 2, "text"): 18,
    ("client", 2, "literal"): 22,
    ("client", 2, "after"): 24,
    ("server",): 25,
    ("server", "last"): 26,
    ("server", "last", 0, 1): 27,
    ("server", "last", 1): 27,
}


def test_toml_tells_the_line_of_every_name_and_item() -> None:
    """Tables, arrays of tables, dotted names, inline tables over several lines, texts that look like more."""
    found = lines(toml_text.read(TOML))

    assert {path: found[path] for path in PLACES} == PLACES


def written(value: Any) -> str:
    """A value as TOML, in one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)} = {written(part)}' for name, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value)


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
PARTS = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | st.floats(-1000, 1000).map(lambda x: round(x, 3)) | ASCII,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ASCII, inner, max_size=3),
)


@given(st.lists(st.tuples(st.booleans(), ASCII, PARTS, st.integers(0, 2)), max_size=5))
def test_toml_is_followed_wherever_it_goes(rows: list[tuple[bool, str, Any, int]]) -> None:
    """Each statement is found on its line, and values are those that Python reads."""
    text, expected = "", {}
    for number, (several, name, value, blank) in enumerate(rows):
        text += "\n" * blank
        header = f"[[{json.dumps(name)}.t{number}]]" if several else f"[t{number}.{json.dumps(name)}]"
        text += f"{header}\n"
        path = (name, f"t{number}", 0) if several else (f"t{number}", name)
        expected[path] = text.count("\n")
        text += f"value = {written(value)}\n"
        expected[*path, "value"] = text.count("\n")
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a name that is a table and a list
        return
    node = toml_text.read(text)
    found = lines(node)

    assert plain(node) == read
    assert {path: found[path] for path in expected} == expected


@pytest.mark.parametrize(("read", "text"), [(json_text.read, "{"), (toml_text.read, "a =")])
def test_what_is_not_of_the_format_is_unreadable(read: Any, text: str) -> None:
    """With the line."""
    with pytest.raises(Unreadable) as raised:
        read(text)

    assert raised.value.line == 1
