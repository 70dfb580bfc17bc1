"""A real Prometheus for tests, on a free port of the loopback interface."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.contrib.redis.server import free_port
from tests.support.patience import PATIENCE

Series = list[dict[str, Any]]  # of Prometheus' API: `metric`, with its labels, and `value` or `values`


class PrometheusServer:
    """Runs as long as it is entered. folder: where it keeps its data, and finds what is there. config: its YAML."""

    def __init__(self, folder: Path, config: str = "{}") -> None:
        self._folder = folder
        self._config = folder / "prometheus.yml"
        self._config.write_text(config)
        self._port = free_port()

    def __enter__(self) -> Self:
        log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--storage.tsdb.retention.time=100y",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        while self._process.poll() is None:
            with suppress(URLError, ConnectionError):
                urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=PATIENCE).close()
                return self
        raise RuntimeError(f"Prometheus has ended:\n{(self._folder / 'log').read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def query(self, expression: str, when: float | None = None) -> Series:
        """What an expression gives at a time; now, if none is given."""
        return self._asked("query", {"query": expression, **({} if when is None else {"time": when})})["result"]

    def query_range(self, expression: str, start: float, end: float, step: float) -> Series:
        """What it gives at each step."""
        asked = {"query": expression, "start": start, "end": end, "step": step}
        return self._asked("query_range", asked)["result"]

    def exemplars(self, expression: str, start: float, end: float) -> Series:
        """The exemplars of the series in an expression."""
        return self._asked("query_exemplars", {"query": expression, "start": start, "end": end})

    def _asked(self, what: str, parameters: Mapping[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None


def checked(*arguments: str, given: str = "") -> str:
    """What promtool says, if it finds no fault."""
    done = subprocess.run(["promtool", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
