"""An access log that is read as text, as `logging.basicConfig` writes it, says which RPC ended how."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from interpose.interceptors import AccessLog, JsonFormatter
from interpose.testing import failed, play


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What an application sees that has called `logging.basicConfig(level=DEBUG)`."""
    logger, lines = logging.getLogger("interpose.access"), io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_each_line_has_its_call(lines: io.StringIO) -> None:
    """Method, code and milliseconds; a sign of formatting in a name is text."""
    play(
        AccessLog(start=True, payloads=True),
        [failed(StatusCode.INTERNAL, "boom")],
        method="/shop.v1.Catalog/Get%s",
    )

    assert lines.getvalue().splitlines() == [
        "DEBUG:interpose.access:started call: /shop.v1.Catalog/Get%s",
        "DEBUG:interpose.access:request sent: /shop.v1.Catalog/Get%s",
        "WARNING:interpose.access:finished call: /shop.v1.Catalog/Get%s INTERNAL in 0.0 ms",
    ]


def test_as_json_the_message_does_not_vary(lines: io.StringIO) -> None:
    """It is what go-grpc-middleware says, so that dashboards may group by it; nothing is added to the fields."""
    logging.getLogger("interpose.access").handlers[-1].setFormatter(JsonFormatter())

    play(AccessLog(), [failed(StatusCode.INTERNAL, "boom")])

    line = json.loads(lines.getvalue())
    assert line["message"] == "finished call"
    assert not [name for name in line if name.startswith("_")]
