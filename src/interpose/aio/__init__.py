"""The shell for grpc.aio: the only room, beside `sync`, that sends, sleeps and waits."""

from interpose.aio.channel import Channel
from interpose.aio.server import Handlers
from interpose.aio.serving import Server

__all__ = ["Channel", "Handlers", "Server"]
