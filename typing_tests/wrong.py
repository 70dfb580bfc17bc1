"""What both type checkers must refuse: an ignore that one does not need is an error, so that a line proves itself."""

import grpc

from interpose import Call, Flow, Metadata, Outcome, chain, errors, intercept_channel, server_interceptor, when


def passes(call: Call) -> Flow:
    yield call


class Passes:
    """Needs to be made first."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, call: Call) -> Flow:
        yield call


def forgets(call: Call) -> None:
    """Never yields."""


async def forgets_async(call: Call) -> Outcome:
    """Awaits instead of yielding."""
    raise NotImplementedError


def no_argument() -> Flow:
    yield from ()


def yields_nonsense(call: Call) -> Flow:
    yield "call"  # type: ignore[misc]
    yield call.metadata  # type: ignore[misc]


channel = grpc.insecure_channel("localhost:1")

chain(forgets)  # type: ignore[arg-type]
chain(forgets_async)  # type: ignore[arg-type]
chain(no_argument)  # type: ignore[arg-type]
chain(Passes)  # type: ignore[arg-type]
chain(passes, None)  # type: ignore[arg-type]
chain([passes])  # type: ignore[arg-type]
when(5, passes)  # type: ignore[arg-type]
intercept_channel(channel, "passes")  # type: ignore[arg-type]
server_interceptor(forgets)  # type: ignore[arg-type]


def changes(call: Call, outcome: Outcome) -> None:
    """Neither calls nor outcomes can be changed."""
    call.timeout = 3  # type: ignore[misc]
    call.metadata = Metadata()  # type: ignore[misc]
    outcome.code = grpc.StatusCode.OK  # type: ignore[misc]
    call.started = 1.0  # type: ignore[attr-defined]


def asks(call: Call) -> None:
    """Options are named, and of their type."""
    call.hedged(2, 0.1)  # type: ignore[call-arg]
    call.with_metadata("a", "1")  # type: ignore[arg-type]
    call.with_metadata(("a", 1))  # type: ignore[arg-type]
    call.after("soon")  # type: ignore[arg-type]
    call.tap(print)  # type: ignore[call-arg]


def fails() -> None:
    """Details are text, and options are named."""
    raise errors.NotFound(17)  # type: ignore[arg-type]


Outcome.failure(ValueError())  # type: ignore[arg-type]
errors.of("NOT_FOUND")  # type: ignore[arg-type]
