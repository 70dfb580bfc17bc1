"""All that is public is on some page, and not in the reference alone."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.pages.public import MODULES, names
from tests.test_docs import PAGES, classified

SPAN = re.compile(r"(`+)(.+?)\1")
WORD = re.compile(r"\w+")
MEMBER = re.compile(r"\.(\w+)|\b(\w+)(?=[=(])")  # call.peer, with_deadline(…), queue=8

# Public by their names alone: parts of Interpose ask for them, and users have no reason to.
BETWEEN_PARTS = {
    "Jwks.find": "what Jwt asks of its Jwks",
    "Jwks.find_later": "what Jwt asks of its Jwks",
    "Jwks.renew": "what Jwt asks of its Jwks",
    "LocalStore.limiter": "what RateLimit asks of its store",
    "RedisStore.limiter": "what RateLimit asks of its store",
    "RedisStore.may_ask": "what the limiters of a RedisStore ask of it",
    "RedisStore.answer_to": "what the limiters of a RedisStore ask of it",
    "Rate.at_once": "what stores ask of a rate",
    "Rate.ticks": "what stores ask of a rate",
    "Live.select": "what a channel or server asks of a stack",
    "Live.compiled": "what a channel or server asks of a stack",
    "Live.see": "what a channel or server asks of a stack",
    "Live.objections": "what Policy asks before it uses a new stack",
    "Tracing.step_back": "what the spans of a method say to their Tracing",
    "Validate.refusal": "what the messages of a stream ask of their Validate",
    "Act.fails": "what Echo and play ask of an act",
    "Echo.end": "what the handlers of Echo say to it",
    "JsonFormatter.format": "what logging calls",
}


def code(page: str) -> list[str]:
    """The code of a page: its blocks, and what is between backticks."""
    lines = list(classified(page))
    spans = [found[2] for line, language in lines if language is None for found in SPAN.finditer(line)]
    return [line for line, language in lines if language is not None] + spans


@cache
def words() -> tuple[frozenset[str], frozenset[str]]:
    """The words of all code, and of them those that are attributes, are called or given, or are alone."""
    texts = [text for page in PAGES for text in code(page.read_text("utf-8"))]
    alone = {text for text in texts if WORD.fullmatch(text)}
    attributes = {name for text in texts for pair in MEMBER.findall(text) for name in pair if name}
    return frozenset(word for text in texts for word in WORD.findall(text)), frozenset(attributes | alone)


def test_everything_public_is_on_a_page() -> None:
    """A name by itself; an attribute as one, or alone between backticks, since many are words of every day."""
    named, attributes = words()
    missing = []
    for name, _ in names():
        owner, last = name.split(".")[-2:]
        is_attribute = owner[0].isupper()
        if f"{owner}.{last}" not in BETWEEN_PARTS and last not in (attributes if is_attribute else named):
            missing.append(name)

    assert not missing, "write about them on a page of docs/: " + ", ".join(missing)


def test_what_is_between_parts_is_there() -> None:
    """An exception for a name that has gone would hide the next one."""
    there = {".".join(name.split(".")[-2:]) for name, _ in names()}

    assert set(BETWEEN_PARTS) <= there


@pytest.mark.parametrize(
    "name",
    [
        "interpose.Call.without_metadata",
        "interpose.Call.with_deadline",
        "interpose.Outcome.elapsed",
        "interpose.Method.options",
        "interpose.interceptors.Retry.on_retry",
        "interpose.interceptors.RetryState.over_budget",
        "interpose.context.real_ip",
        "interpose.errors.NotFound",
        "interpose.testing.Act.delay",
        "interpose.Kind.UNARY_STREAM",
    ],
)
def test_what_is_public_is_found(name: str) -> None:
    """Functions, classes, methods, properties, fields, members of an enum."""
    assert name in dict(names())


def test_public_modules_are_those_of_the_reference() -> None:
    """Except for another package's names."""
    assert MODULES[0] == "interpose"
    assert len(MODULES) > 10
