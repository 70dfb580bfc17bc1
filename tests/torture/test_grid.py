"""Nothing hangs: a sample of the grid, every place and every exception in it; `make torture` runs the whole."""

import random
import threading

import pytest

from interpose import Kind, Side
from tests.torture import grid
from tests.torture.grid import EXCEPTIONS, Cell, Grid, Rig, cells, fault

SEED = 1
PER_PLACE = 3  # exceptions tried of each place; the whole grid takes a minute, and twice that under coverage


def sample() -> dict[str, list[Cell]]:
    """Of each place some exceptions, drawn with a seed, by the stack, side and form of the place."""
    chance = random.Random(SEED)
    places: dict[Cell, list[Cell]] = {}
    for cell in cells():
        place = Cell("", cell.kind, cell.where, cell.side, cell.asyncio, cell.form)
        places.setdefault(place, []).append(cell)
    drawn: dict[str, list[Cell]] = {}
    for place, found in places.items():
        name = f"{'aio' if place.asyncio else 'sync'}-{place.side.value}-{place.form}"
        drawn.setdefault(name, []).extend(chance.sample(found, PER_PLACE))
    return drawn


SAMPLE = sample()


@pytest.mark.parametrize("chosen", SAMPLE.values(), ids=SAMPLE)
@pytest.mark.slow
def test_nothing_hangs(chosen: list[Cell]) -> None:
    """Whatever is raised, wherever: a status within a second, one outcome, and the next RPC is served."""
    with Grid() as tried:
        findings = [str(finding) for cell in chosen if (finding := tried.run(cell))]

    assert findings == []


def test_the_sample_knows_every_exception() -> None:
    """No exception is left to the long form alone, and no place."""
    drawn = [cell for chosen in SAMPLE.values() for cell in chosen]

    assert {cell.exception for cell in drawn} == set(EXCEPTIONS)
    assert {(cell.where, cell.kind) for cell in drawn} == {(cell.where, cell.kind) for cell in cells()}


@pytest.mark.parametrize("asyncio", [False, True])
def test_the_grid_sees_a_hang(asyncio: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that does not come to its exception in time leaves its client to the deadline: the grid says so."""
    held = threading.Event()

    def late() -> BaseException:
        held.wait(grid.LOST)
        return ValueError("late")

    monkeypatch.setattr(grid, "LATE", grid.SOON + 0.2)
    monkeypatch.setitem(EXCEPTIONS, "late", late)
    cell = Cell("late", Kind.UNARY_UNARY, "handler", Side.SERVER, asyncio, "async" if asyncio else "plain")
    rig = Rig(cell)

    with Grid():
        seen = fault(rig, cell)
        held.set()
        rig.close()

    assert seen is not None
    assert seen.startswith("DEADLINE_EXCEEDED only after")


@pytest.mark.parametrize("asyncio", [False, True])
def test_a_cell_that_was_slow_once_leaves_nothing_behind(asyncio: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it is tried again on another server, and both are stopped."""
    found = iter(["OK only after 1.1 s"])
    monkeypatch.setattr(grid, "fault", lambda rig, cell: next(found, None) or fault(rig, cell))
    cell = Cell("Exception", Kind.UNARY_STREAM, "callback", Side.SERVER, asyncio, "plain")

    with Grid() as tried:
        finding = tried.run(cell)

    assert finding is None
