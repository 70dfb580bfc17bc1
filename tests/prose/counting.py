"""How long sentences are, and which words are to be replaced: numbers, not a judgement."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.prose.passages import Kind, Passage, prose_of

# Words in a sentence that nine in ten may have at most. Readers whose first language is another one follow about 15.
MOST = 22

SENTENCE_END = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=\S)")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|cf|vs|etc)\.$")

# A mannerism, and what to write instead: docs/design/style.md gives the reasons. \s+ lets a line end in between.
MANNERISMS = {
    r"(?i)\bnobody\b": "name what does not act: no caller, no other thread, nothing",
    r"(?i)\bwho(?:m)?ever\b": "name the noun: the caller that, a thread that",
    r"(?:^|[.;:!?]\s+|[(|\"]\s*)Who\b(?![^.\n]*\?)": "name the noun: a caller that, callers that",
    r"(?i)\b(?:asks?|asked|says?|said|knows?|known|sees?|finds?|tells?|out|on|of|by|for|from|than|as|is|but|whether)\s+who\b": (
        "name the noun: the caller, the caller's identity, those callers that"
    ),
    r"(?i)\b(?:tells?|told|telling)\b(?![:(])": "say, report, pass, show; distinguish",
    r"(?i)\bshall\b": "must, should, will, or the present tense",
    r"(?i)\b(?:on|at)\s+wish\b": "optional; if you ask for it",
    r"(?i)\bthe\s+deed\b": "the call, the write, the side effect",
    r"(?i)\bso\s+many\b": "that number of; at most",
    r"(?i)\bstrangers?\b": "a caller without credentials, an unknown caller, a new user",
    r"(?i)\bthe\s+hour\b": "the time",
    r"(?i)\b(?:unasked|afresh)\b": "unless asked to; again",
    r"(?i)\bby\s+lot\b": "at random",
    r"(?i)\bby\s+another\s+door\b": "in another way",
    r"(?i)\bstands?\b(?!\s+(?:in\s+)?for\b)": "is, is listed, remains; what never ends hangs",
    r"(?i)\bbears?\b": "can take, allows, carries",
}
PATTERNS = {re.compile(pattern): instead for pattern, instead in MANNERISMS.items()}


@dataclass(frozen=True, slots=True)
class Sentence:
    """line: where it begins. words: how many it has, where `code` is one."""

    line: int
    words: int
    text: str


@dataclass(frozen=True, slots=True)
class Offence:
    """line: where it is. found: the words. instead: what to write."""

    line: int
    found: str
    instead: str


def sentences(passages: Sequence[Passage]) -> Iterator[Sentence]:
    """The sentences of all paragraphs."""
    for passage in passages:
        if passage.kind is Kind.PARAGRAPH:
            yield from _split(passage)


def offences(passages: Sequence[Passage]) -> Iterator[Offence]:
    """Each mannerism, wherever it is: in a paragraph, an item, a heading, a comment, a message."""
    for passage in passages:
        text = prose_of(passage.text)
        for pattern, instead in PATTERNS.items():
            for found in pattern.finditer(text):
                line = passage.line + text.count("\n", 0, found.end() - len(found[0].lstrip(' \n.;:|("')))
                yield Offence(line, " ".join(found[0].split()), instead)


def percentile(numbers: Sequence[int], share: float = 0.9) -> int:
    """The least of the numbers that `share` of them do not exceed (the nearest rank); 0 if there are none."""
    ordered = sorted(numbers)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0


def _split(passage: Passage) -> Iterator[Sentence]:
    text = prose_of(passage.text)
    start = 0
    for end in [*(found.end() for found in SENTENCE_END.finditer(text)), len(text)]:
        if end < len(text) and ABBREVIATION.search(text[start:end].rstrip()):
            continue
        if words := _words(text[start:end]):
            yield Sentence(passage.line + text.count("\n", 0, start), words, passage.text[start:end].strip())
        start = end


def _words(text: str) -> int:
    return sum(1 for word in text.replace("\0", "").split() if re.search(r"\w", word))
