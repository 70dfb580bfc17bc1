"""Handlers that were wrapped before are found again."""

from typing import Any

import grpc
import pytest

from interpose import Kind
from interpose._shell.handlers import MAX_METHODS, Compiled, function_of, kind_served, with_function

MAKE = {kind: getattr(grpc, f"{kind.value}_rpc_method_handler") for kind in Kind}


def serve(request: Any, context: Any) -> Any:
    return request


def other(request: Any, context: Any) -> Any:
    return request


@pytest.mark.parametrize("kind", Kind)
def test_a_handler_keeps_all_but_its_function(kind: Kind) -> None:
    """Its kind is what it says, and its serializers stay."""
    handler = MAKE[kind](serve, str.upper, str.lower)
    changed = with_function(handler, other)

    assert kind_served(handler) is kind_served(changed) is kind
    assert function_of(handler) is serve
    assert function_of(changed) is other
    assert changed.request_deserializer is handler.request_deserializer
    assert changed.response_serializer is handler.response_serializer


def test_each_handler_is_made_once() -> None:
    """As long as the same object comes for the same name; a generic handler may give another at any time."""
    made: list[tuple[Any, str]] = []
    compiled = Compiled(lambda handler, name: made.append((handler, name)) or len(made))

    assert [compiled.get("h", "/a/b"), compiled.get("h", "/a/b")] == [1, 1]
    assert compiled.get("h", "/a/c") == 2
    assert compiled.get("another", "/a/b") == 3
    assert compiled.get("another", "/a/b") == 3
    assert made == [("h", "/a/b"), ("h", "/a/c"), ("another", "/a/b")]


def test_what_is_remembered_is_bounded() -> None:
    """A generic handler that answers to any name makes the memory full, and then each RPC its own."""
    made: list[str] = []
    compiled = Compiled(lambda handler, name: made.append(name) or name)

    for number in range(MAX_METHODS + 10):
        compiled.get("h", f"/a/{number}")
    again = len(made)
    compiled.get("h", "/a/0")
    compiled.get("h", f"/a/{MAX_METHODS + 5}")
    compiled.get("another", "/a/0")

    assert len(compiled._known) == MAX_METHODS
    assert made[again:] == [f"/a/{MAX_METHODS + 5}", "/a/0"]
