"""What a done callback of a client's call raises ends neither the callbacks behind it nor the channel."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("exception", ["SystemExit", "asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize(("asyncio", "form"), [(False, "future"), (True, "iterating")])
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_callback_that_raises_harms_nobody(exception: str, asyncio: bool, form: str, kind: Kind) -> None:
    """The callback behind it is called, the caller has its status, and the channel its next RPC."""
    cell = Cell(exception, kind, "callback", Side.CLIENT, asyncio, form)

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
