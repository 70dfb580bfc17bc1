"""What many reloads leave behind: memory, threads and open files of the processes that live through them.

    python -m tests.serving.reloads --times 100

Workers are replaced again and again, which their supervisor lives through; and certificates are read anew again and
again, which a server lives through.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import trustme

WARM = 2  # reloads before the first look: what is made once has been made then
FOLDER = str(Path(__file__).parent)


@dataclass(frozen=True)
class Size:
    """Of a process. memory: resident, in KiB."""

    memory: int
    threads: int
    files: int

    def __sub__(self, other: Size) -> Size:
        return Size(self.memory - other.memory, self.threads - other.threads, self.files - other.files)


def size(pid: int) -> Size:
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Size(int(told["VmRSS"].split()[0]), int(told["Threads"]), files)


def growth(pid: int, times: int, reload: Callable[[], None]) -> Size:
    """How much a process has grown over so many reloads."""
    for _ in range(WARM):
        reload()
    before = size(pid)
    for _ in range(times):
        reload()
    return size(pid) - before


def of_workers(times: int) -> Size:
    """What replacing a worker so many times leaves in the supervisor."""
    with serving("--workers", "1") as (process, _):

        def reload() -> None:
            process.send_signal(signal.SIGHUP)
            until(process, "replaced; workers are")

        return growth(process.pid, times, reload)


def of_certificates(times: int) -> Size:
    """What reading certificates so many times leaves in the server; each time a client connects and calls."""
    with tempfile.TemporaryDirectory() as folder:
        key, cert = Path(folder) / "key", Path(folder) / "cert"
        authority = trustme.CA()
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())

        def renew() -> None:
            certificate = authority.issue_cert("localhost")
            for file, content in ((key, certificate.private_key_pem), (cert, certificate.cert_chain_pems[0])):
                file.with_suffix(".new").write_bytes(content.bytes())
                file.with_suffix(".new").rename(file)

        renew()
        with serving("--tls-key", str(key), "--tls-cert", str(cert)) as (process, target):

            def reload() -> None:
                renew()
                options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
                with grpc.secure_channel(target, trusted, options) as channel:
                    channel.unary_unary("/test.Shop/unary_unary")(b"hello", timeout=60)
                until(process, "certificates were read anew")

            return growth(process.pid, times, reload)


@contextmanager
def serving(*flags: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its target."""
    command = [
        sys.executable,
        "-m",
        "interpose",
        "serve",
        "command_app:app",
        "--app-dir",
        FOLDER,
        "--port",
        "0",
        "--no-health",
        "--no-reflection",
        *flags,
    ]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **paths}
    ) as process:
        try:
            found = re.search(r"serving on (\S+)", until(process, "serving on"))
            assert found is not None
            yield process, found[1]
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()


def until(process: subprocess.Popen[str], part: str) -> str:
    """The next line of its log that has this part."""
    lines: Iterable[Any] = process.stderr or ()
    for line in lines:
        if part in line:
            return str(line)
    raise AssertionError(f"the server ended without saying {part!r}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=100)
    given = options.parse_args()
    print("workers replaced:      ", of_workers(given.times))  # noqa: T201  a program
    print("certificates read anew:", of_certificates(given.times))  # noqa: T201
