"""Spans and metrics of OpenTelemetry. Needs the extra `otel`, which is its API: the SDK is for the application to choose."""

try:
    import opentelemetry.trace as _  # noqa: F401  is it there?
except ImportError as missing:
    raise ImportError(
        'spans and metrics of OpenTelemetry need a package more: pip install "interpose[otel]"'
    ) from missing

from interpose.contrib.opentelemetry.metrics import OtelMetrics
from interpose.contrib.opentelemetry.tracing import Tracing
from interpose.mechanisms.shown import shown

__all__ = ["OtelMetrics", "Tracing"]

shown(Tracing)
shown(OtelMetrics)
