"""A request stream, or its serializer, that raises more than an Exception ends its RPC."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("exception", ["SystemExit", "asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize("where", ["requests", "request serializer"])
@pytest.mark.parametrize(
    ("form", "kind"),
    [("blocking", Kind.STREAM_UNARY), ("future", Kind.STREAM_UNARY), ("future", Kind.STREAM_STREAM)],
    ids=str,
)
def test_an_upload_that_exits_ends_its_rpc(exception: str, where: str, form: str, kind: Kind) -> None:
    """The caller has a status at once, and not at its deadline."""
    cell = Cell(exception, kind, where, Side.CLIENT, asyncio=False, form=form)

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
