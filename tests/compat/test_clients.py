"""The differential suite of sync clients: the same user code against the published package and ours, in every order."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import grpc
import pytest

from tests.compat.apis import ORIGINAL, OURS, Api
from tests.compat.observing import PATH, call, request_of, served
from tests.compat.services import KINDS, Book, Service

ACTS = ("answer", "nothing", "bug", "abort", "late bug", "late abort")
NAMES = ("watch", "sign", "again", "hurry", "broken")
STACKS = [stack for length in range(3) for stack in permutations(NAMES, length)]
STACKS += [("sign", "again", "sign"), ("watch", "again", "broken"), ("again", "watch", "sign")]

Seen = list[tuple[Any, ...]]


def interceptors(api: Api, seen: Seen, kind: str) -> dict[str, Callable[[], Any]]:
    """User code for the package's client."""
    unary = kind.endswith("unary")

    def changed(details: Any, **fields: Any) -> Any:
        names = ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")
        return api.ClientCallDetails(**{name: fields.get(name, getattr(details, name, None)) for name in names})

    class Watch(api.ClientInterceptor):
        def intercept(self, method, request_or_iterator, call_details):
            seen.append(("asked", call_details.method, call_details.timeout, call_details.metadata))
            call = method(request_or_iterator, call_details)
            if unary and call.done():
                seen.append(("got", call.code(), call.details(), type(call.exception()).__name__))
            return call

    class Sign(api.ClientInterceptor):
        def intercept(self, method, request_or_iterator, call_details):
            metadata = [*(call_details.metadata or ()), ("x-signed", str(len(seen)))]
            return method(request_or_iterator, changed(call_details, metadata=metadata))

    class Again(api.ClientInterceptor):
        def intercept(self, method, request_or_iterator, call_details):
            call = method(request_or_iterator, call_details)
            if unary and call.done() and call.code() is grpc.StatusCode.FAILED_PRECONDITION:
                seen.append(("again",))
                call = method(request_of(kind), call_details)
            return call

    class Hurry(api.ClientInterceptor):
        def intercept(self, method, request_or_iterator, call_details):
            details = changed(call_details, timeout=30.0, wait_for_ready=True, compression=grpc.Compression.Gzip)
            return method(request_or_iterator, details)

    class Broken(api.ClientInterceptor):
        def intercept(self, method, request_or_iterator, call_details):
            if ("act", "late bug") in call_details.metadata:
                raise KeyError("a bug of the interceptor")
            return method(request_or_iterator, call_details)

    return {"watch": Watch, "sign": Sign, "again": Again, "hurry": Hurry, "broken": Broken}


class Heard(Service):
    """Writes down what metadata came."""

    def begin(self, requests: Any, context: Any) -> Any:
        metadata = [pair for pair in context.invocation_metadata() if pair[0].startswith("x-")]
        self._book.add(context, "came", metadata, context.time_remaining() < 31)
        return super().begin(requests, context)


def observe(api: Api, kind: str, stack: tuple[str, ...], invoke: Callable[..., Any]) -> list[Any]:
    """What client, interceptors and handler see, by act."""
    book, seen = Book(), Seen()
    made = interceptors(api, seen, kind)
    found: list[Any] = []
    with served(Heard(api, book).handler(kind), ()) as channel:
        intercepted = grpc.intercept_channel(channel, *(made[name]() for name in stack)) if stack else channel
        for act in ACTS:
            try:
                found.append(invoke(intercepted, kind, (("act", act),)))
            except KeyError as error:
                found.append(repr(error))
            found.append(list(seen))
    return [found, book.calls]


def future(channel: grpc.Channel, kind: str, metadata: Any) -> Any:
    """The same by `future`, for unary responses."""
    stub = getattr(channel, kind)(PATH, str.encode, bytes.decode)
    pending = stub.future(request_of(kind), metadata=metadata)
    error = pending.exception()
    return [pending.code(), pending.details(), None if error else pending.result(), type(error).__name__]


@pytest.mark.parametrize("outermost", ["", *NAMES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sync_client_is_the_same(kind: str, outermost: str) -> None:
    """Application, interceptors and server see the same, however an RPC ends and in whatever order they stand."""
    for stack in STACKS:
        if "".join(stack[:1]) == outermost:
            ours, original = observe(OURS, kind, stack, call), observe(ORIGINAL, kind, stack, call)

            assert ours == original, stack


@pytest.mark.parametrize("stack", [("watch",), ("sign", "watch"), ("again", "sign"), ("watch", "broken")], ids="-".join)
@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
def test_a_future_is_the_same(kind: str, stack: tuple[str, ...]) -> None:
    """Calls that do not block go through the same method, which is given a future that is not done."""
    # Whether a future is done when an interceptor looks is chance: here nobody asks for more than that.
    ours, original = observe(OURS, kind, stack, future)[0], observe(ORIGINAL, kind, stack, future)[0]

    assert ours[::2] == original[::2]
