"""Asyncio: whatever a caller does in whatever order, a call on a wrapped channel shows what a raw one shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Kind
from tests.conformance.calls.comparing import Side, bounded, fewer
from tests.conformance.calls.scenario import expiring, scenarios

every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)


@every_kind
@bounded
@given(data=st.data())
def test_calls(aio_side: Side, kind: Kind, data: st.DataObject) -> None:
    """A call shows what a raw one shows, step for step and at the end."""
    scenario = data.draw(scenarios(kind, asyncio=True))

    assert aio_side.unexplained(scenario) == []


@every_kind
@fewer
@given(data=st.data())
def test_deadlines(aio_side: Side, kind: Kind, data: st.DataObject) -> None:
    """A call whose deadline has passed shows what a raw one shows."""
    scenario = data.draw(expiring(kind, asyncio=True))

    assert aio_side.unexplained(scenario) == []
