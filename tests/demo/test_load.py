"""The load: which calls a seed makes, and what their right answers are."""

from __future__ import annotations

from collections import Counter

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose import Kind
from interpose.demo.load import Answer, Job, make_jobs, shop_orders
from interpose.demo.messages import Name
from interpose.demo.orders import violations

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_a_seed_decides_the_load() -> None:
    """The same calls again for the same seed, others for another; as many of each kind as were asked for."""
    jobs = make_jobs(1, 16)

    assert jobs == make_jobs(1, 16) != make_jobs(2, 16)
    assert Counter(job.kind for job in jobs) == dict.fromkeys(Kind, 16)


def test_some_calls_are_refused_rightly() -> None:
    """Of sixteen of each kind, two ask for an unknown order, one for nothing, and one updates what is no order."""
    refused = {job.method: job for job in make_jobs(1, 16) if job.expect is not grpc.StatusCode.OK}
    unknown, blank, broken = refused["getOrder"], refused["searchOrders"], refused["updateOrders"]

    assert Counter(job.expect for job in make_jobs(1, 16)) == {grpc.StatusCode.OK: 60, unknown.expect: 2, INVALID: 2}
    assert unknown.expect is grpc.StatusCode.NOT_FOUND
    assert unknown.mention == unknown.requests[0].value not in {order.id for order in shop_orders()}
    assert blank.requests[0].value.strip() == ""
    assert [violation.field for violation in violations(broken.requests[0])] == [broken.mention]


def test_what_is_read_is_not_written() -> None:
    """So that an answer does not depend on the order in which calls arrive."""
    good = [job for job in make_jobs(1, 16) if job.expect is grpc.StatusCode.OK]
    written = {order.id for job in good if job.method == "updateOrders" for order in job.requests}
    packed = {order.id for job in good if job.method == "processOrders" for order in job.requests}
    asked = {job.requests[0].value for job in good if job.method == "getOrder"}

    assert written and not written & (packed | asked)
    assert written | packed | asked <= {order.id for order in shop_orders()}


def test_the_shop_opens_with_good_orders() -> None:
    """Sixty, none of them malformed."""
    orders = list(shop_orders())

    assert [order.id for order in orders] == [str(number) for number in range(1, 61)]
    assert [violation for order in orders for violation in violations(order)] == []


def test_a_payload_is_what_a_stub_takes() -> None:
    """A message, or each time a fresh iterator over the messages."""
    names = (Name(value="Ada"), Name(value="Sam"))
    unary, streamed = Job("m", Kind.UNARY_STREAM, names[:1]), Job("m", Kind.STREAM_UNARY, names)

    assert unary.payload is names[0]
    assert list(streamed.payload) == list(streamed.payload) == list(names)
    assert next(streamed.payload) is names[0]


@pytest.mark.parametrize(
    ("code", "details", "right"),
    [(INVALID, "the text is blank", True), (INVALID, "no", False), (grpc.StatusCode.OK, "blank", False)],
)
def test_an_answer_is_right_if_code_and_details_are(code: grpc.StatusCode, details: str, right: bool) -> None:
    """A refusal has to mention what is wrong."""
    job = Job("searchOrders", Kind.UNARY_STREAM, (Name(),), INVALID, mention="blank")

    assert Answer(job, "a-1", code, details, ()).right is right
