"""The pages of the site: each stands in the navigation once, and the reference has all that is public."""

import re
from pathlib import Path

from website.make import REFERENCE, ROOT, for_site, in_navigation, make, reference, sources, written


def test_each_page_stands_in_the_navigation_once() -> None:
    """A page that is not there would be found by its address alone."""
    assert sorted(in_navigation()) == sorted([*sources(), *reference()])


def test_pages_import_from_few_modules() -> None:
    """Each of them is in the reference. Those of contrib need an extra; of compat somebody else made the paths."""
    pages = "\n".join((ROOT / name).read_text("utf-8") for name in sources())
    imported = set(re.findall(r"^ *from (interpose[\w.]*) import", pages, re.MULTILINE))
    ours = {module for module in imported if not module.startswith("interpose.compat")}

    assert ours <= set(REFERENCE)
    assert len({module for module in ours if not module.startswith("interpose.contrib")}) <= 5


def test_the_first_five_tasks_are_one_click_away() -> None:
    """A new user finds them from the start page."""
    start = (ROOT / "README.md").read_text("utf-8")
    tasks = ("how-to/retry-reads", "how-to/auth", "tutorial", "how-to/why-not-retried", "how-to/production-stack")

    assert [task for task in tasks if f"](docs/{task}.md" not in start] == []


def test_a_block_that_is_a_file_has_a_title() -> None:
    """zensical takes a word behind the language for text of the page."""
    assert '```toml title="policy.toml"' in written()["docs/policy.md"]


def test_blocks_of_both_stacks_are_tabs() -> None:
    """In the repository they are one below the other, where a page has no tabs."""
    page = "**sync**\n\n```python\nx = 1\n```\n\n**asyncio**\n\n```python\n\ny = 2\n```\n\n**Both** end.\n"

    assert for_site(page) == (
        '=== "sync"\n\n    ```python\n    x = 1\n    ```\n\n'
        '=== "asyncio"\n\n    ```python\n\n    y = 2\n    ```\n\n**Both** end.\n'
    )


def test_pages_keep_their_places(tmp_path: Path) -> None:
    """Links between pages are written for the repository; so they hold on the site too. What was there before is gone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "old.md").touch()

    make(tmp_path / "site")

    assert not (tmp_path / "site" / "old.md").exists()
    assert all((tmp_path / "site" / name).is_file() for name in in_navigation())
    assert (tmp_path / "site/docs/pictures/storm-latency.svg").is_file()
    assert "::: interpose.errors" in (tmp_path / "site/reference/interpose.errors.md").read_text("utf-8")


def test_a_page_with_sections_alone_in_its_contents_is_there() -> None:
    """The template knows the page by its address."""
    template = (ROOT / "website" / "theme" / "partials" / "toc-item.html").read_text("utf-8")

    assert [f"{url}.md" for url in re.findall(r'page\.url == "(.+?)/"', template)] == ["docs/troubleshooting.md"]
    assert "docs/troubleshooting.md" in sources()
