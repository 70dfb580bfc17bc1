"""Fixtures of the differential suite."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """grpc logs each of the many exceptions that handlers raise here on purpose; nobody reads that."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
