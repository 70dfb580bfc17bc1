"""The pytest plugin of Interpose: fixtures over `interpose.testing`.

A package of its own, since pytest loads it in every project where Interpose is installed: it imports Interpose, and
with it grpc, only for a test that uses one of the fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from interpose.testing import FakeClock, Place, Rpc


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        'rpc(places="aio-server-*"): run a test that uses the fixture `rpc` in these of the sixteen places only; '
        "a glob on their names, several globs, or a function of the Place",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes our `rpc`, and not one of its own by that name, runs once in each place."""
    if "interpose_place" not in metafunc.fixturenames:
        return
    from interpose.testing import PLACES

    places = PLACES
    for marker in metafunc.definition.iter_markers("rpc"):
        choice = _choice(metafunc.definition.nodeid, *marker.args, **marker.kwargs)
        places = [place for place in places if choice(place)]
    if not places:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: none of {', '.join(map(str, PLACES))} is chosen by `places`"
        )
    metafunc.parametrize("interpose_place", places, ids=str)


def _choice(test: str, *args: Any, **options: Any) -> Callable[[Place], Any]:
    """A marker's `places` as a function of the place."""
    [places] = args or options.values() or [None]
    if callable(places):
        choose: Callable[[Place], Any] = places
        return choose
    globs = [places] if isinstance(places, str) else places
    if (options and "places" not in options) or not isinstance(globs, (list, tuple, set)):
        raise pytest.UsageError(
            f'{test}: the marker `rpc` takes `places`, a glob like "aio-server-*", several, or a function of the Place'
        )
    return lambda place: any(fnmatchcase(str(place), glob) for glob in globs)


@pytest.fixture
def rpc(interpose_place: Place) -> Iterator[Callable[..., Rpc]]:
    """`rpc(*interceptors, script=[…])` serves the echo service with these interceptors in the place of this run.

    It gives an `interpose.testing.Rpc`: `rpc(retry, script=[failed(UNAVAILABLE), ok()]).call("hello")`. The test runs
    once in each of the sixteen places, or those chosen with `@pytest.mark.rpc(places="sync-client-*")`; `rpc.place`
    says where it is. All is closed at the end of the test.
    """
    with ExitStack() as closing:

        def opened(*interceptors: Any, **options: Any) -> Rpc:
            return closing.enter_context(interpose_place.open(*interceptors, **options))

        opened.place = interpose_place  # type: ignore[attr-defined]  # a function may carry what its test asks for
        yield opened


@pytest.fixture
def fake_clock() -> FakeClock:
    """An `interpose.testing.FakeClock`: time that stands still until the test moves it."""
    from interpose.testing import FakeClock

    return FakeClock()
