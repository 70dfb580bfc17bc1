"""The protos of this folder as Python, made when a test first asks for them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PROTOS = Path(__file__).parent


def compile_protos(home: Path) -> None:
    """Write `features_pb2.py`, `features_pb2_grpc.py` and their like into `home`."""
    from grpc_tools import protoc

    names = [proto.name for proto in sorted(PROTOS.glob("*.proto"))]
    arguments = ["protoc", f"-I{PROTOS}", f"--python_out={home}", f"--grpc_python_out={home}", *names]
    assert protoc.main(arguments) == 0


class Generated:
    """Generated modules by name: `generated("features_pb2").Text`."""

    def __init__(self, home: Path) -> None:
        compile_protos(home)
        self._home = str(home)

    def __call__(self, module: str) -> ModuleType:
        sys.path.insert(0, self._home)
        try:
            return importlib.import_module(module)
        finally:
            sys.path.remove(self._home)
