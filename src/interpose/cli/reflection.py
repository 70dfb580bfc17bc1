"""What a server says of its own services: gRPC server reflection, v1 or v1alpha, as a database for a descriptor pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

# The messages of both are the same but for the package, which is not on the wire. Newest first.
VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class NoReflection(Exception):
    """The server does not have the service."""


class Reflected:
    """The files of a server, each asked for once. Its `Find…` raise KeyError, as protobuf wants it, or grpc.RpcError.

    timeout: seconds for each question.
    """

    def __init__(self, channel: grpc.Channel, metadata: Sequence[tuple[str, str | bytes]], timeout: float) -> None:
        self._channel = channel
        self._metadata = metadata
        self._timeout = timeout
        self._versions = list(VERSIONS)
        self._files: dict[str, Any] = {}

    def services(self) -> list[str]:
        """The full names of all services."""
        answer = self._ask(reflection_pb2.ServerReflectionRequest(list_services=""))
        return sorted(service.name for service in answer.list_services_response.service)

    def FindFileByName(self, name: str) -> Any:
        """The file of this name."""
        if name not in self._files:
            self._load(reflection_pb2.ServerReflectionRequest(file_by_filename=name))
        return self._files[name]

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """The file in which something of this full name is defined."""
        return self._load(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))

    def _load(self, request: Any) -> Any:
        """Ask for files and keep them; gives the first, which is that which was asked for."""
        packed = self._ask(request).file_descriptor_response.file_descriptor_proto
        files = [FileDescriptorProto.FromString(file) for file in packed]
        for file in files:
            self._files.setdefault(file.name, file)
        if not files:
            raise KeyError(str(request).strip())
        return self._files[files[0].name]

    def _ask(self, request: Any) -> Any:
        """The answer, of the newest version that the server has. KeyError if it knows of no such thing."""
        while self._versions:
            try:
                return _answer(self._method()(iter((request,)), timeout=self._timeout, metadata=self._metadata))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                del self._versions[0]
        raise NoReflection

    def _method(self) -> Callable[..., Iterable[Any]]:
        kind = reflection_pb2
        return self._channel.stream_stream(
            f"/{self._versions[0]}/ServerReflectionInfo",
            kind.ServerReflectionRequest.SerializeToString,
            kind.ServerReflectionResponse.FromString,
        )


def _answer(answers: Iterable[Any]) -> Any:
    """The answer to the one question of a stream, which is read to its end: a server need not log that it was cut off."""
    coming = iter(answers)
    answer = next(coming, None)
    deque(coming, maxlen=0)  # for at most the time that the question has
    if answer is None:
        raise KeyError("no answer")
    if answer.HasField("error_response"):
        raise KeyError(answer.error_response.error_message)
    return answer
