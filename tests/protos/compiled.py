"""The protos of this folder as Python, made when a test first asks for them; and protos of other folders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PROTOS = Path(__file__).parent


def compile_protos(home: Path) -> None:
    """Write `features_pb2.py`, `features_pb2_grpc.py` and their like into `home`."""
    names = [proto.name for proto in sorted(PROTOS.glob("*.proto"))]
    protoc(f"-I{PROTOS}", f"--python_out={home}", f"--grpc_python_out={home}", *names)


def compile_ruled(folder: Path, *names: str) -> None:
    """Write `shop_pb2.py` and `shop_pb2_grpc.py` beside `shop.proto`, and what it may import: buf/validate/validate.proto."""
    known = validate_proto(folder)
    out = (f"--python_out={folder}", f"--grpc_python_out={folder}")
    protoc(f"-I{folder}", f"--descriptor_set_in={known}", *out, *names, "buf/validate/validate.proto")


def described(folder: Path, name: str, home: Path) -> bytes:
    """A proto that may import `buf/validate/validate.proto`, as serialized descriptors. home: a folder to work in."""
    made = home / "described.bin"
    known = validate_proto(home)
    protoc(f"-I{folder}", f"--descriptor_set_in={known}", f"--descriptor_set_out={made}", "--include_imports", name)
    return made.read_bytes()


def validate_proto(home: Path) -> Path:
    """The rules' own proto, as a file of descriptors: protovalidate brings it only in the form of its runtime."""
    from protobuf.wkt import FileDescriptorSet
    from protovalidate import ViolationPb

    known = home / "validate.bin"
    files = {file.name: file.proto for file in _with_imports(ViolationPb.desc().file)}
    known.write_bytes(FileDescriptorSet(file=list(files.values())).to_binary())
    return known


def _with_imports(file: Any) -> Iterator[Any]:
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file


def protoc(*arguments: str) -> None:
    """Run grpc_tools' protoc."""
    from grpc_tools import protoc as compiler

    assert compiler.main(["protoc", *arguments]) == 0


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
