"""A (de)serializer of an asyncio client that fails makes the RPC fail, not succeed with nothing."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_response_that_cannot_be_read_is_no_success(kind: Kind) -> None:
    """The caller does not get None with status OK."""
    cell = Cell("Exception", kind, "response deserializer", Side.CLIENT, asyncio=True, form="iterating")

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding


@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=str)
def test_a_request_that_cannot_be_written_is_no_success(kind: Kind) -> None:
    """`write` of what cannot be serialized fails; the server gets no empty message in its place."""
    cell = Cell("Exception", kind, "request serializer", Side.CLIENT, asyncio=True, form="writing")

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
