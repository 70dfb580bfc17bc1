"""An exception whose `str()` raises SystemExit is answered like any other that cannot be printed."""

import pytest

from interpose import Kind, Side
from tests.torture.grid import Cell, Grid


@pytest.mark.parametrize(("asyncio", "form"), [(False, "plain"), (True, "plain"), (True, "async")])
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_an_exception_whose_text_exits_is_answered(asyncio: bool, form: str, kind: Kind) -> None:
    """The client gets a status, not its own deadline."""
    cell = Cell("str() exits", kind, "handler", Side.SERVER, asyncio, form)

    with Grid() as grid:
        finding = grid.run(cell)

    assert finding is None, finding
