"""Reports of tests on their way from a worker of xdist."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A worker sends one message for a test that passes, and not five: with thousands of tests that is a tenth of all work."""
    if not hasattr(item.config, "workerinput"):
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test logged or raised may hold half a character; execnet, which sends reports, ends the run over one."""
    return _sendable((yield))


def _sendable(data: Any) -> Any:
    """The same, with an escape in place of each lone surrogate."""
    match data:
        case str():
            return data if data.isascii() else data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _sendable(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_sendable, data))
    return data
