"""Ann and Bob talk; a stranger, and Eve, who may not, are refused. Its one argument is where the server is."""

import asyncio
import sys
from collections.abc import AsyncIterator

import chat_pb2
import chat_pb2_grpc
import grpc

from interpose import errors, intercept_channel
from interpose.interceptors import BearerToken


def connect(target: str, token: str | None):
    """A channel of its own for each person. In earnest with TLS: a token is for nobody else to read."""
    stack = [] if token is None else [BearerToken(lambda: token, insecure="local")]
    return intercept_channel(grpc.aio.insecure_channel(target), *stack)


async def say(channel: grpc.aio.Channel, *texts: str) -> None:
    """Enter the room, say this, and hear it come back."""
    talk = chat_pb2_grpc.ChatStub(channel).Talk()
    for text in texts:
        await talk.write(chat_pb2.Said(text=text))
        await talk.read()
    await talk.done_writing()


async def silence() -> AsyncIterator[chat_pb2.Said]:
    await asyncio.Event().wait()
    yield chat_pb2.Said()


async def main(target: str) -> None:
    async with connect(target, "token-of-ann") as ann, connect(target, "token-of-bob") as bob:
        hearing = chat_pb2_grpc.ChatStub(bob).Talk(silence())
        await hearing.initial_metadata()  # he is in the room
        await say(ann, "hello", "anybody there?")
        for _ in range(2):
            heard = await hearing.read()
            print(f"{heard.who}: {heard.text}")
        hearing.cancel()
    for token in (None, "token-of-eve"):
        async with connect(target, token) as channel:
            try:
                await say(channel, "let me in")
            except errors.StatusError as error:
                print(error.code().name)
            except grpc.aio.AioRpcError as error:  # of a channel without interceptors
                print(error.code().name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
