"""Messages with rules, of `rules.proto`: of google's runtime and of protobuf-py."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import (  # the last three: what the rules' own proto imports
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)
from protobuf.wkt import FileDescriptorSet

from tests.protos.compiled import described

HERE = Path(__file__).parent
IMPORTED = (duration_pb2, field_mask_pb2, timestamp_pb2)


@functools.cache
def files() -> bytes:
    """The descriptors of `rules.proto` and of all that it imports."""
    with tempfile.TemporaryDirectory() as folder:
        return described(HERE, "rules.proto", Path(folder))


@functools.cache
def pool() -> descriptor_pool.DescriptorPool:
    """The default pool, with `rules.proto`; google's own files are there, in the form of the runtime that is installed."""
    default = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(files()).file:
        if not file.name.startswith("google/protobuf/"):
            default.AddSerializedFile(file.SerializeToString())
    return default


@functools.cache
def google(name: str) -> Any:
    """A message class of google's runtime: `google("Order")`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"rules.{name}"))


@functools.cache
def buf(name: str) -> Any:
    """The same of protobuf-py."""
    from protobuf._file_registry import create_file_registry  # what generated code is made with

    known = {file.name: file for file in FileDescriptorSet.from_binary(files()).file}
    found = create_file_registry(known["rules.proto"], known.get).message(f"rules.{name}")
    assert found is not None
    return found.type
