"""A refused order, over the wire: what is wrong with it reaches both clients, field by field."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose.demo import refusals, run
from interpose.demo.messages import BadRequest, ErrorInfo, Order
from interpose.demo.orders import MalformedOrder, Violation
from interpose.demo.refusals import Refusal
from interpose.demo.stack import described


def refused(folder: Path) -> list[Refusal]:
    """What each client is told by each server."""
    return asyncio.run(run._refusals(folder / "orders.sqlite", lambda *_: lambda: None))


def test_both_clients_are_told_every_field_by_both_servers(tmp_path: Path) -> None:
    """Four legs, one answer: a code, a text for people, and messages for programs."""
    told = refused(tmp_path)

    assert {(refusal.client, refusal.server) for refusal in told} == {
        (client, server) for client in run.STACKS for server in run.STACKS
    }
    for refusal in told:
        bad, info = refusal.messages
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(bad, BadRequest) and isinstance(info, ErrorInfo)
        assert [violation.field for violation in bad.field_violations] == ["id", "items", "price", "destination"]
        assert all(f"{v.field}: {v.description}" in refusal.details for v in bad.field_violations)
        assert info.reason == "MALFORMED_ORDER"


def test_an_order_that_is_taken_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the order a good one, no refusal would be made up."""
    monkeypatch.setattr(refusals, "MALFORMED", Order(id="41", items=["lamp"], price=3.0, destination="Oslo"))

    assert {(refusal.code, refusal.messages) for refusal in refused(tmp_path)} == {(grpc.StatusCode.OK, ())}


def test_a_search_without_a_text_is_described_too() -> None:
    """Whatever is malformed names its field."""
    error = described(MalformedOrder(Violation("search", "the text is blank")))

    bad = error.error_details[0]
    assert [(violation.field, violation.description) for violation in bad.field_violations] == [
        ("search", "the text is blank")
    ]
