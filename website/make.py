"""`python -m website.make FOLDER`: put the pages of the site into a folder, as zensical wants to find them.

They keep the places that they have in the repository, so that their links to each other hold. The reference has a page for
each public module; mkdocstrings fills it from the docstrings.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "zensical.toml"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md", "docs/**/*.md")
FILES = ("bench/*.svg", "dashboards/*.json", "dashboards/*.yml", "docs/**/*")  # what pages show or link to

NAMED_BLOCK = re.compile(r"^( *```\w+) ([\w.-]+)$", re.MULTILINE)
STACK_BLOCK = re.compile(r"^\*\*(sync|asyncio)\*\*\n\n(```.*?^```)$", re.MULTILINE | re.DOTALL)

REFERENCE = (
    "interpose",
    "interpose.interceptors",
    "interpose.context",
    "interpose.errors",
    "interpose.testing",
    "interpose.policy",
    "interpose.contrib.jwt",
    "interpose.contrib.opentelemetry",
    "interpose.contrib.prometheus",
    "interpose.contrib.redis",
    "interpose.contrib.status",
    "interpose.contrib.structlog",
    "interpose.contrib.validate",
    "interpose.compat.grpc_interceptor",
)


def sources() -> list[str]:
    """The pages that somebody has written, by their place in the repository."""
    return [path.relative_to(ROOT).as_posix() for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def written() -> dict[str, str]:
    """Those pages, as the site has them."""
    return {name: for_site((ROOT / name).read_text("utf-8")) for name in sources()}


def for_site(page: str) -> str:
    """A block that is a file has its name as a title; what is below **sync** and **asyncio** becomes tabs, side by side."""
    titled = NAMED_BLOCK.sub(r'\1 title="\2"', page)
    return STACK_BLOCK.sub(lambda block: f'=== "{block[1]}"\n\n{indent(block[2], "    ")}', titled)


def files() -> list[str]:
    """What pages show or link to: pictures, dashboards, configurations."""
    found = [
        path for pattern in FILES for path in sorted(ROOT.glob(pattern)) if path.is_file() and path.suffix != ".md"
    ]
    return [path.relative_to(ROOT).as_posix() for path in found]


def reference() -> dict[str, str]:
    """The pages that docstrings fill, by their place in the site."""
    return {f"reference/{module}.md": f"# {module}\n\n::: {module}\n" for module in REFERENCE}


def in_navigation() -> list[str]:
    """The pages that the site's navigation leads to."""

    def leaves(entry: object) -> list[str]:
        if isinstance(entry, dict):
            return [leaf for value in entry.values() for leaf in leaves(value)]
        return [leaf for value in entry for leaf in leaves(value)] if isinstance(entry, list) else [str(entry)]

    return leaves(tomllib.loads(CONFIGURATION.read_text("utf-8"))["project"]["nav"])


def make(folder: Path) -> None:
    """Fill the folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for name, text in {**written(), **reference()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
