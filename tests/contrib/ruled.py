"""Messages with rules, of `rules.proto`: of google's runtime and of protobuf-py."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from protobuf.wkt import FileDescriptorSet

from tests.protos.compiled import described

HERE = Path(__file__).parent


@functools.cache
def files() -> bytes:
    """The descriptors of `rules.proto` and of all that it imports."""
    with tempfile.TemporaryDirectory() as folder:
        return described(HERE, "rules.proto", Path(folder))


@functools.cache
def google(name: str) -> Any:
    """A message class of google's runtime, in its default pool: `google("Order")`."""
    pool = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(files()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rules.{name}"))


@functools.cache
def buf(name: str) -> Any:
    """The same of protobuf-py."""
    from protobuf._file_registry import create_file_registry  # what generated code is made with

    known = {file.name: file for file in FileDescriptorSet.from_binary(files()).file}
    found = create_file_registry(known["rules.proto"], known.get).message(f"rules.{name}")
    assert found is not None
    return found.type
