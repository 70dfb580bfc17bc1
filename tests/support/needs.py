"""What tests need beyond Python packages: `@pytest.mark.needs("java")`, and the system packages that bring it.

`python -m tests.support.needs` prints the packages, for scripts/interop; with `--suite` those that the suite needs.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

JARS = [
    Path("/usr/share/java") / f"{name}.jar"
    for name in (
        *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "gson", "guava", "perfmark-api"),
        *("netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-common", "netty-handler"),
        *("netty-handler-proxy", "netty-resolver", "netty-transport"),
    )
]

GO_SOURCES = Path("/usr/share/gocode/src")  # where Debian's libraries for Go are
INTEROP = (
    Path(__file__).parents[1] / "interop"
)  # the folder with package.json, and the packages that `npm ci` puts there


@dataclass(frozen=True)
class Need:
    """Something that is there or not. packages: Debian's, which bring it. rare: only `make interop` asks for it."""

    what: str
    is_there: Callable[[], bool]
    packages: tuple[str, ...]
    rare: bool = False


def programs(*names: str) -> Callable[[], bool]:
    """Are these programs on the path?"""
    return lambda: all(map(shutil.which, names))


NEEDS = {
    "java": Need(
        "a JDK and Debian's grpc-java",
        lambda: programs("java", "javac")() and all(jar.exists() for jar in JARS),
        # libgrpc-java itself asks for few of the libraries that it runs with.
        (
            *("default-jdk-headless", "libgrpc-java", "libnetty-java"),
            *("libguava-java", "libgoogle-gson-java", "libperfmark-java"),
        ),
    ),
    "node": Need(
        "node, and the packages of tests/interop/package.json",
        lambda: programs("node")() and (INTEROP / "node_modules/@grpc/grpc-js").exists(),
        () if programs("node", "npm")() else ("nodejs", "npm"),  # a node from elsewhere brings its own npm
    ),
    "go": Need(
        "Go, and Debian's grpc-go",
        lambda: programs("go")() and (GO_SOURCES / "google.golang.org/grpc").exists(),
        ("golang-go", "golang-google-grpc-dev", "golang-goprotobuf-dev"),
        rare=True,
    ),
    "ruby": Need(
        "Ruby, and Debian's grpc for it",
        lambda: programs("ruby")() and any(Path("/usr/lib").glob("*/rubygems-integration/*/gems/grpc-*")),
        ("ruby", "ruby-grpc"),
        rare=True,
    ),
    "connectrpc": Need("the group interop of pyproject.toml", lambda: find_spec("connectrpc") is not None, ()),
    "redis": Need("redis-server", programs("redis-server"), ("redis-server",)),
    "prometheus": Need("prometheus, with promtool", programs("prometheus", "promtool"), ("prometheus",)),
    "chromium": Need(
        "chromium, and the package playwright",
        lambda: programs("chromium")() and find_spec("playwright") is not None,
        ("chromium", "fonts-liberation"),
    ),
    "nginx": Need("nginx", programs("nginx"), ("nginx",)),
    "haproxy": Need("haproxy", programs("haproxy"), ("haproxy",)),
    "systemd": Need("systemd-analyze", programs("systemd-analyze"), ("systemd",)),
    "openssl": Need("the program openssl", programs("openssl"), ("openssl",)),
}

LEFT_OUT = "left out, since this is not installed: "
COUNTED = "interpose/left-out"  # in pytest's cache: what the part before has left out


def pytest_configure(config: pytest.Config) -> None:
    names = ", ".join(sorted(NEEDS))
    config.addinivalue_line("markers", f"needs(name): it needs something that pip does not install: {names}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run; but `make interop`, which has installed all, is to fail then."""
    there = {name: need.is_there() for name, need in NEEDS.items()}
    for item in items:
        for marker in item.iter_markers("needs"):
            (name,) = marker.args
            if name not in NEEDS:
                raise pytest.UsageError(f"{item.nodeid} needs {name!r}, which tests/support/needs.py does not know")
            if NEEDS[name].rare:
                item.add_marker("rare")
            if not there[name] and config.getoption("part") != "interop":
                item.add_marker(pytest.mark.skip(reason=LEFT_OUT + NEEDS[name].what))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line of what was left out: at the end of the last part, for all of them."""
    reasons = (str(report.longrepr[-1]) for report in terminalreporter.getreports("skipped"))
    counts = Counter(reason.partition(LEFT_OUT)[2] for reason in reasons if LEFT_OUT in reason)
    cache = getattr(config, "cache", None)  # which `-p no:cacheprovider` takes away
    if cache is not None and config.getoption("part") == "together":
        cache.set(COUNTED, dict(counts))
        return
    if cache is not None and config.getoption("part") == "alone":
        counts.update(cache.get(COUNTED, {}))
    if counts:
        what = ", ".join(f"{count} for {what}" for what, count in sorted(counts.items()))
        tests = "1 test was" if counts.total() == 1 else f"{counts.total()} tests were"
        terminalreporter.write_line(f"{tests} left out: {what}. `make interop` installs what they need, and runs them.")


if __name__ == "__main__":
    wanted = [need for need in NEEDS.values() if not need.rare or "--suite" not in sys.argv]
    print(*sorted({package for need in wanted for package in need.packages}))  # noqa: T201
