"""Rows of a table: for a method, or a target, the most specific one has the stack, and no other."""

import asyncio
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Kind, Method, Side, describe, intercept_channel, intercept_server
from interpose._method import Target
from interpose.interceptors import Deadline
from interpose.policy import Policy
from interpose.policy.building import one_pattern, several_patterns
from interpose.testing import Place, Stub
from interpose.testing.echo import SERVICE, Echo, decode, encode
from tests.facts.serving import MAKE
from tests.policy.files import loaded


def seconds(policy: Policy, method: str, target: str | None = None) -> list[float]:
    """The deadlines that a method has."""
    found = []
    one = Method(method, Kind.UNARY_UNARY, target=None if target is None else Target(target))
    pending: Any = [policy.client]
    while pending:
        interceptor = pending.pop()
        if isinstance(interceptor, Deadline):
            found.append(vars(interceptor)["_given"]["seconds"])
        elif hasattr(interceptor, "select"):
            pending += interceptor.select(one)
    return found


ROWS = {"*": 1, "/shop.v1.*/*": 2, "/shop.v1.Orders/*": 3, "/shop.v1.Orders/Get*": 4, "/shop.v1.Orders/GetOrder": 5}


@given(st.permutations(list(ROWS)))
def test_the_most_specific_row_counts(order: list[str]) -> None:
    """Whatever the order in the file: a method, its service, the longer pattern, everything."""
    with tempfile.TemporaryDirectory() as folder:
        policy = loaded(Path(folder), {"client": [{"methods": {name: [{"Deadline": ROWS[name]}] for name in order}}]})

    assert seconds(policy, "/shop.v1.Orders/GetOrder") == [5]
    assert seconds(policy, "/shop.v1.Orders/GetAll") == [4]
    assert seconds(policy, "/shop.v1.Orders/Place") == [3]
    assert seconds(policy, "/shop.v1.Carts/Get") == [2]
    assert seconds(policy, "/pay.v1.Cards/Charge") == [1]


def test_of_equal_rows_the_first_counts(tmp_path: Path) -> None:
    """As in a list."""
    policy = loaded(tmp_path, {"client": [{"methods": {"/a.B/X*": [{"Deadline": 1}], "/a.B/*Y": [{"Deadline": 2}]}}]})

    assert seconds(policy, "/a.B/XY") == [1]


def test_a_method_without_a_row_has_none(tmp_path: Path) -> None:
    """And a row without interceptors is one all the same."""
    policy = loaded(tmp_path, {"client": [{"methods": {"/a.B/*": [{"Deadline": 1}], "/a.B/Watch": []}}]})

    assert seconds(policy, "/a.C/X") == seconds(policy, "/a.B/Watch") == []
    assert seconds(policy, "/a.B/X") == [1]


def test_tables_stand_in_each_other_and_beside_each_other(tmp_path: Path) -> None:
    """Each table has its say."""
    inner = {"methods": {"/a.B/Get": [{"Deadline": 2}], "*": [{"Deadline": 3}]}}
    outer = {"methods": {"/a.B/*": [{"Deadline": 1}, inner]}}
    policy = loaded(tmp_path, {"client": [outer, {"methods": {"*": [{"Deadline": 4}]}}]})

    assert sorted(seconds(policy, "/a.B/Get")) == [1, 2, 4]
    assert sorted(seconds(policy, "/a.B/Put")) == [1, 3, 4]
    assert sorted(seconds(policy, "/a.C/Put")) == [4]


def test_channels_are_told_apart_by_their_targets(tmp_path: Path) -> None:
    """With or without the dns:/// that grpc puts in front; a server's method has no target."""
    rows = {"pay:443": [{"Deadline": 1}], "*:443": [{"Deadline": 2}], "unix:*": [{"Deadline": 3}]}
    policy = loaded(tmp_path, {"client": [{"targets": rows}]})

    assert seconds(policy, "/a.B/X", "dns:///pay:443") == seconds(policy, "/a.B/X", "pay:443") == [1]
    assert seconds(policy, "/a.B/X", "dns:///shop:443") == [2]
    assert seconds(policy, "/a.B/X", "unix:/run/shop") == [3]
    assert seconds(policy, "/a.B/X", "shop:80") == seconds(policy, "/a.B/X") == []
    assert "when to '*:443': Deadline" in describe(policy.client)


