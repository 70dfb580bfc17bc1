"""Metrics for Prometheus: started, handled, messages, latency, and what the resilience of a stack does. Extra `prometheus`."""

try:
    import prometheus_client as _  # noqa: F401  is it there?
except ImportError as missing:
    raise ImportError('metrics for Prometheus need a package more: pip install "interpose[prometheus]"') from missing

from interpose.contrib.prometheus.collector import MethodState
from interpose.contrib.prometheus.metrics import PrometheusMetrics
from interpose.contrib.prometheus.naming import BUCKETS
from interpose.mechanisms.shown import shown

__all__ = ["BUCKETS", "MethodState", "PrometheusMetrics"]

shown(PrometheusMetrics)
