"""Failures of clients: values for flows, exceptions for callers, and none that only looks like the server's."""

from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Outcome, errors
from interpose.testing import Echo, failed
from interpose.testing.echo import encode
from tests.facts.calling import EVERY, STARTED, UNARY, Gate, Watch, Way, in_time, opened, passing, ways

pytestmark = pytest.mark.usefixtures("hosts")

OK = grpc.StatusCode.OK
INTERNAL = grpc.StatusCode.INTERNAL
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.fact("A-4", "C-1", "R-1", "R-2")
@ways(EVERY)
def test_a_failure_is_a_value_for_flows_and_an_exception_for_callers(way: Way) -> None:
    """No flow needs an `except` to see a failure, and no caller is given a failure as a return value."""
    raised, watch = list[BaseException](), Watch()

    def careful(call: Call) -> Flow:
        try:
            yield call
        except BaseException as error:
            raised.append(error)
            raise

    echo = Echo([failed(NOT_FOUND)])
    with opened(way, echo, watch, careful) as link, pytest.raises(grpc.RpcError) as caught:
        link.call()

    assert not raised
    assert watch.outcome().code is NOT_FOUND
    assert isinstance(caught.value, grpc.aio.AioRpcError if way.aio else grpc.Call)
    assert isinstance(caught.value, errors.NotFound)
    assert caught.value.code() is NOT_FOUND
    assert not way.aio or watch.outcome().error is caught.value


@pytest.mark.fact("A-5", "C-7")
@ways(EVERY)
def test_a_refusal_by_a_flow_is_raised_where_a_servers_would_be(way: Way) -> None:
    """A flow that refuses: nothing is raised before a server's failure would be, and the call can be asked."""

    def refuse(call: Call) -> Flow:
        raise errors.PermissionDenied("not you", local=True)
        yield call

    echo = Echo()
    with opened(way, echo, refuse) as link:
        started = link.start()  # raises nothing yet
        with pytest.raises(errors.PermissionDenied, match="not you") as caught:
            link.call()
        code, details = started.code(), started.ask("details")
        if way.aio:
            with pytest.raises(errors.PermissionDenied):
                started.ask("wait_for_connection")

    assert (code, details) == (PERMISSION_DENIED, "not you")
    assert isinstance(caught.value, grpc.aio.AioRpcError if way.aio else grpc.RpcError)
    assert caught.value.local
    assert not echo.attempts


@pytest.mark.fact("A-5")
@ways(STARTED)
def test_a_call_answered_by_a_flow_answers_every_question(way: Way) -> None:
    """An answer made by a flow, with nothing sent, is a call like any other, to be asked, cancelled and dropped."""
    answer: Any = ["x", "y"] if way.streams else "x"

    def cached(call: Call) -> Flow:
        return Outcome.success(answer, trailing_metadata=(("x-cache", "hit"),))
        yield call

    echo = Echo()
    with opened(way, echo, cached) as link:
        call = link.start()
        messages = call.messages()
        code, trailing = call.code(), call.ask("trailing_metadata")
        initial = call.ask("initial_metadata")
        cancelled = call.cancel()
        if way.aio:
            call.ask("wait_for_connection")

    assert messages == list(answer)
    assert code is OK
    assert dict(trailing)["x-cache"] == "hit"
    assert list(initial) == []
    assert not cancelled
    assert not echo.attempts


@pytest.mark.fact("C-23")
@ways(UNARY)
def test_a_status_made_here_says_so(way: Way) -> None:
    """A status that no peer sent has `local` set and says so in its text; one of the server's has not."""
    with opened(way, Echo([failed(NOT_FOUND)]), passing) as link:
        with pytest.raises(errors.DeadlineExceeded) as ours:
            link.call(timeout=0)
        with pytest.raises(errors.NotFound) as theirs:
            link.call()

    assert ours.value.local
    assert "made locally" in str(ours.value)
    assert not theirs.value.local
    assert "made locally" not in str(theirs.value)


