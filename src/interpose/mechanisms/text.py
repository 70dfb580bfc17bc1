"""Untrusted text, made fit to be shown: one line, and not longer than its place."""

from __future__ import annotations


def one_line(text: str, most: int) -> str:
    """The first `most` characters, with line breaks and all else that cannot be printed escaped.

    So the sender of the text cannot forge a line of a log, nor steer the terminal that shows it.
    """
    cut = text if len(text) <= most else f"{text[:most]}…"
    return cut if cut.isprintable() else "".join(map(_shown, cut))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def counted(number: int, noun: str) -> str:
    """A number and its noun, as in "1 call" and "2 calls"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def within(text: str, most: int) -> str:
    """The text if it takes at most `most` bytes of UTF-8, else as much of its start as fits beside a mark."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most:
        return encoded.decode("utf-8")
    return encoded[: most - len(_CUT)].decode("utf-8", "ignore") + _CUT.decode("utf-8")


_CUT = "…".encode()
