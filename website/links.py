"""`python -m website.links FOLDER`: links of a built site that lead nowhere, and what it would fetch from another host.

zensical follows links from page to page; these are the others: to files, and those of pages that docstrings filled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"img", "script", "link", "source", "iframe"}  # elements whose address a browser follows by itself


class Page(HTMLParser):
    """The addresses of a page, with the element of each, and the places that it has for others to link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[tuple[str, str]] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what an element refers to, and its own name."""
        found = dict(attrs)
        self.places.update(value for key in ("id", "name") if (value := found.get(key)))
        if found.get("rel") not in {"canonical", "preconnect"}:
            self.addresses += [(tag, value) for key in ("href", "src") if (value := found.get(key))]


def faults(site: Path) -> Iterator[str]:
    """One line for each."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    for path, page in pages.items():
        where = path.relative_to(site)
        for tag, address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if tag in FETCHED:
                    yield f"{where}: fetches {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{where}: {address} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{where}: {address} has no such place"


def main(site: str) -> int:
    """Print the faults; 1 if there are any."""
    found = list(faults(Path(site).resolve()))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
