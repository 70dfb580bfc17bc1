"""What a handler's done callback raises ends neither the callbacks behind it nor the server."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize("exception", ["Exception", "SystemExit", "asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize(("asyncio", "form"), [(False, "plain"), (True, "plain"), (True, "async")])
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_callback_that_raises_harms_nobody(exception: str, asyncio: bool, form: str, kind: Kind) -> None:
    """The callback behind it is called, and the server serves the next RPC."""
    cell = Cell(exception, kind, "callback", Side.SERVER, asyncio, form)

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
