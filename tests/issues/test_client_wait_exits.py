"""What an interceptor of an asyncio client waits for may exit: that is the interceptor's fault, not the loop's end."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("exception", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_what_a_flow_waits_for_exits(exception: str, kind: Kind) -> None:
    """The RPC ends with a status, and the loop goes on."""
    cell = Cell(exception, kind, "wait", Side.CLIENT, asyncio=True, form="iterating")

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
