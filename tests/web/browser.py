"""A real browser: Debian's chromium, driven by playwright, and strict about what a page may say."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.support.patience import PATIENCE

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}  # a laptop, a phone


def expect(locator: Any) -> Any:
    """What is to become true of a part of the page: playwright's assertions, which wait for it.

    Not `page.wait_for_function`: it evaluates text in the page, which the page's policy forbids.
    """
    from playwright import sync_api

    sync_api.expect.set_options(timeout=1000 * PATIENCE)  # in milliseconds
    return sync_api.expect(locator)


@contextmanager
def chromium() -> Generator[Any]:
    """The browser, as long as the block runs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, which a container forbids: it sees nothing but pages of ours.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Any, url: str, *, size: dict[str, int] = WIDE, scheme: str = "light", allow: str = ""
) -> Generator[Any]:
    """A page in a fresh profile. AssertionError at the end for all that its console or its policy complained of.

    allow: a part of the complaints that are expected.
    """
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce", timezone_id="UTC")
    complaints: list[str] = []
    asked: list[str] = []
    try:
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"raised: {error}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("body[data-at]")
        yield page
        unexpected = [one for one in complaints if not (allow and allow in one)]
        assert not unexpected, unexpected
        strangers = [one for one in asked if not one.startswith((url.rpartition("rpcz/")[0], "data:"))]
        assert not strangers, strangers
    finally:
        context.close()
