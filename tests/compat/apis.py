"""The two packages that are compared: the published one, which is the oracle, and ours."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

MODULES = (  # every module of the published package that users can import from
    "",
    "client",
    "exception_to_status",
    "exceptions",
    "server",
    "testing",
    "testing.dummy_client",
    "testing.protos",
    "testing.protos.dummy_pb2",
    "testing.protos.dummy_pb2_grpc",
)


class Api:
    """One of the two. Attributes are those of the package; modules are loaded when they are asked for."""

    def __init__(self, package: str) -> None:
        self.package = package

    def __repr__(self) -> str:
        return self.package

    def module(self, name: str) -> ModuleType:
        return import_module(f"{self.package}.{name}" if name else self.package)

    def __getattr__(self, name: str) -> Any:
        return self.module(name) if name in MODULES else getattr(self.module(""), name)


ORIGINAL = Api("grpc_interceptor")
OURS = Api("interpose.compat.grpc_interceptor")
BOTH = (ORIGINAL, OURS)
