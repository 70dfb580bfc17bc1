"""How violations are told: laws beside what protovalidate itself writes, and how much of them there is."""

from types import SimpleNamespace
from typing import Any

import protovalidate
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import assume, example, given
from hypothesis import strategies as st

from interpose.mechanisms import rich, violations
from interpose.mechanisms.violations import MAX_BAD_REQUEST, bad_request, logged, path, told
from tests.contrib.ruled import google

VALIDATOR = protovalidate.Validator()
NUMBERS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(max_size=8) | st.text('"\\\n\r\t.[]é', max_size=8)


def violation(field: Any = None, rule: str = "", message: str = "", key: bool = False) -> Any:
    """One as protovalidate's are."""
    return SimpleNamespace(proto=SimpleNamespace(field=field, rule_id=rule, message=message, for_key=key))


ITEMS = st.builds(google("Item"), name=TEXTS)
ORDERS = st.builds(
    google("Order"),
    id=TEXTS,
    items=st.lists(ITEMS, max_size=2),
    by_name=st.dictionaries(TEXTS, ITEMS, max_size=2),
    by_flag=st.dictionaries(st.booleans(), ITEMS, max_size=1),
    by_number=st.dictionaries(NUMBERS, ITEMS, max_size=1),
    labels=st.dictionaries(NUMBERS, TEXTS, max_size=1),
    counts=st.lists(NUMBERS, max_size=2),
)


@given(ORDERS)
def test_a_path_is_what_protovalidate_writes(order: Any) -> None:
    """It shows that of the first violation, in the text of its error."""
    assume(VALIDATOR.collect_violations(order))

    with pytest.raises(protovalidate.ValidationError) as error:
        VALIDATOR.validate(order, fail_fast=True)

    (first,) = error.value.violations
    assert str(error.value) == f"{path(first)}: {first.proto.message}"


@given(TEXTS)
def test_a_key_is_escaped_as_protovalidate_does_it(key: str) -> None:
    """Whatever the caller puts into it."""
    order = google("Order")(id="abc")
    order.by_name[key].name = "x"

    with pytest.raises(protovalidate.ValidationError) as error:
        VALIDATOR.validate(order)

    assert str(error.value) == f"{path(error.value.violations[0])}: must be at least 3 characters"


@given(ORDERS)
def test_what_is_packed_can_be_read(order: Any) -> None:
    """By protobuf: each violation with its path and text, in order."""
    found = VALIDATOR.collect_violations(order)

    report = error_details_pb2.BadRequest.FromString(bad_request(found))

    prefix = {True: "key: ", False: ""}
    assert [(one.field, one.description) for one in report.field_violations] == [
        (path(one), prefix[one.proto.for_key] + one.proto.message) for one in found
    ]


@example([("rule", "message", True)] * 20)
@given(st.lists(st.tuples(st.text(), st.text(), st.booleans()), min_size=1))
def test_a_report_never_grows_beyond_its_room(parts: list[Any]) -> None:
    """Whatever rules say; and it has at least one violation, and is in UTF-8."""
    found = [violation(rule=rule * 50, message=message * 100, key=key) for rule, message, key in parts]

    packed = bad_request(found)

    assert len(packed) <= MAX_BAD_REQUEST
    assert 1 <= len(error_details_pb2.BadRequest.FromString(packed).field_violations) <= len(found)
    assert len(told(found, more=True).encode()) <= violations.MAX_PART + 30
    assert len(logged(found).encode()) <= violations.MAX_PART


@pytest.mark.parametrize(
    ("rule", "written"),
    [
        ("string.min_len", "STRING_MIN_LEN"),
        ("period.order", "PERIOD_ORDER"),
        ("the order of--things", "THE_ORDER_OF_THINGS"),
        ("", ""),
        ("x", ""),  # google.rpc wants three characters at least,
        ("a" * 64, ""),  # 63 at most,
        ("1st", ""),  # and a letter at first
        ("größe", "GR_SSE"),
    ],
)
def test_a_rule_as_a_reason(rule: str, written: str) -> None:
    """As google.rpc.BadRequest wants reasons; what cannot be written so is left out."""
    assert violations.reason(violation(rule=rule)) == written


def test_the_reason_is_packed() -> None:
    """As the third field of a violation: googleapis-common-protos 1.66 does not know it yet."""
    assert bad_request([violation(rule="a.b", message="!")]) == b"\x0a\x08\x12\x01!\x1a\x03A_B"


def test_a_violation_that_says_nothing() -> None:
    """Is told by its rule, or at least as one."""
    assert told([violation(rule="a.rule")], more=False) == "a.rule"
    assert told([violation()], more=False) == "is not valid"
    assert told([violation(), violation(), violation()], more=False) == "is not valid, and 2 more violations"


@given(st.integers(1, 16), st.text(), st.text("abc.", min_size=1), st.binary())
def test_a_status_packed_by_hand(code: int, text: str, name: str, message: bytes) -> None:
    """Is what protobuf packs."""
    whole = status_pb2.Status(code=code, message=text.encode("utf-8", "replace").decode())
    whole.details.add(type_url=f"type.googleapis.com/{name}", value=message)

    assert status_pb2.Status.FromString(rich.status(code, text, name, message)) == whole
