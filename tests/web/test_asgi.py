"""The page as an ASGI app: driven by hand, as a server would."""

import json
from typing import Any

import pytest

from interpose.interceptors import Rpcz
from interpose.testing import ok, play
from interpose.web.asgi import App


async def asked(
    app: App, path: str, *, root: str = "", verb: str = "GET", host: str = "localhost:8000", query: bytes = b""
) -> Any:
    """Status, headers and body of one request."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("it has no business with the body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": verb,
        "path": path,
        "root_path": root,
        "headers": [(b"host", host.encode())],
        "query_string": query,
    }
    await app(scope, receive, send)
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize(("root", "prefix"), [("", ""), ("/debug/rpcz", ""), ("/debug/rpcz", "/debug/rpcz")])
async def test_the_page_and_its_twin(root: str, prefix: str) -> None:
    """Mounted anywhere; also by frameworks that take their prefix off the path, against the ASGI of today."""
    rpcz = Rpcz()
    play(rpcz, [ok()], method="/shop.v1.Orders/Place")
    app = rpcz.asgi()

    status, headers, body = await asked(app, f"{prefix}/", root=root)
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"rpcz" in body
    status, _, body = await asked(app, f"{prefix}/json", root=root, query=b"filter=place")
    assert status == 200 and json.loads(body)["found"] == 1
    if prefix or not root:
        status, headers, _ = await asked(app, prefix, root=root)
        assert (status, headers[b"location"]) == (302, f"{root}/".encode())
    assert (await asked(app, f"{prefix}/json", root=root, verb="HEAD"))[2] == b""


async def test_strangers_learn_nothing() -> None:
    """A host that was not named, as on the server of its own; one that was is answered."""
    assert (await asked(Rpcz().asgi(), "/json", host="shop.example.com"))[0] == 421
    assert (await asked(Rpcz().asgi(hosts=["shop.example.com"]), "/json", host="shop.example.com"))[0] == 200
    assert (await asked(Rpcz().asgi(), "/json", verb="POST"))[0] == 405
    with pytest.raises(ValueError, match="hosts must be a list"):
        Rpcz().asgi(hosts="shop.example.com")


async def test_as_an_app_of_its_own_it_starts_and_stops() -> None:
    """Lifespan is answered, a websocket refused, and what is unknown left alone."""
    events, sent = iter(["lifespan.startup", "lifespan.shutdown"]), list[Any]()

    async def receive() -> Any:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app = Rpcz().asgi()
    for kind in ("lifespan", "websocket", "else"):
        await app({"type": kind}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
