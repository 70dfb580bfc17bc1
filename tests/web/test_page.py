"""The page in a real browser: what people see and do, on a laptop and a phone, under its strict policy."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose import Side, intercept_channel
from interpose.interceptors import Rpcz
from interpose.testing import Echo, Stub, failed, ok, play
from tests.web.browser import NARROW, WIDE, chromium, expect, opened
from tests.web.picture import draw
from tests.web.scene import shop

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

METHOD = "tbody[data-method]"


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    """The page of a shop on a busy day."""
    with shop() as rpcz, rpcz.serve() as served:
        yield served.url


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


def status(page: Any, text: str) -> None:
    """Wait until it says so at its head."""
    expect(page.locator("#status")).to_contain_text(text)


def names(page: Any) -> list[str]:
    return texts(page, f"{METHOD} .names b")


def methods(page: Any, count: int) -> None:
    """Wait until it shows so many."""
    expect(page.locator(METHOD)).to_have_count(count)


def test_it_shows_what_there_is(browser: Any, url: str) -> None:
    """Methods with their numbers, what is in flight, the oldest first, and the guards, the worst first."""
    with opened(browser, url) as page:
        assert page.title() == "shop – rpcz"
        assert "Watch" in names(page) and len(names(page)) == 9
        ages = ["".join(text.split()) for text in texts(page, "#flying-table td:nth-child(4)")]
        assert ages == ["41s", "12.5s", "3.1s", "400ms", "20ms"]
        assert texts(page, ".pill")[:2] == ["open", "3 refused"]
        status(page, "Live")


def test_keys_filter_and_clear(browser: Any, url: str) -> None:
    """A slash goes to the filter, text narrows the list, and Escape shows all again."""
    with opened(browser, url) as page:
        page.keyboard.press("/")
        page.keyboard.type("pay.v1")
        methods(page, 1)
        assert names(page) == ["Charge"]
        page.keyboard.type("nothing")
        expect(page.locator("#none b")).to_contain_text("pay.v1nothing")
        page.keyboard.press("Escape")
        methods(page, 9)


def test_a_method_opens_by_keyboard(browser: Any, url: str) -> None:
    """With its codes, three windows and samples; the focus stays where it was when the numbers change."""
    with opened(browser, url) as page:
        opener = page.locator("tbody[data-method='/pay.v1.Cards/Charge'] .opener")
        opener.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".inside .details")
        assert opener.get_attribute("aria-expanded") == "true"
        assert "UNAVAILABLE" in texts(page, ".inside .codes")[0]
        assert "the card service does not answer" in page.locator(".inside").inner_text()
        page.evaluate("ask()")
        expect(opener).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".inside")).to_have_count(0)


def test_a_column_sorts(browser: Any, url: str) -> None:
    """Numbers from the top at first, then from below; screen readers are told."""
    with opened(browser, url) as page:
        head = page.locator("th.total button")
        head.click()
        assert names(page)[0] == "GetItem"
        assert page.locator("th.total").get_attribute("aria-sort") == "descending"
        head.click()
        assert names(page)[-1] == "GetItem"


def test_it_can_be_paused(browser: Any, url: str) -> None:
    """Then it asks for nothing until it goes on."""
    with opened(browser, url) as page:
        page.click("#pause")
        assert page.locator("#pause").get_attribute("aria-pressed") == "true"
        status(page, "Paused at ")
        page.click("#pause")
        status(page, "Live")


def test_it_fits_and_can_be_read(browser: Any, url: str) -> None:
    """Nothing is wider than the screen, and all text has the contrast that WCAG 2.2 asks for (1.4.3: 4.5 to 1)."""
    with opened(browser, url) as page:
        page.click("tbody[data-method='/pay.v1.Cards/Charge'] .opener")
        page.wait_for_selector(".inside .details")
        for size in (WIDE, {"width": 820, "height": 1180}, NARROW):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                assert page.evaluate(CONTRAST) == []


# All elements with text of their own whose contrast with what is behind them is too low.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = rgba(getComputedStyle(one).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!text.length || !element.checkVisibility() || element.closest('noscript, script, style')) continue;
    const colors = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (colors[0] + 0.05) / (colors[1] + 0.05);
    if (ratio < 4.5) bad.push(`${element.className || element.tagName}: ${text[0].data.trim()} ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


def test_without_an_rpc_it_says_so(browser: Any) -> None:
    """And shows the first one as soon as there is one."""
    rpcz = Rpcz()
    with rpcz.serve() as served, opened(browser, served.url) as page:
        assert "No RPC has been seen yet" in page.locator("#none").inner_text()
        assert "Nothing is in flight" in page.locator("#flying").inner_text()
        assert page.locator("#guards").is_hidden()
        play(rpcz, [ok()], method="/shop.v1.Orders/Place")
        methods(page, 1)


def test_what_strangers_chose_stays_text(browser: Any) -> None:
    """A name, an id or details that look like markup are shown as they are."""
    rpcz = Rpcz(details=True, title="<b>shop</b>")
    name = "/a.<img src=x onerror=alert(1)>/<script>alert(1)</script>"
    play(rpcz, [failed(grpc.StatusCode.ABORTED, "<img src=x onerror=alert(1)>")], side=Side.SERVER, method=name)
    with rpcz.serve() as served, opened(browser, served.url) as page:
        page.click(".opener")
        page.wait_for_selector(".inside .details")
        assert page.locator("main img, main b b, main script").count() == 0
        assert "onerror" in page.locator(".inside").inner_text()
        assert page.locator("#title").inner_text() == "<b>shop</b>"


def test_fifty_methods_and_five_hundred_rpcs(browser: Any) -> None:
    """In the time that they take, while the page asks; then each of them is in the numbers that it shows."""
    rpcz = Rpcz()
    for number in range(50):
        play(rpcz, [ok()], method=f"/shop.v1.Service{number % 7}/Method{number}")
    with Echo().serve() as target, intercept_channel(grpc.insecure_channel(target), rpcz) as channel:
        stub = Stub(channel)
        with rpcz.serve() as served, opened(browser, served.url) as page:
            futures = [stub.unary_unary.future(f"{number}") for number in range(500)]
            for future in futures:
                future.result(timeout=30)
            methods(page, 51)
            expect(page.locator(".tile .note").first).to_have_text("550 in all")


def test_a_server_that_goes_is_told(browser: Any) -> None:
    """In words, and it goes on by itself when the server is back."""
    rpcz = Rpcz()
    served = rpcz.serve()
    with opened(browser, served.url, allow="ERR_CONNECTION_REFUSED") as page:
        served.close()
        status(page, "asking again")
        with rpcz.serve(served.port):
            status(page, "Live")


def test_the_picture_of_the_documentation(browser: Any, tmp_path: Path) -> None:
    """It is drawn from this page: `python -m tests.web.picture` draws docs/pictures/rpcz.webp anew."""
    drawn = draw(browser, tmp_path / "rpcz.webp")

    assert drawn.read_bytes()[8:12] == b"WEBP"
    assert 20_000 < drawn.stat().st_size < 200_000
