"""Reading what a registry shows."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

Shown = dict[str, float]  # by the labels that tell the series of a family apart, joined with spaces

WHERE = ("grpc_type", "grpc_service", "grpc_method")


def shown(registry: CollectorRegistry, name: str, *labels: str) -> Shown:
    """All series of this name, by the values of these labels."""
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
    return {" ".join(sample.labels[label] for label in labels): sample.value for sample in samples}


def codes(registry: CollectorRegistry, side: str) -> Shown:
    """How many RPCs have ended with each code, of those with which any has."""
    counted: Shown = {}
    for code, count in shown(registry, f"grpc_{side}_handled_total", "grpc_code", *WHERE).items():
        counted[code.split()[0]] = counted.get(code.split()[0], 0) + count
    return {code: count for code, count in counted.items() if count}


def total(registry: CollectorRegistry, name: str) -> float:
    """The sum of all series of this name."""
    return sum(sample.value for sample in series_of(registry) if sample.name == name)


def series_of(registry: CollectorRegistry) -> list[Any]:
    """All samples."""
    return [sample for family in registry.collect() for sample in family.samples]
