"""A response deserializer that raises more than an Exception does not kill the channel's thread."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("exception", ["SystemExit", "asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize(("asyncio", "form"), [(False, "future"), (True, "iterating")])
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_deserializer_that_exits_ends_its_rpc(exception: str, asyncio: bool, form: str, kind: Kind) -> None:
    """The caller has a status, and the channel its next RPC."""
    cell = Cell(exception, kind, "response deserializer", Side.CLIENT, asyncio, form)

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
