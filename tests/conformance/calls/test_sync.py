"""Sync: whatever a caller does in whatever order, a call on a wrapped channel shows what a raw one shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Kind
from tests.conformance.calls.comparing import Side, bounded, fewer
from tests.conformance.calls.scenario import blocking, expiring, scenarios

every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
both_unary = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)


@every_kind
@bounded
@given(data=st.data())
def test_futures_and_streams(sync_side: Side, kind: Kind, data: st.DataObject) -> None:
    """A future or a response stream shows what a raw one shows, step for step and at the end."""
    scenario = data.draw(scenarios(kind))

    assert sync_side.unexplained(scenario) == []


@both_unary
@bounded
@given(data=st.data())
def test_blocking_calls(sync_side: Side, kind: Kind, data: st.DataObject) -> None:
    """What a blocking call gives or raises shows what that of a raw stub shows."""
    scenario = data.draw(blocking(kind))

    assert sync_side.unexplained(scenario) == []


@every_kind
@fewer
@given(data=st.data())
def test_deadlines(sync_side: Side, kind: Kind, data: st.DataObject) -> None:
    """A call whose deadline has passed shows what a raw one shows."""
    scenario = data.draw(expiring(kind))

    assert sync_side.unexplained(scenario) == []
