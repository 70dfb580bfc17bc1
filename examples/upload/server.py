"""Stores files part by part: what was stored before a restart is there after it."""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import upload_pb2
import upload_pb2_grpc

from interpose import errors
from interpose.interceptors import AccessLog, ExceptionToStatus

NAME = re.compile(r"[a-z0-9-]{1,64}")  # never a path

stack = [AccessLog(), ExceptionToStatus()]


class Upload(upload_pb2_grpc.UploadServicer):
    """Files in one folder, UPLOAD_FOLDER of the environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def Status(self, request: upload_pb2.StatusRequest, context: grpc.ServicerContext) -> upload_pb2.StatusResponse:
        return upload_pb2.StatusResponse(stored=self._stored(self._path(request.name)))

    def Send(self, requests: Iterator[upload_pb2.Part], context: grpc.ServicerContext) -> upload_pb2.StatusResponse:
        stored = 0
        for part in requests:
            path = self._path(part.name)
            with self._lock:  # two clients may send the same file
                stored = self._stored(path)
                if part.offset > stored:
                    raise errors.FailedPrecondition(f"a part is missing: ask Status, and go on at byte {stored}")
                fresh = part.data[stored - part.offset :]
                with path.open("ab") as file:
                    file.write(fresh)
                stored += len(fresh)
        return upload_pb2.StatusResponse(stored=stored)

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise errors.InvalidArgument("a name has small letters, digits and dashes")
        return self._folder / name

    def _stored(self, path: Path) -> int:
        return path.stat().st_size if path.exists() else 0


app = [Upload(Path(os.environ["UPLOAD_FOLDER"]))]
