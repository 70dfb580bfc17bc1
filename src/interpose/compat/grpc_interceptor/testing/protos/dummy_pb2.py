"""`DummyRequest(input="…")` and `DummyResponse(output="…")`, made when this is imported."""

from __future__ import annotations

from typing import Any

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError as missing:  # pragma: no cover - the suite has the package; tests/compat checks the text without it
    raise ImportError('the dummy service needs a package more: pip install "interpose[testing]"') from missing

_STREAMS = {  # method: does the client stream, does the server
    "Execute": (False, False),
    "ExecuteClientStream": (True, False),
    "ExecuteServerStream": (False, True),
    "ExecuteClientServerStream": (True, True),
}


def _described() -> Any:
    """`dummy.proto`, in a pool of its own: other packages have files and messages of that name too."""
    file = descriptor_pb2.FileDescriptorProto(name="dummy.proto", syntax="proto3")
    for message, field in (("DummyRequest", "input"), ("DummyResponse", "output")):
        file.message_type.add(name=message).field.add(
            name=field,
            number=1,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
    service = file.service.add(name="DummyService")
    for method, (client, server) in _STREAMS.items():
        service.method.add(
            name=method,
            input_type="DummyRequest",
            output_type="DummyResponse",
            client_streaming=client,
            server_streaming=server,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName("dummy.proto")


DESCRIPTOR: Any = _described()
DummyRequest: Any = message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name["DummyRequest"])
DummyResponse: Any = message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name["DummyResponse"])
