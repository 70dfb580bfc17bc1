"""Each way to call, and each way to read, in turn."""

import pytest

from tests.hedging.serving import READINGS, WAYS, Reading, Way


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in turn."""
    found: Way = request.param
    return found


@pytest.fixture(params=READINGS, ids=str)
def reading(request: pytest.FixtureRequest) -> Reading:
    """Each way to read in turn."""
    found: Reading = request.param
    return found
