"""The dashboards and alert rules, asked of a real Prometheus that holds the series of a storm."""

import json
import math
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dashboards import make
from tests.contrib.prometheus import storm
from tests.contrib.prometheus.server import PrometheusServer, checked

FILES = sorted(make.HERE.glob("*.json"))
RULES = make.HERE / "alerts.yml"
FILLED_IN = {"$__rate_interval": "1m", "$job": ".*", "$service": ".*", "$method": ".*", "$stack": ".*"}

# That one gives the values of a point's labels to the names that another point has; 0.66b2 does not.
exported = pytest.mark.skipif(
    version("opentelemetry-exporter-prometheus") == "0.51b0", reason="this exporter mixes up the labels of points"
)

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.slow]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """It holds what was scraped during a storm, which took eighteen minutes by the storm's own clock."""
    folder = tmp_path_factory.mktemp("prometheus")
    text, _ = storm.blown()
    (folder / "past").write_text(text)
    checked("tsdb", "create-blocks-from", "openmetrics", str(folder / "past"), str(folder / "data"))
    with PrometheusServer(folder) as server:
        yield server


def filled_in(expression: str) -> str:
    """An expression as Grafana sends it, with nothing chosen."""
    for variable, value in FILLED_IN.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def panels() -> Iterator[Any]:
    """All panels of all files."""
    for file in FILES:
        for panel in json.loads(file.read_text())["panels"]:
            marks = [exported] if file.stem.startswith("otel") else []
            yield pytest.param(panel, id=f"{file.stem}: {panel['title']}", marks=marks)


def rules() -> dict[str, str]:
    """The alerts by name, as Prometheus reads them."""
    found = re.split(r"^ *- alert: ", RULES.read_text(), flags=re.MULTILINE)[1:]
    return {rule.split()[0]: re.search(r"expr: \|?(.*?)\n +for:", rule, re.DOTALL)[1] for rule in found}  # type: ignore[index]