@pytest.mark.fact("R-6")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@ways(EVERY)
def test_a_flow_that_raises_ends_the_rpc_with_a_status_that_names_it(way: Way, after: bool) -> None:
    """A bug in a flow is INTERNAL with its name, and without its text, for the caller and the flows around it."""
    watch, echo = Watch(), Echo()

    def buggy(call: Call) -> Flow:
        if after:
            yield call
        raise ValueError("secret")
        yield call

    with opened(way, echo, watch, buggy) as link, pytest.raises(errors.Internal, match="buggy raised Value") as caught:
        link.call()

    assert isinstance(caught.value.__cause__, ValueError)
    assert "secret" not in str(caught.value.details())
    assert len(echo.attempts) == after
    assert watch.outcome().local
    assert watch.outcome().code is INTERNAL


@pytest.mark.fact("R-6", "A-4")
@ways(way for way in STARTED if way.aio)
def test_the_code_of_a_call_whose_flow_raised_can_be_asked(way: Way) -> None:
    """`code()` answers INTERNAL, though nobody has awaited the call."""

    def buggy(call: Call) -> Flow:
        raise ValueError("a bug")
        yield call

    with opened(way, Echo(), buggy) as link:
        code = link.start().code()

    assert code is INTERNAL


# --- requests that cannot be sent -------------------------------------------------------------------------------------


class Unserializable:
    """A message that no serializer takes."""


def raising(message: Any) -> bytes:
    raise ValueError("no message of mine")


SERIALIZERS = pytest.mark.parametrize("serialize", [raising, encode], ids=["raises", "gives no bytes"])


@pytest.mark.fact("A-7", "R-1")
@SERIALIZERS
@ways(way for way in EVERY if way.aio or not way.uploads)
def test_a_message_that_cannot_be_serialized_is_a_local_failure(way: Way, serialize: Any) -> None:
    """A request that cannot be serialized fails on every way of calling, is told once, and is not the server's."""
    watch, echo = Watch(), Echo()
    if serialize is encode and not way.aio:
        serialize = str.encode  # grpc's sync stubs take what a serializer gives as it is; this one raises TypeError

    with opened(way, echo, watch) as link, pytest.raises(errors.Internal) as caught:
        message: Any = Unserializable()
        stub = link.stub(serialize)
        in_time(lambda: link.call(argument=iter([message]) if way.uploads else message, stub=stub))

    assert watch.outcome().code is INTERNAL
    assert watch.outcome().local
    assert not [attempt for attempt in echo.attempts if attempt.requests]
    assert not way.aio or isinstance(caught.value.__cause__, ValueError if serialize is raising else type(None))


@pytest.mark.fact("A-7")
@SERIALIZERS
@ways(way for way in STARTED if way.aio)
def test_the_code_of_such_a_call_can_be_asked(way: Way, serialize: Any) -> None:
    """`code()` of a call whose request cannot be serialized is answered, though nobody awaits or reads it."""
    watch = Watch()

    with opened(way, Gate(), watch) as link:
        message: Any = Unserializable()
        stub = link.stub(serialize)
        call = link.start(argument=iter([message]) if way.uploads else message, stub=stub)
        code = in_time(call.code)

    assert code is watch.outcome().code
    assert code is not OK


@pytest.mark.fact("R-1")
@ways(way for way in EVERY if way.aio and not way.streams)
def test_what_grpc_raises_itself_is_an_outcome(way: Way) -> None:
    """What grpc raises itself, of credentials on an insecure channel for one, is told to the flow and raised."""
    watch = Watch()

    with opened(way, Echo(), watch) as link, pytest.raises(grpc.aio.UsageError) as caught:
        link.call(credentials=grpc.access_token_call_credentials("token"))

    outcome = watch.outcome()
    assert outcome.code is INTERNAL
    assert outcome.local
    assert outcome.error is caught.value
