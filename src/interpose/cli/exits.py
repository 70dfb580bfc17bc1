"""With which status a command ends, so that scripts and probes need not read what it prints."""

from __future__ import annotations

from grpc import StatusCode

OK = 0
NO = 1  # the answer is no: not serving, or a bench with calls that failed
WRONG = 2  # what was asked makes no sense, and nothing was sent; as click and argparse have it
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
RPC_FAILED = 64  # and the number of its code is added: as grpcurl has it


def of_code(code: StatusCode) -> int:
    """The status of an RPC that ended with this code: 0 for OK, 69 for NOT_FOUND, 78 for UNAVAILABLE."""
    number: int = code.value[0]
    return RPC_FAILED + number if number else OK
