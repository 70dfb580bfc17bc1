"""A (de)serializer of a server that raises more than an Exception ends its RPC, and nothing else."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("exception", ["SystemExit", "asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize("where", ["request deserializer", "response serializer"])
@pytest.mark.parametrize(("asyncio", "form"), [(False, "plain"), (True, "plain"), (True, "async")])
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_serializer_that_exits_ends_its_rpc(exception: str, where: str, asyncio: bool, form: str, kind: Kind) -> None:
    """The client gets a status, and the server serves the next RPC."""
    cell = Cell(exception, kind, where, Side.SERVER, asyncio, form)

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
