"""The page as an ASGI app, to be mounted in another: `app.mount("/rpcz", rpcz.asgi())`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from interpose.web.site import Reply, Site

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def app(site: Site) -> App:
    """The page as an app of ASGI 3."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            await _send(_reply(site, scope), scope["method"], send)

    return answer


def _reply(site: Site, scope: Scope) -> Reply:
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
    query = scope.get("query_string", b"").decode("latin-1")
    return site.answer(scope["method"], root, path, query, hosts)


async def _send(reply: Reply, verb: str, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if verb == "HEAD" else reply.body})


async def _live(receive: Receive, send: Send) -> None:
    """Nothing is to be done when the server starts or stops, if this is all that it serves."""
    while True:
        event = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{event}.complete"})
        if event == "shutdown":
            return
