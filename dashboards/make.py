"""What the dashboards show. `python -m dashboards.make` writes the JSON files beside this one.

Names are those of `interpose.contrib.prometheus`; in the files that begin with "otel" those of OpenTelemetry's semantic
conventions, as `interpose.contrib.opentelemetry.OtelMetrics` records them and Prometheus stores them. Grafana fills in
$datasource, $job, $service, $method and $stack, and $__rate_interval: four scrapes, at least.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of a row in Grafana

# Codes that speak of the server, and not of what it was asked. OpenTelemetry semantic conventions, "gRPC server":
# the codes that are errors there. Written in both namings.
FAULTS = (
    "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss"
    "|UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
)
METHOD = 'job=~"$job",grpc_service=~"$service",grpc_method=~"$method"'
CALLED = 'job=~"$job",rpc_method=~"$method"'  # OpenTelemetry has service and method in one label
STACK = 'job=~"$job",stack=~"$stack"'
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Panel:
    """One panel. queries: a legend and an expression each. kind: of Grafana's. unit: one of its names for units."""

    title: str
    queries: Sequence[tuple[str, str]]
    about: str
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    options: dict[str, Any] = field(default_factory=dict)


def rate(name: str, labels: str = METHOD) -> str:
    """How often something is counted, per second."""
    return f"rate({name}{{{labels}}}[$__rate_interval])"


def below(share: float, buckets: str) -> str:
    """The seconds that this share of the RPCs stayed below. buckets: their rate."""
    return f"histogram_quantile({share}, sum by (le) ({buckets}))"


def durations(buckets: str, note: str) -> Iterator[Panel]:
    """How long RPCs take. buckets: their rate."""
    yield Panel(
        "How long RPCs take", [(f"{share:.0%} below", below(share, buckets)) for share in QUANTILES], note, unit="s"
    )
    yield Panel(
        "All durations",
        [("{{le}}", f"sum by (le) ({buckets})")],
        "How many RPCs take how long. Two bands are two kinds of calls, or a cache that misses.",
        kind="heatmap",
        options={"calculate": False, "yAxis": {"unit": "s"}},
    )


def buckets_of(side: str) -> str:
    """The rate of the buckets of our own histogram."""
    return rate(f"grpc_{side}_handling_seconds_bucket")


def part(wrong: str, every: str, by: str) -> str:
    """The share that one rate has in another; 0 where the first has nothing."""
    total = f"sum{by} ({every})"
    return f"(sum{by} ({wrong}) or 0 * {total}) / ({total} > 0)"


def faults(side: str, by: str = "") -> str:
    """The share of RPCs that ended with a fault; 0 where there are none."""
    name = f"grpc_{side}_handled_total"
    return part(rate(name, f'{METHOD},grpc_code=~"{FAULTS}"'), rate(name), by)


def numbers(side: str) -> Iterator[Panel]:
    """The four numbers at the top."""
    width = WIDTH // 4
    stat = {"kind": "stat", "width": width, "height": 4}
    yield Panel(
        "RPCs per second", [("", f"sum({rate(f'grpc_{side}_started_total')})")], "Started.", unit="reqps", **stat
    )
    yield Panel("Faults", [("", faults(side))], "Share of RPCs that ended with a fault.", unit="percentunit", **stat)
    yield Panel("99 % are below", [("", below(0.99, buckets_of(side)))], "Needs histogram=True.", unit="s", **stat)
    yield Panel("In flight", [("", f"sum(interpose_{side}_rpcs_in_flight{{{METHOD}}})")], "RPCs that run now.", **stat)


def of_side(side: str, refused: str) -> Iterator[Panel]:
    """What servers and clients have in common."""
    yield from numbers(side)
    yield Panel(
        "RPCs by method",
        [
            (
                "{{grpc_service}}/{{grpc_method}}",
                f"sum by (grpc_service, grpc_method) ({rate(f'grpc_{side}_started_total')})",
            )
        ],
        "Started, per second.",
        unit="reqps",
    )
    ended = rate(f"grpc_{side}_handled_total", f'{METHOD},grpc_code!="OK"')
    yield Panel(
        "Ends other than OK",
        [("{{grpc_code}}", f"sum by (grpc_code) ({ended})")],
        "By code, per second. Each RPC has one end: aborted, cancelled and dropped streams are among them.",
        unit="reqps",
    )
    yield Panel(
        "Faults by method",
        [("{{grpc_service}}/{{grpc_method}}", faults(side, " by (grpc_service, grpc_method)"))],
        "Share of RPCs that ended with a code that speaks of the server.",
        unit="percentunit",
    )
    yield from durations(buckets_of(side), "To the end of the stream. Needs histogram=True.")
    yield Panel(
        "In flight by method",
        [
            (
                "{{grpc_service}}/{{grpc_method}}",
                f"sum by (grpc_service, grpc_method) (interpose_{side}_rpcs_in_flight{{{METHOD}}})",
            )
        ],
        "One that only grows is a stream that nobody ends.",
    )
    yield Panel(
        "Messages",
        [(way, f"sum({rate(f'grpc_{side}_msg_{way}_total')})") for way in ("received", "sent")],
        "Per second; those of a stream count as they pass.",
        unit="cps",
    )
    yield Panel(
        "Refused by an interceptor",
        [
            (
                "{{grpc_service}}/{{grpc_method}}",
                f"sum by (grpc_service, grpc_method) ({rate(f'interpose_{side}_refused_total')})",
            )
        ],
        refused,
        unit="reqps",
    )


