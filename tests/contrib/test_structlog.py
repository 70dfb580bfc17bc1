"""AccessLog through structlog."""

import importlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import LogCapture, capture_logs

from interpose import Outcome
from interpose.contrib.structlog import Structlog
from interpose.interceptors import AccessLog, RequestId
from interpose.testing import Place, failed
from tests.interceptors.driving import failing, incoming, is_server, outgoing, play, requests

Code = grpc.StatusCode


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """structlog's configuration is one for the whole process."""
    yield
    structlog.reset_defaults()


def capturing(wrapper: Any = None, **more: Any) -> tuple[Any, list[Any]]:
    """A logger of structlog, and what it writes."""
    capture = LogCapture()
    logger = structlog.wrap_logger(structlog.PrintLogger(), [capture], wrapper_class=wrapper, **more)
    return logger, capture.entries


def test_an_event_in_every_place(place: Place) -> None:
    """With the message as its event, the fields as its keys, and the level."""
    logger, entries = capturing(structlog.make_filtering_bound_logger(logging.DEBUG), region="eu")
    log = AccessLog(Structlog(logger), start=True, payloads=True)

    with place.open(RequestId(), log, script=[failed(Code.DATA_LOSS, "disk 3")]) as rpc:
        rpc.call(*requests(place))

    assert (entries[0]["event"], entries[-1]["event"]) == ("started call", "finished call")
    assert entries[-1]["log_level"] == ("error" if is_server(place) else "warning")
    assert (entries[-1]["grpc.code"], entries[-1]["grpc.error"]) == ("DATA_LOSS", "disk 3")
    assert {entry["region"] for entry in entries} == {"eu"}
    assert len({entry["request_id"] for entry in entries}) == 1


@pytest.mark.parametrize(
    ("wrapper", "events"),
    [
        (structlog.make_filtering_bound_logger(logging.DEBUG), ["debug", "info", "warning", "error"]),
        (structlog.make_filtering_bound_logger(logging.WARNING), ["warning", "error"]),
        (structlog.stdlib.BoundLogger, ["debug", "info", "warning", "error"]),  # whose standard logger is missing here
        (structlog.BoundLogger, ["debug", "info", "warning", "error"]),
    ],
)
def test_levels_that_are_off_cost_nothing(wrapper: Any, events: list[str]) -> None:
    """Whatever kind of logger the application configured; one that cannot tell is written to."""
    logger, entries = capturing(wrapper)
    log = AccessLog(Structlog(logger))

    play(log, outgoing(), Outcome())
    play(log, incoming(), Outcome())
    play(log, incoming(), failing(Code.ABORTED))
    play(log, incoming(), failing(Code.INTERNAL))

    assert [entry["log_level"] for entry in entries] == events


def test_the_level_of_a_standard_logger_counts() -> None:
    """Where structlog stands in front of the standard library."""
    behind = logging.Logger("test", logging.WARNING)  # noqa: LOG001  it must not outlive its test
    sink = Structlog(structlog.wrap_logger(behind, wrapper_class=structlog.stdlib.BoundLogger))

    assert (sink.isEnabledFor(logging.INFO), sink.isEnabledFor(logging.WARNING)) == (False, True)


def test_the_logger_of_the_application_by_default() -> None:
    """As it is configured when an RPC ends, also if that was later."""
    log = AccessLog(Structlog())

    with capture_logs() as entries:
        play(log, incoming(), Outcome())

    assert [(entry["event"], entry["grpc.code"]) for entry in entries] == [("finished call", "OK")]


def test_a_processor_that_breaks_does_not_hurt(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The RPC is answered, and the failure is told once."""

    def broken(*_: Any) -> Any:
        raise OSError("disk full")

    log = AccessLog(Structlog(structlog.wrap_logger(structlog.PrintLogger(), [broken])))

    with place.open(log) as rpc:
        assert all(rpc.call(*requests(place)).ok for _ in range(2))

    assert [record.getMessage() for record in caplog.records if record.name == "interpose"] == [
        "AccessLog could not write to <Structlog>; its later failures are not logged"
    ]


def test_what_is_no_logger_of_structlog() -> None:
    """Is refused, with what to write instead."""
    with pytest.raises(ValueError, match=r"^Structlog: logger must be like structlog.get_logger\(\), not <Logger"):
        Structlog(logging.getLogger("shop"))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImportError with the line to install, where it is imported; and not before."""
    monkeypatch.delitem(sys.modules, "interpose.contrib.structlog")
    monkeypatch.setitem(sys.modules, "structlog", None)

    with pytest.raises(ImportError, match=r'pip install "interpose\[structlog\]"') as refusal:
        importlib.import_module("interpose.contrib.structlog")

    assert isinstance(refusal.value.__cause__, ImportError)
