"""Errors and context as handlers and callers use them: checked, never run."""

from collections.abc import Iterator
from typing import Any, assert_type

import grpc

from interpose import Call, Metadata, StatusError, context, errors


def handle(request: str, native: grpc.ServicerContext) -> str:
    """A handler raises what it means."""
    if not request:
        raise errors.InvalidArgument("empty", trailing_metadata=[("x-field", "request")])
    if request == "later":
        raise errors.of(grpc.StatusCode.UNAVAILABLE)("later", local=True)
    call = context.current_call()
    assert_type(call, Call | None)
    assert_type(context.request_id(), str | None)
    assert_type(context.deadline(), float | None)
    return request if call is None else str(call.method)


def handle_stream(request: str, native: grpc.ServicerContext) -> Iterator[str]:
    """One that streams."""
    yield request
    raise errors.DataLoss


def ask(stub: Any) -> str | None:
    """A caller catches what it expects."""
    try:
        return str(stub.Call("a"))
    except errors.NotFound as error:
        assert_type(error.code(), grpc.StatusCode)
        assert_type(error.details(), str)
        assert_type(error.trailing_metadata(), Metadata)
        assert_type(error.error_details, tuple[Any, ...])
        assert_type(error.local, bool)
        return None
    except (errors.Unavailable, errors.DeadlineExceeded):
        return "later"
    except StatusError as error:
        assert_type(error.status_code, grpc.StatusCode)
        raise
    except grpc.RpcError:
        raise


class NoSuchBook(errors.NotFound):
    """An application's own."""

    def __init__(self, title: str) -> None:
        super().__init__(f"no book called {title}")


assert_type(errors.of(grpc.StatusCode.NOT_FOUND), type[StatusError])
assert_type(Metadata([("a", "1"), ("b-bin", b"2")]).with_pairs(("c", "3")).without("a"), Metadata)