def servers() -> Iterator[Panel]:
    """RPCs as the servers see them."""
    yield from of_side(
        "server", "Ended before the handler was called: by a limit, a guard, or a deadline that had passed."
    )


def clients() -> Iterator[Panel]:
    """RPCs as their callers see them."""
    yield from of_side("client", "Ended before anything was sent: by an open breaker, a limit, or a deadline.")
    attempts = (
        f"sum by (grpc_service, grpc_method) ({rate('interpose_client_attempts_total')}) / "
        f"(sum by (grpc_service, grpc_method) ({rate('grpc_client_handled_total')}) > 0)"
    )
    yield Panel(
        "Attempts per RPC",
        [("{{grpc_service}}/{{grpc_method}}", attempts)],
        "1 without retries and hedges. What is above is load that the servers would not have otherwise.",
        width=WIDTH,
    )


# --- the same of OpenTelemetry's names: one histogram by method and code, of RPCs that have ended ---------------------


def otel(side: str, suffix: str, labels: str = CALLED) -> str:
    """The rate of a part of the histogram."""
    return rate(f"rpc_{side}_call_duration_seconds_{suffix}", labels)


def otel_faults(side: str, by: str = "") -> str:
    """The share of RPCs that ended with a fault; 0 where there are none."""
    return part(otel(side, "count", f'{CALLED},rpc_status_code=~"{FAULTS}"'), otel(side, "count"), by)


def otel_mean(side: str, by: str = "") -> str:
    """The seconds that an RPC took on average."""
    return f"sum{by} ({otel(side, 'sum')}) / (sum{by} ({otel(side, 'count')}) > 0)"


