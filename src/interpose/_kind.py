"""What a value is, for texts that must not show the value itself."""

from __future__ import annotations


def kind_of(value: object) -> str:
    """Its type in words, like "a dict" or "an int": for texts about what may be a secret, or a caller's message."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def name_or_kind(value: object, longest: int) -> str:
    """A name that was misspelt, as it is; what is too long for one, or no text, may be a secret in the wrong place."""
    return repr(value) if isinstance(value, str) and len(value) <= longest else kind_of(value)
