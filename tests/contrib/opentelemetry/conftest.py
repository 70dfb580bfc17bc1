"""One receiver for all tests of this folder, and a provider of the SDK that exports to it."""

from collections.abc import Iterator

import pytest
from opentelemetry import context
from opentelemetry.context import Context

from tests.contrib.opentelemetry.receiver import Exporting, Receiver


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """It runs as long as the tests do."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def exporting(receiver: Receiver) -> Iterator[Exporting]:
    """A provider that samples everything."""
    exporting = Exporting(receiver)
    yield exporting
    exporting.close()


@pytest.fixture(autouse=True)
def outside_any_span(exporting: Exporting) -> Iterator[None]:
    """A test begins with no span current and none on its way, and ends so."""
    context.attach(Context())
    exporting.spans(0)
    yield
    exporting.spans(0)
