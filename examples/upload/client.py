"""Sends a file, whatever happens to the server meanwhile. Its arguments: where the server is, the file, and its name there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import upload_pb2
import upload_pb2_grpc

from interpose import errors, intercept_channel
from interpose.interceptors import Deadline, Retry, RetryBudget
from interpose.mechanisms.backoff import exponential

PART = 64 * 1024  # bytes
PATIENCE = 120  # seconds for the whole file
GIVING_UP = 20  # attempts in a row that store nothing


def parts(data: bytes, name: str, stored: int) -> Iterator[upload_pb2.Part]:
    for offset in range(stored, len(data), PART):
        yield upload_pb2.Part(name=name, offset=offset, data=data[offset : offset + PART])


def main(target: str, file: str, name: str) -> None:
    data = Path(file).read_bytes()
    # Retry repeats Status, and a stream that breaks at its beginning. A longer one we begin anew, where the server has come to.
    retry = Retry(GIVING_UP, backoff=exponential(0.1, cap=2.0), budget=RetryBudget(max_tokens=100))
    stack = [Deadline(PATIENCE), retry]
    with intercept_channel(grpc.insecure_channel(target, Retry.channel_options()), *stack) as channel:
        upload = upload_pb2_grpc.UploadStub(channel)
        stored = -1
        while stored < len(data):
            stored = upload.Status(upload_pb2.StatusRequest(name=name)).stored
            try:
                stored = upload.Send(parts(data, name, stored)).stored
            except errors.Unavailable as error:
                print("again, for", error.details(), file=sys.stderr)
        print(stored, "bytes stored")


if __name__ == "__main__":
    main(*sys.argv[1:])
