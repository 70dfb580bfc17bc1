"""The counter itself, on made-up text: what is a sentence, what is left out, and where an offence is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.prose.__main__ import Count, faults, main
from tests.prose.counting import MOST, PATTERNS, Offence, Sentence, offences, percentile, sentences
from tests.prose.passages import Kind, of_page, of_source

ROOT = Path(__file__).parents[2]


def lengths(page: str) -> list[tuple[int, int]]:
    return [(sentence.line, sentence.words) for sentence in sentences(list(of_page(page)))]


def found(page: str) -> list[tuple[int, str]]:
    return [(offence.line, offence.found) for offence in offences(list(of_page(page)))]


def test_sentences_of_paragraphs_are_measured() -> None:
    """A sentence goes over line ends, and ends at a full stop that ends no abbreviation, or where the paragraph ends."""
    assert lengths("Version 1.2 works.\nFour, e.g. Five\nsix. `a b c` is one word. grpc is another:\n\nNext") == [
        (1, 3),
        (2, 4),
        (3, 4),
        (3, 3),
        (5, 1),
    ]


def test_headings_lists_tables_and_code_are_not_measured() -> None:
    """Their words are not sentences; a paragraph directly below or above is one."""
    page = """\
# One two
Three four.
- five six
  seven
- eight

  nine ten

| a | b |
|---|---|

    indented code

```python
fenced code
```
1. ten
Eleven.
"""

    assert lengths(page) == [(2, 2), (18, 1)]


def test_an_address_is_no_word_and_its_text_is() -> None:
    """Words are counted as a reader sees them."""
    assert lengths("See [two words](docs/a.md#b) <br> `x = 1` – then.") == [(1, 5)]


def test_mannerisms_are_found_everywhere_but_in_code() -> None:
    """In headings, items and cells too; each with its line, also where a line ends within."""
    page = "# Nobody\n\n- it\n  shall\n\n| so many |\n\n`nobody` waits on\nwish.\n\n```\nnobody\n```\n"

    assert found(page) == [(1, "Nobody"), (4, "shall"), (6, "so many"), (8, "on wish")]


@pytest.mark.parametrize(
    "text",
    ["Who waits is first.", "So. Who waits is first.", "| Who waits |", "It says who calls.", "Ask whoever waits."],
)
def test_who_without_a_noun_is_found(text: str) -> None:
    """As a subject, as an object, and in a cell."""
    assert len(found(text)) == 1


@pytest.mark.parametrize(
    "text",
    ["A caller who waits is first.", "Anna, who waits, is first.", "Who waits?", "It stands for two.", "BearerToken"],
)
def test_plain_words_are_left_alone(text: str) -> None:
    """A relative clause, a question, and words that only contain one that is listed."""
    assert found(text) == []


def test_docstrings_are_measured_and_their_fields_are_not() -> None:
    """The list of options is a list; a paragraph that follows is a paragraph."""
    source = '''\
"""Of the module."""
def f(a):
    """Do it. Twice.

    a: a long description
       that goes on.
    `b`: another.

    Not a field: a sentence.
        code = 1
    """
'''

    assert [(s.line, s.words) for s in sentences(list(of_source(source)))] == [(1, 3), (3, 2), (3, 1), (9, 5)]


def test_comments_and_messages_are_searched() -> None:
    """Comments of several lines are one passage; texts of fewer than three words, and directives, are none."""
    source = "x = 1  # told\n# on\n# wish\nraise ValueError('nobody has it', 'nobody')  # noqa: nobody\n"
    passages = list(of_source(source))

    assert [(passage.line, passage.kind) for passage in passages] == [
        (1, Kind.COMMENT),
        (2, Kind.COMMENT),
        (4, Kind.MESSAGE),
    ]
    assert [(o.line, o.found) for o in offences(passages)] == [(1, "told"), (2, "on wish"), (4, "nobody")]


def test_nine_in_ten() -> None:
    """The nearest rank: of ten numbers the ninth, of one that one, of none 0."""
    assert [percentile(numbers) for numbers in ([], [3], [*range(1, 11)], [*range(1, 101)])] == [0, 3, 9, 90]


def test_bounds_are_inclusive() -> None:
    """One sentence in ten may be longer, and each word to replace is a fault."""
    short, long = (Sentence(1, words, "") for words in (MOST, MOST + 1))
    page = Path("docs/a.md")

    assert list(faults([Count(page, [short] * 9 + [long], [])])) == []
    assert len(list(faults([Count(page, [short] * 8 + [long] * 2, [])]))) == 1
    assert len(list(faults([Count(page, [], [Offence(1, "shall", "")])]))) == 1


def test_the_guide_lists_what_is_counted() -> None:
    """Each word of the guide's table is counted, and each pattern finds something in the table."""
    guide = (ROOT / "docs" / "design" / "style.md").read_text("utf-8")
    table = guide.partition("## Words that are counted")[2]
    words = [cell for line in table.splitlines() if line.startswith("| `") for cell in line.split("|")[1:2]]
    shown = [re.sub(r"[`…]", "", cell) for cell in words]

    assert shown
    assert all(found(cell) for cell in shown)
    assert [pattern.pattern for pattern in PATTERNS if not any(pattern.search(cell) for cell in shown)] == []


def test_a_table_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a part of the project; `make check` has the whole of it counted."""
    status = main(["README.md", "src/interpose/__init__.py"])
    printed = capsys.readouterr().out

    assert status == 0, printed
    assert "README.md" in printed
    assert "all docstrings" in printed
