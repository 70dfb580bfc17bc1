"""Reloads leave nothing behind; the long form is `make rolling ARGS=--reloads`."""

from collections.abc import Callable

import pytest

from tests.serving.reloads import Size, of_certificates, of_workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

MOST = 1024  # KiB; a hundred reloads stay below it


@pytest.mark.parametrize(("reload", "times"), [(of_workers, 4), (of_certificates, 20)])
def test_reloads_leave_nothing_behind(reload: Callable[[int], Size], times: int) -> None:
    """Threads, open files and memory are flat."""
    grown = reload(times)

    assert grown.threads <= 1  # that of the last worker may be about to end
    assert grown.files <= 1
    assert grown.memory < MOST