def test_a_real_channel_has_the_stack_of_its_target(tmp_path: Path) -> None:
    """By the address that it was made with."""
    refusal = {"FaultInjection": {"enabled": True, "abort": "ABORTED"}}
    with Echo().serve() as target:
        policy = loaded(tmp_path, {"client": [{"targets": {target: [refusal]}}]})
        with (
            intercept_channel(grpc.insecure_channel(target), *policy.client) as channel,
            pytest.raises(grpc.RpcError) as raised,
        ):
            Stub(channel).unary_unary("a")
    assert raised.value.code() is grpc.StatusCode.ABORTED  # type: ignore[attr-defined]


@given(st.lists(st.sampled_from(["/a.B/*", "/a.{B,C}/X", "*", "/{a,b.{c,d}}/X"]), min_size=1, max_size=3))
def test_several_patterns_are_one_row(patterns: list[str]) -> None:
    """In braces around all of them."""
    assert several_patterns(one_pattern(patterns)) == patterns


@pytest.mark.parametrize("text", ["/a.{B,C}/X", "{a,b}/X", "}{", "{a", "", "{/a.B/X}.{b}"])
def test_other_braces_are_of_the_pattern(text: str) -> None:
    """Those that do not stand around all."""
    assert several_patterns(text) == [text]


# --- rows that fit nothing --------------------------------------------------------------------------------------------


def handler(request: Any, context: Any) -> Any:
    return request


def refused(sort: str, handlers: dict[str, Any], policy: Policy) -> str:
    """Why a server of this sort does not start with the policy."""
    made = {kind: MAKE[kind](function, decode, encode) for kind, function in handlers.items()}

    async def start() -> None:
        server = intercept_server(grpc.aio.server(), policy.server)
        server.add_registered_method_handlers("facts.Server", made)
        await server.start()

    with pytest.raises(ValueError) as raised:  # noqa: PT011  its text is what is asked for
        if sort == "async":
            asyncio.run(start())
        with ThreadPoolExecutor() as pool:
            server = intercept_server(grpc.server(pool), policy.server)
            server.add_registered_method_handlers("facts.Server", made)
            server.start()
    return str(raised.value)


@pytest.mark.parametrize("sort", ["sync", "async"])
def test_a_row_that_fits_no_method_ends_the_start_of_a_server(sort: str, tmp_path: Path) -> None:
    """As one of a guard's table does; also a row inside of another, by the methods of that one."""
    rows = {
        f"/{SERVICE}/*": [],
        "/facts.Server/unary_unary": [{"methods": {"/facts.Server/unary_unary": [], "/facts.Server/unary_stream": []}}],
    }
    policy = loaded(tmp_path, {"server": [{"methods": rows}]})

    told = refused(sort, {"unary_unary": handler, "unary_stream": handler}, policy)

    first, second = told.split("; ")
    assert first.startswith(
        f"{policy.path}:5: server[0].methods[\"/{SERVICE}/*\"]: the row '/{SERVICE}/*' fits no method"
    )
    assert "/facts.Server/unary_stream" in second


def test_guards_inside_of_a_policy_are_asked_too(tmp_path: Path) -> None:
    """The table of an Authorize that stands in a row."""
    rows = {"methods": {"/facts.Server/*": [{"Authorize": {"policy": {"/facts.Server/Nothing": "anyone"}}}]}}
    policy = loaded(tmp_path, {"server": [rows]})

    told = refused("sync", {"unary_unary": handler}, policy)

    assert told.startswith("Authorize: the row '/facts.Server/Nothing' fits no method")


def test_a_row_that_fits_nothing_is_told_when_a_channel_closes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A channel does not know its methods beforehand."""
    caplog.set_level(logging.WARNING)
    policy = loaded(tmp_path, {"client": [{"methods": {"/a.B/*": [], f"/{SERVICE}/*": []}}]})

    with Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY).open(policy.client) as rpc:
        assert rpc.call("a").ok

    assert [record.message for record in caplog.records if "/a.B/*" in record.message]
    assert not [record.message for record in caplog.records if f" /{SERVICE}/* has matched" in record.message]


def test_a_sync_server_refuses_what_cannot_run_on_it(tmp_path: Path) -> None:
    """An async interceptor, as in a stack of code."""
    policy = loaded(
        tmp_path, {"server": ["tests.policy.interceptors:awaiting"]}, allow=["tests.policy.interceptors:awaiting"]
    )
    with ThreadPoolExecutor() as pool, pytest.raises(TypeError, match="async def"):
        intercept_server(grpc.server(pool), policy.server)
