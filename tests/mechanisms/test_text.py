"""Text of strangers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.text import one_line, within

anything = st.text(alphabet=st.characters(), max_size=300)  # lone surrogates too


@given(anything, st.integers(1, 200))
def test_one_line_is_one_line(text: str, most: int) -> None:
    """Nothing in it breaks a line or steers a terminal, and its length is bounded."""
    shown = one_line(text, most)

    assert shown.isprintable()
    assert len(shown) <= most * len("\\U0010ffff") + 1


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=100))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    """What can be printed and is short stays."""
    assert one_line(text, 100) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ok\r\nFAKE LINE", "ok\\r\\nFAKE LINE"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("next\u2028line\x85", "next\\u2028line\\x85"),
        ("\udc80", "\\udc80"),
        ("größer 猫", "größer 猫"),
        ("x" * 300, "x" * 20 + "…"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    """Line breaks of every kind, control characters, halves of characters; and long text is cut."""
    assert one_line(text, 20) == shown


@given(anything, st.integers(3, 200))
def test_within_keeps_its_bound_and_the_start(text: str, most: int) -> None:
    """At most so many bytes, valid UTF-8, and the start of the text."""
    cut = within(text, most)

    assert len(cut.encode()) <= most
    sendable = text.encode("utf-8", "replace").decode()
    assert cut == sendable or (cut.endswith("…") and sendable.startswith(cut[:-1]))