def otel_numbers(side: str) -> Iterator[Panel]:
    """The four numbers at the top."""
    stat = {"kind": "stat", "width": WIDTH // 4, "height": 4}
    yield Panel("RPCs per second", [("", f"sum({otel(side, 'count')})")], "Ended.", unit="reqps", **stat)
    yield Panel(
        "Faults", [("", otel_faults(side))], "Share of RPCs that ended with a fault.", unit="percentunit", **stat
    )
    yield Panel(
        "99 % are below", [("", below(0.99, otel(side, "bucket")))], "To the end of the stream.", unit="s", **stat
    )
    yield Panel("On average", [("", otel_mean(side))], "How long an RPC takes.", unit="s", **stat)


def otel_side(side: str) -> Iterator[Panel]:
    """What servers and clients have in common."""
    yield from otel_numbers(side)
    name, by = "{{rpc_method}}", " by (rpc_method)"
    yield Panel("RPCs by method", [(name, f"sum{by} ({otel(side, 'count')})")], "Ended, per second.", unit="reqps")
    ended = otel(side, "count", f'{CALLED},rpc_status_code!="OK"')
    yield Panel(
        "Ends other than OK",
        [("{{rpc_status_code}}", f"sum by (rpc_status_code) ({ended})")],
        "By code, per second. Each RPC has one end: aborted, cancelled and dropped streams are among them.",
        unit="reqps",
    )
    yield Panel(
        "Faults by method",
        [(name, otel_faults(side, by))],
        "Share of RPCs that ended with a code that speaks of the server.",
        unit="percentunit",
    )
    yield from durations(otel(side, "bucket"), "To the end of the stream.")
    yield Panel("On average by method", [(name, otel_mean(side, by))], "How long an RPC takes.", unit="s")


def otel_clients() -> Iterator[Panel]:
    """RPCs as their callers see them."""
    yield from otel_side("client")
    yield Panel(
        "RPCs by server",
        [
            (
                "{{server_address}}:{{server_port}}",
                f"sum by (server_address, server_port) ({otel('client', 'count')})",
            )
        ],
        "By the target of the channel, per second. Retries and hedges are in the RPC that they belong to.",
        unit="reqps",
        width=WIDTH,
    )


# --- what a stack does ------------------------------------------------------------------------------------------------


def by_stack(name: str, label: str = "") -> str:
    """The rate of a counter of `watch`, by stack."""
    return f"sum by (stack{label}) ({rate(name, STACK)})"


def resilience() -> Iterator[Panel]:
    """What `PrometheusMetrics.watch` shows: retries, hedges, breakers, limits."""
    yield Panel(
        "Retries",
        [
            ("{{stack}} sent", by_stack("interpose_retries_total")),
            ("{{stack}} over budget", by_stack("interpose_retries_over_budget_total")),
        ],
        "Per second. Over budget: so many fail that another attempt would only add load.",
        unit="reqps",
    )
    left = (
        f"sum by (stack) (interpose_retry_tokens{{{STACK}}}) / sum by (stack) (interpose_retry_tokens_most{{{STACK}}})"
    )
    yield Panel(
        "Retry budget",
        [("{{stack}}", left)],
        "What is left. At half or less nothing is retried or hedged.",
        unit="percentunit",
    )
    yield Panel(
        "Hedges",
        [
            ("{{stack}} sent", by_stack("interpose_hedges_total")),
            ("{{stack}} won", by_stack("interpose_hedges_won_total")),
            ("{{stack}} over budget", by_stack("interpose_hedges_over_budget_total")),
        ],
        "Copies per second. If few win, the delay is too short.",
        unit="reqps",
    )
    yield Panel(
        "Circuit breakers",
        [("{{stack}} {{mode}}", f'sum by (stack, mode) (interpose_circuit_breakers{{{STACK},mode!="closed"}})')],
        "How many are not closed.",
    )
    yield Panel(
        "Refused by breakers",
        [("{{stack}}", by_stack("interpose_circuit_refused_total"))],
        "Calls per second that were not sent to a server that is down.",
        unit="reqps",
    )
    yield Panel(
        "Concurrency",
        [
            (f"{{{{stack}}}} {word}", f"sum by (stack) (interpose_concurrency_{word}{{{STACK}}})")
            for word in ("limit", "in_flight", "queued")
        ],
        "A limit that falls while calls wait: the server has become slower.",
    )
    yield Panel(
        "Shed",
        [("{{stack}}", by_stack("interpose_concurrency_shed_total"))],
        "Calls per second that were refused since too many ran.",
        unit="reqps",
    )
    yield Panel(
        "Rate limits",
        [("{{stack}} {{decision}}", by_stack("interpose_rate_limit_calls_total", ", decision"))],
        "Calls per second by decision. Unchecked: the store does not answer.",
        unit="reqps",
    )
    yield Panel(
        "Callers counted",
        [("{{stack}}", f"sum by (stack) (interpose_rate_limit_keys{{{STACK}}})")],
        "Keys of rate limits in memory.",
        width=WIDTH,
        height=6,
    )


# --- Grafana's JSON -------------------------------------------------------------------------------------------------


def chosen(name: str, query: str) -> dict[str, Any]:
    """A variable: the values of a label, of which several or all may be chosen."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def variables(series: str, *labels: tuple[str, str]) -> list[dict[str, Any]]:
    """Where the data come from, and what of them is shown."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}}
    return [source, *(chosen(name, f"label_values({series}, {label})") for name, label in labels)]


def placed(panels: Iterator[Panel]) -> Iterator[dict[str, Any]]:
    """The panels from left to right, row by row."""
    x = y = row = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        yield shown(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height})
        x, row = x + panel.width, max(row, panel.height)


def shown(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    """A panel as Grafana has it."""
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": panel.options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "exemplar": "_bucket" in expression and panel.kind == "timeseries",
                **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
            }
            for place, (legend, expression) in enumerate(panel.queries)
        ],
    }


def dashboard(name: str, title: str, panels: Iterator[Panel], choices: list[dict[str, Any]]) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    return {
        "uid": f"interpose-{name}",
        "title": title,
        "tags": ["grpc", "interpose"],
        "schemaVersion": 39,  # Grafana 11
        "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": choices},
        "panels": list(placed(panels)),
    }


def dashboards() -> dict[str, dict[str, Any]]:
    """All of them, by the names of their files."""
    methods = ("job", "job"), ("service", "grpc_service"), ("method", "grpc_method")
    called = ("job", "job"), ("method", "rpc_method")
    return {
        f"{name}.json": dashboard(name, title, panels, variables(*choices))
        for name, title, panels, choices in (
            ("servers", "gRPC servers", servers(), ("grpc_server_started_total", *methods)),
            ("clients", "gRPC clients", clients(), ("grpc_client_started_total", *methods)),
            (
                "otel-servers",
                "gRPC servers, OpenTelemetry",
                otel_side("server"),
                ("rpc_server_call_duration_seconds_count", *called),
            ),
            (
                "otel-clients",
                "gRPC clients, OpenTelemetry",
                otel_clients(),
                ("rpc_client_call_duration_seconds_count", *called),
            ),
            (
                "resilience",
                "gRPC resilience",
                resilience(),
                ('{__name__=~"interpose_.+",stack!=""}', ("job", "job"), ("stack", "stack")),
            ),
        )
    }


def text_of(made: dict[str, Any]) -> str:
    """As it stands in the file."""
    return json.dumps(made, indent=2) + "\n"


if __name__ == "__main__":
    for file, made in dashboards().items():
        (HERE / file).write_text(text_of(made))
