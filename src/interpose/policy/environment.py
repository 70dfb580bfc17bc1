"""Variables of the environment in a file: `${NAME}` and `${NAME:-default}`, for names that were allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

from interpose.policy.document import At, FromEnv, Missing, Node

_REFERENCE = re.compile(r"\$(\$?)\{([^}]*)\}?")  # two signs before a brace stand for one, and no variable
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def filled(at: At, allowed: Collection[str], environment: Mapping[str, str] = os.environ) -> Node:
    """The value with all variables filled in; a fault for each that is not allowed, not set, or not well written."""
    node = at.node
    if isinstance(node.value, str):
        return Node(_text(node.value, at, allowed, environment), node.line, node.key_line)
    if isinstance(node.value, list):
        items = [filled(item, allowed, environment) for item in at.items()]
        return Node(items, node.line, node.key_line)
    if isinstance(node.value, dict):
        fields = {
            _text(name, field, allowed, environment): filled(field, allowed, environment)
            for name, field in at.fields().items()
        }
        return Node(fields, node.line, node.key_line, node.twice)
    return node


def _text(text: str, at: At, allowed: Collection[str], environment: Mapping[str, str]) -> str:
    """The text with its variables filled in."""
    values: list[str | None] = []

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return found[0][1:]
        values.append(_value(found, at, allowed, environment))
        return values[-1] or ""

    full = _REFERENCE.sub(value, text)
    if not values:
        return full
    hidden = Missing(full) if None in values else FromEnv(full)
    hidden.written = text
    return hidden


def _value(found: re.Match[str], at: At, allowed: Collection[str], environment: Mapping[str, str]) -> str | None:
    """The value of one variable; None and a fault if there is none."""
    inside = _INSIDE.fullmatch(found[2])
    if inside is None or not found[0].endswith("}"):
        at.fault(
            f"{found[0]!r:.60} names no variable; write ${{NAME}} or ${{NAME:-default}}, and $${{ for the text ${{ itself"
        )
        return None
    name, default = inside.groups()
    if name not in allowed:
        at.fault(f"the variable {name} may not be read here; allow it: env=[{name!r}], or --env {name}")
        return None
    value = environment.get(name, default)
    if value is None:
        at.fault(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
    return value
