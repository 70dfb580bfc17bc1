"""JSON text of strangers, read field by field."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.json_fields import (
    DEEPEST,
    At,
    Number,
    Wrong,
    decoded,
    number_as_written,
    positive_number,
    string,
    suggestion,
    told,
    whole_number,
)

leaves = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=5)
documents = st.recursive(leaves, lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=4), some))


def seats(value: Any) -> int:
    found = whole_number(value, most=100)
    if found < 1:
        raise Wrong("must be at least 1")
    return found


def shop(at: At) -> tuple[str, int]:
    """The example at the head of the file."""
    if not at.has_only({"name", "seats"}):
        return "", 0
    return at.required("name", string, ""), at.optional("seats", seats, 4)


def document(at: At) -> Any:
    """What was written, put together again from its parts."""
    if isinstance(at.value, list):
        return [document(part) for part in at.parts()]
    if isinstance(at.value, dict):
        return dict(zip(at.value, map(document, at.parts()), strict=True))
    return at.value.whole() if isinstance(at.value, Number) else at.value


def all_paths(at: At) -> list[str]:
    return [at.path, *(path for part in at.parts() for path in all_paths(part))]


def faults_of(text: str) -> list[str]:
    root = decoded(text, "the shop")
    shop(root)
    return root.faults


@given(documents)
def test_a_document_is_read_as_it_was_written(written: Any) -> None:
    """Nothing is lost, nothing is faulted, and no two places have the same path."""
    root = decoded(json.dumps(written), "it")

    assert document(root) == written
    assert not root.faults
    assert len(set(all_paths(root))) == len(all_paths(root))


@given(st.lists(st.integers(0, 10**15) | st.booleans() | st.none() | st.text("abc")))
def test_every_fault_is_told_and_nothing_else(written: list[Any]) -> None:
    """Of a list's items, those that are no numbers are told, each at its place; the others are read."""
    root = decoded(json.dumps(written), "it")

    read = [item.read(lambda value: whole_number(value, 10**15), -1) for item in root.items()]

    numbers = [type(item) is int for item in written]
    assert read == [item if good else -1 for item, good in zip(written, numbers, strict=True)]
    assert root.faults == [
        f"field:[{index}] error:is not a number: {json.dumps(item)}"
        for index, (item, good) in enumerate(zip(written, numbers, strict=True))
        if not good
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"name": "Corner", "seats": 7}', ("Corner", 7)),
        ('{"name": "Corner", "seats": "7"}', ("Corner", 7)),
        ('{"name": "Corner"}', ("Corner", 4)),
        ('{"name": "Corner", "seats": null}', ("Corner", 4)),
    ],
)
def test_a_text_without_faults(text: str, read: tuple[str, int]) -> None:
    """A number may be in quotes, and null is as good as nothing."""
    root = decoded(text, "the shop")

    assert shop(root) == read
    assert root.faults == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            '{"name": 7, "seats": 0, "colour": "red"}',
            [
                "field:colour error:unknown field",
                "field:name error:is not a string: 7",
                "field:seats error:must be at least 1",
            ],
        ),
        ("[]", ["field: error:is not an object: an array"]),
        (
            '{"seats": 1.5}',
            ["field:name error:field not present", "field:seats error:must be a whole number like 4, not 1.5"],
        ),
        ('{"name": "a", "seats": 101}', ["field:seats error:must be at most 100"]),
        ('{"name": "a", "seat": 4}', ["field:seat error:unknown field; did you mean seats?"]),
        ('{"name": "a", "näme ": 4}', [r'field:["n\u00e4me "] error:unknown field']),
        ('{"name": "a", "name": "b"}', ["field:name error:is there more than once"]),
        ('{"name": "a", "seats": -Infinity}', ["field:seats error:is not JSON: -Infinity"]),
        ("NaN", ["field: error:is not JSON: NaN"]),
    ],
)
def test_the_faults_of_a_text(text: str, faults: list[str]) -> None:
    """All of them, each with its path; what is not JSON is told once."""
    assert faults_of(text) == faults


def test_a_fault_deep_inside() -> None:
    """The path leads through objects and lists; names that are no words are quoted."""
    root = decoded('{"streets": [{}, {"main street": {"shops": 3}}]}', "the town")
    streets = root.child("streets")
    assert streets
    street = streets.items()[1].child("main street")
    assert street
    shops = street.child("shops")
    assert shops

    assert shops.items() == []
    assert root.faults == ['field:streets[1]["main street"].shops error:is not an array: 3']


def test_a_text_that_is_no_json() -> None:
    """The error says what was read, and where it breaks."""
    with pytest.raises(ValueError, match=r"^the shop is not JSON: .* line 2 column 1 \(char 2\)$"):
        decoded("{\n", "the shop")


@pytest.mark.parametrize("depth", [DEEPEST + 1, 1_000_000])
def test_a_text_that_is_nested_too_deeply(depth: int) -> None:
    """It is refused, be it so deep that Python's own reader gives up or not."""
    with pytest.raises(ValueError, match=r"^the shop is nested too deeply: at most 255 objects and lists"):
        decoded("[" * depth + "]" * depth, "the shop")


def test_a_text_that_is_nested_as_deeply_as_may_be() -> None:
    """What stands in the innermost list may be anything but another one."""
    root = decoded("[" * DEEPEST + "1" + "]" * DEEPEST, "the shop")

    assert all_paths(root)[-1] == "[0]" * DEEPEST


@pytest.mark.parametrize(
    ("text", "whole"), [("4", 4), ("-4", -4), ("4.0", None), ("4e1", None), ("9" * 20, int("9" * 20)), ("9" * 21, None)]
)
def test_a_whole_number(text: str, whole: int | None) -> None:
    """It is whole if it is written so, and of no more than twenty digits."""
    assert Number(text).whole() == whole


@pytest.mark.parametrize(("value", "number"), [(Number("1.50"), "1.50"), (" 2e3 ", "2e3"), ("+7", "+7")])
def test_a_number_is_kept_as_it_is_written(value: Any, number: str) -> None:
    """Blanks around it do not count."""
    assert number_as_written(value) == number


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (Number("0"), "must be greater than 0"),
        (Number("1e999"), "is too large"),
        ("1_000", 'is not a number: "1_000"'),
        (True, "is not a number: true"),
        ({}, "is not a number: an object"),
    ],
)
def test_what_is_no_positive_number(value: Any, wrong: str) -> None:
    """It says what is wrong, and quotes what was written."""
    with pytest.raises(Wrong) as caught:
        positive_number(value)

    assert str(caught.value) == wrong


def test_a_positive_number() -> None:
    """It is read as a float."""
    assert positive_number(Number("1.5")) == 1.5


def test_a_long_value_is_quoted_in_part() -> None:
    """Sixty characters of it, and a mark."""
    assert told("x" * 100) == '"' + "x" * 59 + "…"
    assert told("x" * 58) == '"' + "x" * 58 + '"'


@pytest.mark.parametrize(
    ("wrong", "said"), [("Max_Seat", "; did you mean maxSeats?"), ("colour", ""), (Number("7"), "")]
)
def test_a_name_that_may_have_been_meant(wrong: object, said: str) -> None:
    """One that is near, whatever its case and underscores."""
    assert suggestion(wrong, ["name", "maxSeats"]) == said
