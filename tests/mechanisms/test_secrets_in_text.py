"""What looks like a secret in a text for people, and what does not."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interpose.mechanisms.redaction import REDACTED, without_secrets


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("password=hunter2, try again", f"password={REDACTED}, try again"),
        ("wrong passwd: 'hunter 2'!", f"wrong passwd: {REDACTED}!"),
        ('{"client_secret": "s3", "id": 7}', f'{{"client_secret": {REDACTED}, "id": 7}}'),
        ("x-api-key = abc;q=1", f"x-api-key = {REDACTED};q=1"),
        ("access_token=a.b.c&scope=all", f"access_token={REDACTED}&scope=all"),
        ("sent Bearer abc.d3f-ghi to pay", f"sent Bearer {REDACTED} to pay"),
        ("Basic dXNlcjpwYXNz is wrong", f"Basic {REDACTED} is wrong"),
        ("Authorization: Digest user=7, x=8", f"Authorization: {REDACTED}"),
        ("set-cookie: id=7; path=/", f"set-cookie: {REDACTED}"),
        ("redis://me:hunter2@host:6379/0", f"redis://{REDACTED}@host:6379/0"),
        ("got eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln here", f"got {REDACTED} here"),
    ],
)
def test_a_secret_is_taken_out(text: str, left: str) -> None:
    """And what stands around it stays."""
    assert without_secrets(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "the order 4711 is not there",
        "dns:///pay:443",
        "no token was sent",
        "basic checks failed",
        "12 of 20",
        "",
        "a@b.example",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    """Words alone are no secret."""
    assert without_secrets(text) == text


PARTS = [
    "token",
    "=",
    ": ",
    "Bearer ",
    "abc12345",
    "://",
    "@",
    " ",
    "'",
    '"',
    "cookie",
    "eyJ0eXAi.eyJ.x",
    ";",
    "\n",
    "é",
]


@given(st.lists(st.sampled_from(PARTS), max_size=20).map("".join))
@example("token=''token")
def test_a_second_time_changes_nothing(text: str) -> None:
    """What was taken out once is no secret any more."""
    once = without_secrets(text)

    assert without_secrets(once) == once


@pytest.mark.parametrize("part", ["a", "-", "token", "eyJ", "x.", "://", "bearer ", "'", '"', " ", "secret='"])
def test_no_text_takes_long(part: str) -> None:
    """Of 20,000 characters of one kind each is looked at a few times; a square of that would be a minute."""
    began = time.thread_time()
    without_secrets(part * (20_000 // len(part)))

    assert time.thread_time() - began < 2
