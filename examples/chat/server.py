"""A chat room: bidirectional streams whose callers are known by their tokens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import chat_pb2
import chat_pb2_grpc
import grpc

import interpose
from interpose.interceptors import (
    HEALTH_AND_REFLECTION,
    AccessLog,
    Authenticate,
    Authorize,
    Identity,
    StaticTokens,
    require,
)

TOKENS = {  # in earnest from a file of secrets, or JSON Web Tokens: docs/jwt.md
    "token-of-ann": Identity("ann", {"chat"}),
    "token-of-bob": Identity("bob", {"chat"}),
    "token-of-eve": Identity("eve"),
}
LONGEST = 500  # characters
WAITING = 100  # lines that a listener may be behind

stack = [
    AccessLog(),
    Authenticate(StaticTokens(TOKENS), public=HEALTH_AND_REFLECTION),
    Authorize({"/chat.v1.Chat/*": require("chat")}),
]


class Chat(chat_pb2_grpc.ChatServicer):
    """What one says, all hear."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[chat_pb2.Heard | None]] = set()

    async def Talk(
        self, requests: AsyncIterator[chat_pb2.Said], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[chat_pb2.Heard]:
        caller = interpose.identity()
        assert caller is not None  # Authenticate lets nobody else in
        heard: asyncio.Queue[chat_pb2.Heard | None] = asyncio.Queue(WAITING)
        self._listeners.add(heard)
        listening = asyncio.create_task(self._listen(caller.subject, requests, heard))
        try:
            await context.send_initial_metadata(())
            while (line := await heard.get()) is not None:
                yield line
        finally:
            self._listeners.discard(heard)
            listening.cancel()

    async def _listen(
        self, who: str, requests: AsyncIterator[chat_pb2.Said], own: asyncio.Queue[chat_pb2.Heard | None]
    ) -> None:
        async for said in requests:
            line = chat_pb2.Heard(who=who, text=said.text[:LONGEST])
            for listener in self._listeners:
                with suppress(asyncio.QueueFull):  # one that is too slow misses lines
                    listener.put_nowait(line)
        await own.put(None)  # it has nothing more to say, and leaves


app = [Chat()]
