"""Reflection: which version is asked, what is asked once, and servers whose answers are of no use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from interpose.cli.reflection import VERSIONS, _answer
from tests.cli.conftest import Ended
from tests.facts.hosting import served

Run = Callable[..., Ended]


def answering(version: str, answer: Callable[[Any], Iterable[Any]]) -> grpc.GenericRpcHandler:
    """The service in this version, which gives these answers."""

    def handle(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield from answer(request)

    kind = reflection_pb2
    handler = grpc.stream_stream_rpc_method_handler(
        handle, kind.ServerReflectionRequest.FromString, kind.ServerReflectionResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": handler})


def with_file(file: FileDescriptorProto) -> Callable[[Any], list[Any]]:
    """Answers that know this one file, whatever is asked for, and no services."""

    def answer(request: Any) -> list[Any]:
        response = reflection_pb2.ServerReflectionResponse()
        if request.HasField("list_services"):
            response.list_services_response.service.add(name="a.B")
        elif request.file_by_filename in {"", file.name}:
            response.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
        else:
            response.error_response.error_code = 5
        return [response]

    return answer


def file(*dependencies: str) -> FileDescriptorProto:
    """A file with a message a.M and a service a.B of one method, C."""
    made = FileDescriptorProto(name="a.proto", package="a", dependency=dependencies)
    made.message_type.add(name="M")
    made.service.add(name="B").method.add(name="C", input_type=".a.M", output_type=".a.M")
    return made


@pytest.mark.parametrize("version", VERSIONS)
def test_either_version(run: Run, loop: None, version: str) -> None:
    """A server may have the new one only, or the old one only."""
    with served("sync", [answering(version, with_file(file()))]) as (_, target, _):
        listed, described = run("list", target), run("describe", target, "a.B/C")

    assert listed.out == "a.B\n"
    assert "rpc C(a.M) returns (a.M);" in described.out


def test_a_file_whose_import_is_not_there(run: Run, loop: None) -> None:
    """One line; the server's answers make no whole."""
    with served("sync", [answering(VERSIONS[0], with_file(file("b.proto")))]) as (_, target, _):
        ended = run("describe", target, "a.B")

    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)


def test_a_stream_is_read_to_its_end() -> None:
    """It is not cut off behind its answer: an asyncio server would log a traceback for each question."""
    first = reflection_pb2.ServerReflectionResponse(valid_host="first")
    answers = iter([first, reflection_pb2.ServerReflectionResponse()])

    assert _answer(answers) == first
    assert list(answers) == []


def test_no_answers(run: Run, loop: None) -> None:
    """A server that ends the stream without one, or with one that is empty."""
    for answers in ([], [reflection_pb2.ServerReflectionResponse()]):
        with served("sync", [answering(VERSIONS[0], lambda _, given=answers: given)]) as (_, target, _):
            ended = run("describe", target, "a.B")

        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert "there is no service, method, message or enum a.B\n" in ended.err


def test_a_server_that_names_no_services(run: Run, loop: None) -> None:
    """The line says so, and what to do."""

    def refusing(request: Any) -> list[Any]:
        response = reflection_pb2.ServerReflectionResponse()
        response.error_response.error_message = "not\nallowed"
        return [response]

    with served("sync", [answering(VERSIONS[0], refusing)]) as (_, target, _):
        ended = run("list", target)

    assert ended.status == 2
    assert (
        ended.err == f"interpose list: {target} does not say which services it has: not\\nallowed; give --proto FILE\n"
    )
