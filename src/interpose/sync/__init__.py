"""The shell for sync grpc: the only room, beside `aio`, that sends, sleeps and waits."""

from interpose.sync.channel import Channel
from interpose.sync.server import handlers
from interpose.sync.serving import Server

__all__ = ["Channel", "Server", "handlers"]
