"""Closing a sync channel told calls under way of their end before those that an interceptor had waiting."""

from concurrent.futures import Future

import grpc

from interpose import Call, Flow, intercept_channel, wait
from interpose.testing import Echo, Stub, ok


def test_what_waits_for_another_call_is_cancelled() -> None:
    """A call that waits for the end of another is cancelled with it, and not refused by the channel it is sent to next."""
    ended: Future[None] = Future()

    def one_at_a_time(call: Call) -> Flow:
        if call.request == "second":
            yield from wait(ended)
            yield call
        else:
            yield call
            ended.set_result(None)

    echo = Echo([ok(hang=True)])
    with echo.serve() as target:
        channel = intercept_channel(grpc.insecure_channel(target), one_at_a_time)
        first = Stub(channel).unary_unary.future("first")
        echo.wait_begun()
        second = Stub(channel).unary_unary.future("second")
        channel.close()

        codes = [first.code(), second.code()]

    assert codes == [grpc.StatusCode.CANCELLED] * 2
