"""Fixtures of all tests: the sixteen places, and a leak check after every test."""

import logging
from collections.abc import Iterator

import pytest

from interpose import _order, context
from interpose.testing import PLACES, Place, no_leaks
from tests.protos.compiled import Generated

# Two loops in one process share a socket of grpc's core; the one that comes second logs BlockingIOError, and goes on.
logging.getLogger("asyncio").addFilter(lambda record: "PollerCompletionQueue._handle_events" not in record.getMessage())


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """One of the sixteen places; a test that takes it runs in all of them."""
    found: Place = request.param
    return found


@pytest.fixture(autouse=True)
def outside_any_rpc() -> None:
    """A test begins as an application does, whatever an earlier one left in the context and the log they share."""
    _order._said.clear()
    context._call.set(None)
    context._request_id.set(None)
    context._real_ip.set(None)
    context._identity.set(None)


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No thread and no flow may outlive its test."""
    with no_leaks():
        yield


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """The code made from `tests/protos`, by module name: `generated("features_pb2")`."""
    return Generated(tmp_path_factory.mktemp("protos"))
