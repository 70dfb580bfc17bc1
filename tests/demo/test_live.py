"""`--serve`: the demo's services at work, on a page."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("grpc_tools")

from interpose.demo import __main__, run
from interpose.demo import live as page
from interpose.demo.live import live

pytestmark = pytest.mark.slow  # they look at a whole run of the demo


def read(url: str) -> Any:
    with urllib.request.urlopen(f"{url}json", timeout=10) as reply:
        return json.load(reply)


async def test_both_sides_of_both_services_are_on_the_page() -> None:
    """With what guards them; and when it is cancelled, nothing is left."""
    url = asyncio.get_running_loop().create_future()
    work = asyncio.create_task(live(1, url.set_result))
    try:
        state = await asyncio.to_thread(read, await url)
        while state["totals"]["ended"] < 32:
            state = await asyncio.to_thread(read, await url)
    finally:
        work.cancel()
        await asyncio.wait([work])

    assert {row["side"] for row in state["methods"]} == {"client", "server"}
    assert {card["what"] for card in state["watched"]} >= {"CircuitBreaker", "ConcurrencyLimit", "RateLimit"}
    assert state["title"] == "interpose.demo"


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=str)
def test_its_last_line_is_the_address_until_it_is_interrupted(
    ended: Any, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it ends with the status of what was shown before; a document keeps stdout to itself."""

    async def run_again(seed: int, calls: int, progress: Any) -> Any:
        return ended.story

    async def interrupted(seed: int, say: Callable[[str], object]) -> None:
        say(f"http://127.0.0.1:{seed}/rpcz/")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", run_again)
    monkeypatch.setattr(page, "live", interrupted)

    assert __main__.main(["--serve", "--seed", "7", *arguments]) == 0
    out, err = capsys.readouterr()
    assert (err if arguments else out).splitlines()[-1] == "Live, until Ctrl-C: http://127.0.0.1:7/rpcz/"
    assert not arguments or json.loads(out)["holds"]
