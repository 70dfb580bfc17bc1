"""docs/troubleshooting.md has each of our messages, and none that is no longer said."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.pages import messages
from tests.pages.messages import LEFT_OUT, ROOT, SOURCE, Message, Module, of

PAGE = ROOT / "docs" / "troubleshooting.md"
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
ENTRY = re.compile(r"^### (?P<texts>`.+)\n\n(?P<remedy>(?:(?!#).+\n)*)", re.MULTILINE)
TEXT = re.compile(r"(?P<ticks>`+) ?(?P<text>.+?) ?(?P=ticks)")

MOST_FOR_ONE = 12  # messages that one text of the page may cover; more would say nothing


@dataclass(frozen=True, slots=True)
class Family:
    """Messages that differ in their names alone, or are parts of one other message: one entry of the page for all."""

    entry: str
    pattern: str = ""
    files: str = ""

    def has(self, message: Message) -> bool:
        return bool(re.search(self.pattern, message.text) and re.match(self.files, message.where))


FAMILIES = (
    Family("NAME must be …, not …", r"\bmust (be|have|not|name|lead|give|fit)\b"),
    Family("errors validating service config: […]", files=r"interceptors/service_config|mechanisms/json_fields"),
    Family(
        "FILE:LINE: FIELD …",
        files=r"policy/(document|policy|json_text|toml_text|building|forms|makers|choice|registry)",
    ),
)

NO_MESSAGES = {
    r"\(at (?:line (\d+), column (\d+)|end of document)\)$": "a pattern that reads the message of another library",
    "Deadline Exceeded": "what grpc says; the kit's script says it in its place",
    "Socket closed": "what grpc says; the kit's script says it in its place",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """texts: the parts of messages in a heading. remedy: the paragraph below."""

    texts: tuple[str, ...]
    remedy: str


@cache
def entries() -> tuple[Entry, ...]:
    page = PAGE.read_text("utf-8")
    return tuple(
        Entry(tuple(found["text"] for found in TEXT.finditer(entry["texts"])), entry["remedy"])
        for entry in ENTRY.finditer(page)
    )


@cache
def said() -> tuple[Message, ...]:
    return tuple(message for message in messages.messages() if message.text not in NO_MESSAGES)


@cache
def texts() -> dict[str, re.Pattern[str]]:
    """The texts of the page, each as what finds it: its … is whatever the message puts there."""
    return {
        text: re.compile(".*?".join(map(re.escape, text.strip("… ").split("…"))))
        for entry in entries()
        for text in entry.texts
    }


@pytest.mark.slow
def test_each_message_is_explained() -> None:
    """Whatever Interpose says, the page has it: search for a part of it, and find cause and remedy."""
    missing = [
        f"{message.where}: {message.text}"
        for message in said()
        if not any(family.has(message) for family in FAMILIES)
        and not any(pattern.search(message.text) for pattern in texts().values())
    ]

    assert not missing, "add a heading to docs/troubleshooting.md:\n" + "\n".join(missing)


@pytest.mark.slow
def test_each_entry_is_still_said() -> None:
    """A message that was reworded or taken away leaves no heading behind."""
    families, every = {family.entry for family in FAMILIES}, messages.texts()
    stale = [text for text, pattern in texts().items() if text not in families and not any(map(pattern.search, every))]

    assert not stale


@pytest.mark.slow
def test_an_entry_is_about_few_messages() -> None:
    """A text of two words that is in each of them would explain none."""
    covered = {text: sum(bool(pattern.search(message.text)) for message in said()) for text, pattern in texts().items()}

    assert {text: count for text, count in covered.items() if count > MOST_FOR_ONE} == {}


def test_each_entry_has_a_remedy() -> None:
    """More than a word below the message."""
    assert entries()
    assert [entry for entry in entries() if len(entry.remedy.split()) < 3] == []


def test_each_heading_is_there_once() -> None:
    """Two of the same words would get addresses that change when one of them moves."""
    places = Counter(re.sub(r"\W+", " ", title).strip().lower() for title in HEADING.findall(PAGE.read_text("utf-8")))

    assert [place for place, count in places.items() if count > 1] == []


def test_each_message_is_there_once() -> None:
    """One who searches for it is not sent to two remedies."""
    assert [
        text for text, count in Counter(text for entry in entries() for text in entry.texts).items() if count > 1
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.entry)
def test_a_family_is_on_the_page(family: Family) -> None:
    """It has members, and one entry for them."""
    assert any(family.has(message) for message in said())
    assert any(family.entry in entry.texts for entry in entries())


def test_messages_are_found_in_the_source(tmp_path: Path) -> None:
    """At a raise, in the log, in a status; through variables, constants and functions; with … for what is put in."""
    (tmp_path / "module.py").write_text(
        '''
WHY = "because of a constant"

def fault(name):
    """No message: this is a docstring."""
    return f"{name} came out of a function"

def say(log, name):
    blame = f"{name} is to blame for it" if name else "a variable was empty here"
    log.error("%s in the log with %d values", name, 3)
    log.debug("is for those who read the source")
    insist("Owner", (False, f"{name} is no option here"))
    errors.Internal(WHY, local=True)
    if name:
        raise ValueError(blame)
    raise TypeError(fault(name)) from None
'''
    )

    assert sorted(message.text for message in of(tmp_path / "module.py", tmp_path)) == [
        "a variable was empty here",
        "because of a constant",
        "… came out of a function",
        "… in the log with … values",
        "… is no option here",
        "… is to blame for it",
    ]
    assert not [text for text in Module.of(tmp_path / "module.py", tmp_path).every_text() if "docstring" in text.text]


def test_rooms_that_are_left_out_are_there() -> None:
    """A reason for what is gone would hide what comes in its place."""
    assert all((SOURCE / room).exists() for room in LEFT_OUT)
