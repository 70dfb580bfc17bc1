"""A printer. Who may use it, how often and how long is not in here: policy.json says that, and can be changed while it runs."""

from collections import deque
from collections.abc import AsyncIterator

import grpc
import printing_pb2
import printing_pb2_grpc

import interpose

LONGEST = 100  # jobs that it remembers


class Printer(printing_pb2_grpc.PrinterServicer):
    """Jobs in memory."""

    def __init__(self) -> None:
        self._jobs: deque[printing_pb2.Job] = deque(maxlen=LONGEST)

    async def Print(self, request: printing_pb2.PrintRequest, context: grpc.aio.ServicerContext) -> printing_pb2.Job:
        caller = interpose.identity()
        if caller is None:
            raise interpose.errors.Internal("policy.json lets callers in without a token")
        job = printing_pb2.Job(title=request.title, owner=caller.subject)
        self._jobs.append(job)
        return job

    async def ListJobs(
        self, request: printing_pb2.ListJobsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[printing_pb2.Job]:
        for job in tuple(self._jobs):
            yield job


app = [Printer()]
