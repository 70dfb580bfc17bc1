"""Draw the picture of docs/rpcz.md: `python -m tests.web.picture`."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

from tests.web.browser import chromium, opened
from tests.web.scene import shop

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "rpcz.webp"


def draw(browser: Any, picture: Path) -> Path:
    """The page of the shop, with one method opened."""
    with shop() as rpcz, rpcz.serve() as served, opened(browser, served.url) as page:
        page.click("tbody[data-method='/pay.v1.Cards/Charge'] .opener")
        page.wait_for_selector(".inside .details")
        picture.write_bytes(photographed(page))
    return picture


def photographed(page: Any) -> bytes:
    """All of a page as WebP, a third of what PNG takes; playwright itself makes PNG and JPEG only."""
    size = page.evaluate("({width: innerWidth, height: document.documentElement.scrollHeight})")
    page.set_viewport_size(size)
    shot = page.context.new_cdp_session(page).send("Page.captureScreenshot", {"format": "webp", "quality": 82})
    return b64decode(shot["data"])


if __name__ == "__main__":
    with chromium() as started:
        print(draw(started, PICTURE))  # noqa: T201
