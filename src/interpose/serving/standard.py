"""The services that every server should have: health and reflection, and channelz by choice. They need the extra `server`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

from interpose.mechanisms.installed import is_installed
from interpose.serving.options import CannotServe, Options

PACKAGES = {"health": "grpc_health.v1", "reflection": "grpc_reflection.v1alpha", "channelz": "grpc_channelz.v1"}
SERVICES = {
    "health": "grpc.health.v1.Health",
    "reflection": "grpc.reflection.v1alpha.ServerReflection",
    "channelz": "grpc.channelz.v1.Channelz",
}


def wanted(options: Options) -> list[str]:
    """Which of them are asked for; CannotServe if their packages are missing."""
    names = [name for name in SERVICES if getattr(options, name)]
    missing = [name for name in names if not is_installed(PACKAGES[name])]
    if missing:
        without = " ".join(f"--no-{name}" for name in missing)
        raise CannotServe(
            f'{" and ".join(missing)} need packages more: pip install "interpose[server]", or serve without: {without}'
        )
    return names


def _part(name: str, part: str = "") -> ModuleType:
    return import_module(".".join(filter(None, (PACKAGES[name], part))))


def health(asyncio: bool) -> Any:
    """A servicer that says how the services do; no client gets an answer before they do."""
    module: Any = _part("health", "health")
    return module.aio.HealthServicer() if asyncio else module.HealthServicer()


def add_health(servicer: Any, server: Any) -> None:
    module: Any = _part("health", "health_pb2_grpc")
    module.add_HealthServicer_to_server(servicer, server)


def status(serving: bool) -> Any:
    """What `set` of a health servicer takes."""
    module: Any = _part("health", "health_pb2")
    kinds = module.HealthCheckResponse
    return kinds.SERVING if serving else kinds.NOT_SERVING


def add_reflection(services: Iterable[str], server: Any) -> None:
    """Let tools ask for the services, their methods and messages."""
    module: Any = _part("reflection", "reflection")
    module.enable_server_reflection(tuple(services), server)


def add_channelz(server: Any) -> None:
    """Let tools ask for channels, sockets and counts of this process."""
    module: Any = _part("channelz", "channelz")
    module.add_channelz_servicer(server)