@pytest.mark.parametrize("panel", list(panels()))
def test_no_panel_is_empty(panel: dict[str, Any], prometheus: PrometheusServer) -> None:
    """Each of its queries has numbers in the course of the storm, and says what it is."""
    assert panel["title"] and panel["description"]
    for target in panel["targets"]:
        found = prometheus.query_range(filled_in(target["expr"]), storm.START, storm.RECOVERED, storm.TICK)
        numbers = [float(value) for series in found for _, value in series["values"]]
        assert any(map(math.isfinite, numbers)), target["expr"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(label in series["metric"] for series in found), target["legendFormat"]


def test_the_files_are_what_make_writes() -> None:
    """`python -m dashboards.make` has been run since the panels were changed."""
    assert {file.name: file.read_text() for file in FILES} == {
        name: make.text_of(made) for name, made in make.dashboards().items()
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_fill_their_rows(file: Path) -> None:
    """No two overlap, and no row has a hole."""
    taken = [
        (x, y)
        for panel in json.loads(file.read_text())["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken) == make.WIDTH * (max(y for _, y in taken) + 1)


def query_of(dashboard: str, title: str, query: int = 0) -> str:
    """A query of a panel, filled in."""
    made = make.dashboards()[f"{dashboard}.json"]
    [panel] = [panel for panel in made["panels"] if panel["title"] == title]
    return filled_in(panel["targets"][query]["expr"])


def numbers(prometheus: PrometheusServer, expression: str, label: str, when: float) -> dict[str, float]:
    """What it gives at a time, by a label."""
    return {
        series["metric"].get(label, ""): pytest.approx(float(series["value"][1]))
        for series in prometheus.query(expression, when)
    }


def test_the_numbers_that_the_storm_made(prometheus: PrometheusServer) -> None:
    """What the panels of a day that is well show is what was called."""
    per_second = 1 / storm.TICK

    methods = numbers(prometheus, query_of("clients", "RPCs by method"), "grpc_method", storm.HEALTHY)
    ends = numbers(prometheus, query_of("clients", "Ends other than OK"), "grpc_code", storm.HEALTHY)
    faults = numbers(prometheus, query_of("clients", "Faults by method"), "grpc_method", storm.HEALTHY)
    attempts = numbers(prometheus, query_of("clients", "Attempts per RPC"), "grpc_method", storm.HEALTHY)
    sent = numbers(prometheus, query_of("servers", "Messages", 1), "", storm.HEALTHY)

    assert methods == {
        "Get": (storm.GETS + storm.MISSING) * per_second,
        "Search": storm.SEARCHES * per_second,
        "Ping": storm.PINGS * per_second,
        "Watch": per_second,
    }
    assert ends == {
        "NotFound": storm.MISSING * per_second,
        "ResourceExhausted": (storm.PINGS - storm.ADMITTED) * per_second,
    }
    assert faults == dict.fromkeys(methods, 0)
    # A first copy of a search may answer before a second one goes, or before that one arrives.
    assert 1 <= attempts.pop("Search").expected <= 2
    assert attempts == dict.fromkeys(methods.keys() - {"Search"}, 1)
    least = storm.GETS + storm.MISSING + storm.PINGS + 2 + storm.SEARCHES
    assert least * per_second <= 1.001 * sent[""].expected <= 1.001 * (least + storm.SEARCHES) * per_second


@exported
def test_the_numbers_by_opentelemetry(prometheus: PrometheusServer) -> None:
    """They are those of our own series."""
    called = numbers(prometheus, query_of("otel-clients", "RPCs by method"), "rpc_method", storm.HEALTHY)
    ends = numbers(prometheus, query_of("otel-servers", "Ends other than OK"), "rpc_status_code", storm.DOWN)
    ours = numbers(prometheus, query_of("servers", "Ends other than OK"), "grpc_code", storm.DOWN)

    assert called == {
        f"{storm.SERVICE}/Get": (storm.GETS + storm.MISSING) / storm.TICK,
        f"{storm.SERVICE}/Search": storm.SEARCHES / storm.TICK,
    }
    assert ends["UNAVAILABLE"].expected == ours["Unavailable"].expected > 0


def test_the_numbers_of_a_bad_day(prometheus: PrometheusServer) -> None:
    """What ended badly, and what the stack made of it."""
    per_second = 1 / storm.TICK

    ends = numbers(prometheus, query_of("clients", "Ends other than OK"), "grpc_code", storm.DOWN)
    refused = numbers(prometheus, query_of("servers", "Refused by an interceptor"), "grpc_method", storm.DOWN)
    shed = numbers(prometheus, query_of("resilience", "Shed"), "stack", storm.DOWN)
    decisions = numbers(prometheus, query_of("resilience", "Rate limits"), "decision", storm.DOWN)
    breakers = numbers(prometheus, query_of("resilience", "Circuit breakers"), "mode", storm.DOWN)

    every = storm.GETS + storm.MISSING + storm.INSISTED + 1  # and one that was asked while there was no slot
    assert ends["Unavailable"] == every * per_second
    assert (refused["Ping"], refused["Ask"], refused["Get"]) == (
        (storm.PINGS - storm.ADMITTED) * per_second,
        per_second,
        0,
    )
    assert shed == {"server": per_second}
    assert decisions["refused"] == (storm.PINGS - storm.ADMITTED) * per_second
    assert decisions["unchecked"].expected > 1
    assert breakers["forced_open"] == 1
    assert breakers["open"].expected + breakers["half_open"].expected == 1


@pytest.mark.parametrize("alert", rules())
def test_an_alert(alert: str, prometheus: PrometheusServer) -> None:
    """It is quiet before the storm and six minutes after it, and it is there in its middle."""
    expression = rules()[alert]

    assert not prometheus.query(expression, storm.HEALTHY)
    assert any(prometheus.query(expression, storm.DOWN - storm.TICK * back) for back in range(3))
    assert not prometheus.query(expression, storm.RECOVERED)


def test_the_rules_are_well_formed() -> None:
    """By promtool's judgement."""
    assert f"{len(rules())} rules found" in checked("check", "rules", str(RULES))
    assert all(re.search(r"^ +(summary|description): ", RULES.read_text(), re.MULTILINE) for _ in rules())
