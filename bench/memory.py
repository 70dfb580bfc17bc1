"""`python -m bench.memory`: bytes that an open response stream takes, raw and with five no-op layers, on each side.

Server and client are processes of their own. What one of them holds is read when the first `WARM` streams are open, and
when all are.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.families.ours import noop
from bench.places import MODES, SIDES
from bench.processes import ROOT, command
from interpose import intercept_channel, intercept_server

STREAMS, WARM = 2000, 20
LAYERS = [noop] * 5
TURN = 400
CHANNELS = 20  # a connection carries a hundred streams
PATH = "/bench.v1.Open/Watch"


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def told() -> None:
    """Answer each line of the parent with what this process holds."""
    for _ in sys.stdin:
        print(resident(), flush=True)
    os._exit(0)  # with 2,000 streams open: grpc would take its time


# --- the two processes ------------------------------------------------------------------------------------------------


def serve(mode: str, layers: int) -> None:
    """Serve streams that stay open after one message; prints the port."""
    if mode == "sync":
        server, port = _registered(grpc.server(ThreadPoolExecutor(STREAMS + 1)), _watch, layers)
        server.start()
        print(port, flush=True)
        told()
    asyncio.run(_serve_aio(layers))


async def _serve_aio(layers: int) -> None:
    server, port = _registered(grpc.aio.server(), _awatch, layers)
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(told)


def _registered(server: Any, handler: Any, layers: int) -> tuple[Any, int]:
    attached = intercept_server(server, *LAYERS[:layers]) if layers else server
    service, name = PATH[1:].split("/")
    handlers: Any = {name: grpc.unary_stream_rpc_method_handler(handler)}
    attached.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    return attached, attached.add_insecure_port("127.0.0.1:0")


def _watch(request: bytes, context: Any) -> Iterator[bytes]:
    yield request
    threading.Event().wait()


async def _awatch(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request
    await asyncio.get_running_loop().create_future()


OWN = [("grpc.use_local_subchannel_pool", 1)]


def dial(mode: str, layers: int, port: str) -> None:
    """Open as many streams as each line of the parent says, then print what this process holds."""
    if mode == "sync":
        channels: list[Any] = [grpc.insecure_channel(f"127.0.0.1:{port}", OWN) for _ in range(CHANNELS)]
        stubs = [_layered(channel, layers).unary_stream(PATH) for channel in channels]
        kept: list[Any] = []
        for line in sys.stdin:
            opened = [stubs[place % CHANNELS](b"x") for place in range(int(line))]
            kept += [(call, next(call)) for call in opened]
            print(resident(), flush=True)
        os._exit(0)
    asyncio.run(_dial_aio(layers, port))


async def _dial_aio(layers: int, port: str) -> None:
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", OWN) for _ in range(CHANNELS)]
    stubs: list[Any] = [_layered(channel, layers).unary_stream(PATH) for channel in channels]
    kept: list[Any] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        opened = [stubs[place % CHANNELS](b"x") for place in range(int(line))]
        kept += [(call, await call.read()) for call in opened]
        print(resident(), flush=True)
    os._exit(0)


def _layered(channel: Any, layers: int) -> Any:
    return intercept_channel(channel, *LAYERS[:layers]) if layers else channel


# --- from outside -----------------------------------------------------------------------------------------------------


class Process:
    """One of the two."""

    def __init__(self, *arguments: object) -> None:
        line = command("bench.memory", *arguments)
        self._process = subprocess.Popen(line, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603

    def read(self) -> int:
        """The number that it prints next."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def ask(self, word: object = "") -> int:
        """Its answer to a line."""
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def per_stream(mode: str, side: str, layers: int, streams: int = STREAMS) -> float:
    """Bytes of one open stream on that side; the other side is raw."""
    server = Process("serve", mode, layers if side == "server" else 0)
    client = Process("dial", mode, layers if side == "client" else 0, server.read())
    held = []
    for more in (WARM, streams - WARM):
        # By turns: of more than a thousand that wait, the core refuses some.
        turns = [TURN] * (more // TURN) + [more % TURN]
        *_, opened = map(client.ask, turns)
        held.append(opened if side == "client" else server.ask())
    client.end()
    server.end()
    return (held[1] - held[0]) / (streams - WARM)


def main() -> None:
    """Print the table."""
    print("| open response stream | raw | five layers | |\n| --- | ---: | ---: | ---: |")
    for mode in MODES:
        for side in SIDES:
            raw, layered = (per_stream(mode, side, layers) for layers in (0, len(LAYERS)))
            print(
                f"| {mode} {side} | {raw / 1000:.1f} kB | {layered / 1000:.1f} kB | ×{layered / raw:.2f} |", flush=True
            )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", mode, layers]:
            serve(mode, int(layers))
        case ["dial", mode, layers, port]:
            dial(mode, int(layers), port)
        case _:
            main()
