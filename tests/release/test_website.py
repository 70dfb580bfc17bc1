"""The pages of the site: each stands in the navigation once, and the reference has all that is public."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import interpose
import interpose.compat
import interpose.contrib
from website.make import REFERENCE, in_navigation, make, reference, sources


def test_each_page_stands_in_the_navigation_once() -> None:
    """A page that is not there would be found by its address alone."""
    assert sorted(in_navigation()) == sorted([*sources(), *reference()])


def public_modules() -> Iterator[str]:
    """The modules of which a caller imports names: those that say what they export."""
    yield from ("interpose", "interpose.interceptors", "interpose.context", "interpose.errors", "interpose.testing")
    for package in (interpose.contrib, interpose.compat):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if hasattr(importlib.import_module(module.name), "__all__"):
                yield module.name


def test_the_reference_has_every_public_module() -> None:
    assert sorted(REFERENCE) == sorted(public_modules())


def test_pages_keep_their_places(tmp_path: Path) -> None:
    """Links between pages are written for the repository; so they hold on the site too. What was there before is gone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "old.md").touch()

    make(tmp_path / "site")

    assert not (tmp_path / "site" / "old.md").exists()
    assert all((tmp_path / "site" / name).is_file() for name in in_navigation())
    assert (tmp_path / "site/docs/pictures/storm-latency.svg").is_file()
    assert "::: interpose.errors" in (tmp_path / "site/reference/interpose.errors.md").read_text("utf-8")
