"""Acts and scripts: what the other side of an RPC does."""

from typing import Any

import grpc
import pytest

from interpose import Kind, errors
from interpose.testing import Act, died, failed, ok, raised
from interpose.testing.acts import Script

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
PUSHBACK = "grpc-retry-pushback-ms"


@pytest.mark.parametrize(
    ("kind", "echo"),
    [
        (Kind.UNARY_UNARY, ["a"]),
        (Kind.UNARY_STREAM, ["a", "a", "a"]),
        (Kind.STREAM_UNARY, ["a"]),
        (Kind.STREAM_STREAM, ["a"]),
    ],
    ids=lambda value: value.value if isinstance(value, Kind) else "",
)
def test_it_echoes_where_nothing_is_scripted(kind: Kind, echo: list[str]) -> None:
    """The echo of a unary request is itself, or three of it as a stream; what is scripted takes its place."""
    assert ok().sent(kind, ["a"]) == echo
    assert ok("x").sent(kind, ["a"]) == ["x"]


def test_the_echo_of_a_request_stream() -> None:
    """Each of its messages, or the one text that joins them."""
    assert ok().answer(Kind.STREAM_STREAM, ["a", "b"]) == ["a", "b"]
    assert ok().answer(Kind.STREAM_UNARY, ["a", "b"]) == ["a,b"]


def test_a_failure_may_come_after_some_messages() -> None:
    """On a response stream only: a unary response and a failure exclude each other."""
    act = failed(UNAVAILABLE, after=2)

    assert act.sent(Kind.UNARY_STREAM, ["a"]) == ["a", "a"]
    assert act.sent(Kind.UNARY_UNARY, ["a"]) == []
    assert failed(UNAVAILABLE, after=1, responses=("x", "y")).sent(Kind.STREAM_STREAM, []) == ["x"]


def test_what_fails() -> None:
    """A status, an exception and a death; an answer does not."""
    assert [act.fails for act in (failed(UNAVAILABLE), raised(KeyError()), died(), ok("x"))] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("pushback", "sent"), [(0.3, "300"), (0, "0"), ("-1", "-1"), ("soon", "soon")])
def test_pushback_is_a_trailer(pushback: Any, sent: str) -> None:
    """Seconds are sent as milliseconds, texts as they are, behind the other trailers."""
    act = failed(UNAVAILABLE, pushback=pushback, trailing=[("x-a", "b")])

    assert act.trailing == (("x-a", "b"), (PUSHBACK, sent))


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, 14, "UNAVAILABLE"])
def test_a_failure_needs_the_code_of_a_failure(code: Any) -> None:
    """Anything else is a mistake, and the message says what to write."""
    with pytest.raises(ValueError, match=r"to answer, write ok\(\)"):
        failed(code)


def test_a_status_that_is_raised_as_one_that_is_sent() -> None:
    """For a server without Interpose: code, details and trailers of both; other acts stay as they are."""
    error = errors.NotFound("no such thing", trailing_metadata=(("x-why", "gone"),))

    act = raised(error, trailing=(("x-a", "b"),), after=1).aborted()

    assert (act.code, act.details, act.error, act.after) == (grpc.StatusCode.NOT_FOUND, "no such thing", None, 1)
    assert act.trailing == (("x-a", "b"), ("x-why", "gone"))
    assert raised(KeyError("id")).aborted().error is not None


def test_acts_are_taken_in_order() -> None:
    """Once each; then there are none."""
    script = Script([ok("a"), failed(UNAVAILABLE)])

    assert len(script) == 2
    assert [script.take(), script.left] == [ok("a"), [failed(UNAVAILABLE)]]
    assert [script.take(), script.take(), script.left] == [failed(UNAVAILABLE), None, []]


def test_dots_repeat_what_stands_before_them() -> None:
    """For ever; and it need not be taken at all."""
    script = Script([ok("a"), ok("b"), ...])

    assert script.left == [ok("a")]
    assert [script.take() for _ in range(4)] == [ok("a"), ok("b"), ok("b"), ok("b")]
    assert script.left == []


@pytest.mark.parametrize("acts", [[...], [ok(), ..., ok()], [..., ok()], [ok(), ..., ...]])
def test_dots_stand_at_the_end(acts: list[Any]) -> None:
    """Elsewhere they mean nothing."""
    with pytest.raises(ValueError, match="must be at its end"):
        Script(acts)


@pytest.mark.parametrize("nonsense", [UNAVAILABLE, "hello", None, KeyError("id"), ok])
def test_a_script_is_made_of_acts(nonsense: Any) -> None:
    """What else was given is named, with what to write instead."""
    with pytest.raises(TypeError, match=r"made of acts like ok\(\) and failed\(code\), not of "):
        Script([nonsense])


def test_a_script_knows_whether_a_connection_breaks_in_it() -> None:
    """Such a service is served behind a proxy."""
    assert Script([ok(), died(after=1)]).deadly
    assert not Script([ok(), Act(), failed(UNAVAILABLE), ...]).deadly
