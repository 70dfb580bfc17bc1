"""What is wrong with the options is said at construction, all of it, with what to write instead."""

import subprocess
import sys
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, Counter

from interpose import describe
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.testing import play
from tests.contrib.prometheus.reading import total
from tests.interceptors.driving import failing, incoming, outgoing


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"naming": "java"}, "naming must be 'go' or 'python', not 'java'"),
        ({"naming": ["go"]}, "naming must be 'go' or 'python'"),
        ({"histogram": (0.1, 0.1)}, "histogram must be True, False, or bounds in seconds that grow"),
        ({"histogram": (1, 0.1)}, "bounds in seconds that grow, like (0.01, 0.1, 1.0), not (1, 0.1)"),
        ({"histogram": ()}, "that grow"),
        ({"histogram": (0, 1)}, "that grow"),
        ({"histogram": "0.1 1"}, "that grow"),
        ({"histogram": (True, 2)}, "that grow"),
        ({"histogram": (float("nan"),)}, "that grow"),
        ({"histogram": tuple(range(1, 200))}, "that grow"),
        ({"labels": {"grpc_code": "x"}}, "labels must not have 'grpc_code': there is such a label already"),
        ({"labels": {"le": "x"}}, "labels must not have 'le'"),
        ({"labels": {"a-b": "x"}}, "labels must have names like 'zone', not 'a-b'"),
        ({"labels": {"__a": "x"}}, "labels must have names like 'zone', not '__a'"),
        ({"labels": {7: "x"}}, "labels must have names like 'zone', not 7"),
        ({"labels": {"a": 7}}, "labels must have texts as values, not 7 for 'a'"),
        ({"labels": ["a"]}, "labels must be a dict like {'zone': 'eu-1'}, not ['a']"),
        ({"exemplars": 7}, "exemplars must be True, False, or a function that gives labels, not 7"),
        ({"methods": "shop.v1.Orders"}, "methods 'shop.v1.Orders' "),
        ({"methods": [7]}, "methods 7 is no text"),
        ({"registry": CollectorRegistry}, "registry must be a prometheus_client.CollectorRegistry()"),
        ({"registry": 7}, "registry must be a prometheus_client.CollectorRegistry(), not 7"),
        ({"wall": 7}, "wall must be a function like time.time, not 7"),
    ],
)
def test_a_bad_option(options: dict[str, Any], fault: str) -> None:
    """ValueError, which says what to write instead."""
    with pytest.raises(ValueError, match=r"^PrometheusMetrics: ") as caught:
        PrometheusMetrics(**{"registry": CollectorRegistry(), **options})

    assert fault in str(caught.value)


def test_all_faults_at_once() -> None:
    """Nobody has to come back for the next one."""
    with pytest.raises(ValueError, match=r"naming.*; histogram.*; labels.*"):
        PrometheusMetrics(naming="x", histogram=(2, 1), labels={"le": ""})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"naming": "python"},
            "naming must be 'go', as the registry has it already, or another registry; not 'python'",
        ),
        ({"histogram": True}, "histogram must be None, as the registry has it already"),
        ({"labels": {"zone": "b"}}, "labels must be {'zone': 'a'}, as the registry has it already"),
    ],
)
def test_two_that_disagree_on_one_registry(options: dict[str, Any], fault: str) -> None:
    """The second one is refused: one family cannot speak two languages."""
    registry = CollectorRegistry()
    PrometheusMetrics(registry=registry, labels={"zone": "a"})

    with pytest.raises(ValueError, match="PrometheusMetrics: ") as caught:
        PrometheusMetrics(**{"registry": registry, "labels": {"zone": "a"}, **options})

    assert fault in str(caught.value)


def test_many_on_one_registry() -> None:
    """They count into the same series, on both sides."""
    registry = CollectorRegistry()
    many = [PrometheusMetrics(registry=registry) for _ in range(3)]

    for metrics in many:
        play(metrics, [failing(grpc.StatusCode.ABORTED)], **incoming())
        play(metrics, [failing(grpc.StatusCode.ABORTED)], **outgoing())

    assert total(registry, "grpc_server_handled_total") == 3
    assert total(registry, "grpc_client_handled_total") == 3


def test_series_of_somebody_else() -> None:
    """Those of another package on the same registry: an error that says so."""
    registry = CollectorRegistry()
    Counter("grpc_server_started_total", "of py-grpc-prometheus", ["grpc_type"], registry=registry)

    with pytest.raises(ValueError, match=r"series of these names that are not ours.*registry=CollectorRegistry\(\)"):
        PrometheusMetrics(registry=registry)


def test_infinity_as_the_last_bound_goes_without_saying() -> None:
    """prometheus_client's own defaults end with it."""
    registry = CollectorRegistry()
    PrometheusMetrics(registry=registry, histogram=(0.1, 1, float("inf")))

    PrometheusMetrics(registry=registry, histogram=(0.1, 1))


def test_a_name_of_a_stack_that_is_none() -> None:
    """And what is no interceptor."""
    metrics = PrometheusMetrics(registry=CollectorRegistry())

    with pytest.raises(ValueError, match=r"PrometheusMetrics\.watch: stack must be a short text, not "):
        metrics.watch("")
    with pytest.raises(TypeError, match="is no function"):
        metrics.watch("shop", 7)  # type: ignore[arg-type]


def test_the_extra_is_named() -> None:
    """Without prometheus_client there is an error with the line that installs it."""
    code = "import sys; sys.modules['prometheus_client'] = None; import interpose.contrib.prometheus"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert 'pip install "interpose[prometheus]"' in done.stderr


def test_describe_knows_it() -> None:
    """What it does, and where it stands wrongly."""
    from interpose.interceptors import ConcurrencyLimit, ExceptionToStatus, RateLimit

    metrics = PrometheusMetrics(registry=CollectorRegistry())
    told = describe(ExceptionToStatus(), RateLimit("1/second"), ConcurrencyLimit(5), metrics)

    assert "4. PrometheusMetrics  Count RPCs for Prometheus" in told
    assert told.count("! ") == 3
    assert "!" not in describe(metrics, RateLimit("1/second"), ConcurrencyLimit(5), ExceptionToStatus())
