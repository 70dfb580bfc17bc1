"""The JSON Schema of policy files, for editors: `python -m interpose.policy.schema` prints it.

It is made of the forms that options have, and the docstrings of what has them, so nothing is written twice.
"""

from __future__ import annotations

import json
import sys

from interpose.policy.building import METHODS, SERVICE_CONFIG, TARGETS
from interpose.policy.forms import VARIABLE, Imported, Schema
from interpose.policy.makers import Maker, single
from interpose.policy.registry import MAKERS, batteries, maker

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Schema:
    """What may be in a policy file, as JSON Schema. ImportError if an extra is not installed."""
    stack = {"$ref": "#/$defs/stack"}
    return {
        "$schema": DIALECT,
        "title": "A policy of Interpose: which interceptors are used for which methods",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "client": {**stack, "description": "The stack of channels, the first outermost."},
            "server": {**stack, "description": "The stack of servers, the first outermost."},
        },
        "additionalProperties": False,
        "minProperties": 1,
        "$defs": {
            "stack": {"type": "array", "items": {"$ref": "#/$defs/entry"}},
            "entry": {"anyOf": _entries()},
            "rows": {"type": "object", "additionalProperties": stack},
            "variable": VARIABLE,
            **{one.name: one.schema() for one in sorted(_makers(), key=lambda one: one.name)},
        },
    }


def _entries() -> list[Schema]:
    """What may be in a stack."""
    alone = [name for name, one in batteries().items() if not one.required]
    tables = [
        (METHODS, "Of these patterns of methods the most specific one that fits has the stack.", "rows"),
        (TARGETS, "The same by what the channel goes to.", "rows"),
        *((name, one.purpose, name) for name, one in batteries().items()),
    ]
    return [
        {"enum": alone},
        Imported().schema(),
        *(single(name, {"description": text, "$ref": f"#/$defs/{definition}"}) for name, text, definition in tables),
        single(SERVICE_CONFIG, {"description": "gRPC's own service config.", "type": "object"}),
    ]


def _makers() -> list[Maker]:
    """All that a file can make."""
    parts = {name: module for makers in MAKERS.values() for name, module in makers.items()}
    return [*batteries().values(), *(maker(name, module) for name, module in parts.items())]


def text() -> str:
    """The schema as docs/policy.schema.json has it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
