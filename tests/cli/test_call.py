"""`interpose call`: all four kinds of RPC, JSON in and JSON out, against sync and asyncio servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import HERE, Ended, Served
from tests.cli.till import SERVICE, serving

Run = Callable[..., Ended]

NOT_FOUND = 64 + 5
DEADLINE = 64 + 4
UNAVAILABLE = 64 + 14


def lines(text: str) -> list[Any]:
    """Each line as JSON."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("method", "data", "names"),
    [
        ("Ring", '{"name": "tea"}', [["tea"]]),
        ("Watch", '{"name": "tea", "count": 2}', [["tea"], ["tea"]]),
        ("Sum", '{"name": "tea"} {"name": "cup"}', [["tea", "cup"]]),
        ("Trade", '{"name": "tea"}\n{"name": "cup"}', [["tea"], ["cup"]]),
    ],
)
def test_each_kind(served: Served, run: Run, method: str, data: str, names: list[list[str]]) -> None:
    """The JSON of the argument goes out as messages, and each response comes as a line."""
    ended = run("call", served.target, f"{SERVICE}/{method}", data)

    assert (ended.status, ended.err) == (0, "")
    assert [answer["names"] for answer in lines(ended.out)] == names


@pytest.mark.parametrize("method", ["Sum", "Trade"])
def test_requests_of_the_standard_input(shop: Served, run: Run, method: str) -> None:
    """A stream of requests is read from there, whether a message stands in one line or in several."""
    ended = run("call", shop.target, f"{SERVICE}/{method}", stdin='{"name":\n "tea"}\n\n{"name": "cup"}{"name": "jug"}')

    assert ended.status == 0
    assert [name for answer in lines(ended.out) for name in answer["names"]] == ["tea", "cup", "jug"]


def test_text_beyond_ascii(shop: Served, run: Run) -> None:
    """It goes both ways as it is, line separators too, which would end a line for Python."""
    ended = run("call", shop.target, f"{SERVICE}/Ring", "-", stdin='{"name": "thé ☕"}')
    odd = run("call", shop.target, f"{SERVICE}/Ring", '{"name": "}\u2028x"}')

    assert '"names": ["thé ☕"]' in ended.out
    assert lines(odd.out)[0]["names"] == ["}\u2028x"]


def test_an_any_is_packed(shop: Served, run: Run) -> None:
    """Of types that the server knows, and of those that google has for all."""
    for kind, fields in (("interpose.till.Nothing", ""), ("google.rpc.ErrorInfo", ', "reason": "R"')):
        packed = f'{{"extra": {{"@type": "type.googleapis.com/{kind}"{fields}}}}}'
        assert run("call", shop.target, f"{SERVICE}/Ring", packed).status == 0


@pytest.mark.parametrize("mark", ["-", "@"])
def test_a_single_request_of_the_standard_input(shop: Served, run: Run, mark: str) -> None:
    """A dash asks for it, as does grpcurl's @."""
    assert lines(run("call", shop.target, f"{SERVICE}/Ring", "-d", mark, stdin='{"count": 3}').out) == [
        {"names": [""], "metadata": {"user-agent": lines_agent(shop, run)}, "total": 3}
    ]


def lines_agent(shop: Served, run: Run) -> str:
    """The user agent that the command has."""
    agent: str = lines(run("call", shop.target, f"{SERVICE}/Ring").out)[0]["metadata"]["user-agent"]
    assert agent.startswith("interpose-cli grpc-python/")
    return agent


@pytest.mark.parametrize("name", [f"{SERVICE}/Ring", f"/{SERVICE}/Ring", f"{SERVICE}.Ring"])
def test_a_method_may_be_written_in_three_ways(shop: Served, run: Run, name: str) -> None:
    """With a slash, with one in front as well, and with a dot, as for grpcurl; without JSON the request is empty."""
    assert lines(run("call", shop.target, name).out)[0]["names"] == [""]


def test_metadata(shop: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are small letters on the wire, -bin keys take base64, and a variable is put in where it is named."""
    monkeypatch.setenv("TOKEN", "t0ps3cret")
    binary = base64.b64encode(b"\x00\xff").decode().rstrip("=")

    ended = run(
        *("call", shop.target, f"{SERVICE}/Ring", "-H", "X-Shop: north", "--metadata", f"x-raw-bin:{binary}"),
        *("--header", "authorization: Bearer ${TOKEN}"),
    )

    seen = lines(ended.out)[0]["metadata"]
    assert (seen["x-shop"], seen["x-raw-bin"], seen["authorization"]) == ("north", "b'\\x00\\xff'", "Bearer t0ps3cret")


def test_verbose_shows_metadata_without_secrets(shop: Served, run: Run) -> None:
    """What was sent and what came back, but for what looks like a secret; of bytes their number."""
    ended = run(
        "call", shop.target, f"{SERVICE}/Ring", "-v", "-H", "authorization: Bearer t0ps3cret", "-H", "x-shop: a"
    )

    assert ended.err.splitlines() == [
        f"method: {SERVICE}.Ring",
        "> authorization: [REDACTED]",
        "> x-shop: a",
        "< x-till: 7",
        "< set-cookie: [REDACTED]",
        "< (trailing) x-drawer-bin: <2 bytes>",
    ]


def test_a_failure_has_a_status_and_shows_its_details(served: Served, run: Run) -> None:
    """The line names method and code; details follow by name: google's, the server's own, and one that is not known."""
    ended = run("call", served.target, f"{SERVICE}/Ring", '{"name": "fail"}')

    assert (ended.status, ended.out) == (NOT_FOUND, "")
    assert ended.err.splitlines() == [
        f"interpose call: {SERVICE}/Ring ended with NOT_FOUND: no such item\\x1b[2J\\x9b31m",
        '  google.rpc.ErrorInfo {"reason": "SOLD_OUT", "domain": "till"}',
        '  interpose.till.Item {"name": "fail"}',
        '  nowhere.Thing {"value": "CAE="}',
    ]


def test_a_failure_as_json(shop: Served, run: Run) -> None:
    """With --json it is one line of JSON, on the standard error."""
    (error,) = lines(run("call", shop.target, f"{SERVICE}/Ring", '{"name": "fail"}', "--json").err)

    assert (error["code"], [detail["@type"] for detail in error["details"]]) == (
        "NOT_FOUND",
        ["google.rpc.ErrorInfo", "interpose.till.Item", "nowhere.Thing"],
    )


def test_responses_before_a_failure_are_shown(served: Served, run: Run) -> None:
    """What came of a stream stays."""
    ended = run("call", served.target, f"{SERVICE}/Trade", '{"name": "tea"} {"name": "fail"}')

    assert ended.status == NOT_FOUND
    assert [answer["names"] for answer in lines(ended.out)] == [["tea"]]


def test_an_any_that_is_not_known_is_shown_by_its_type(shop: Served, run: Run) -> None:
    """No response is lost for it."""
    (answer,) = lines(run("call", shop.target, f"{SERVICE}/Ring", '{"name": "unknown"}').out)

    assert answer["extra"] == {"@type": "type.googleapis.com/nowhere.Thing"}


def test_defaults_on_demand(shop: Served, run: Run) -> None:
    """Fields that have their default are shown if that is asked for."""
    (answer,) = lines(run("call", shop.target, f"{SERVICE}/Ring", "--emit-defaults").out)

    assert answer["total"] == 0


# --- protos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [["--proto", HERE / "till.proto"], ["--proto", "till.proto", "-I", HERE]])
def test_types_of_a_proto(protos: Any, run: Run, where: list[Any]) -> None:
    """A server without reflection is called with the proto's types, found in its folder or where -I says."""
    from tests.cli.till import Till

    with serving("sync", Till(protos[0]), protos[1], reflect=False) as target:
        ended = run("call", target, f"{SERVICE}/Ring", '{"name": "tea"}', *where)
        without = run("call", target, f"{SERVICE}/Ring")

    assert lines(ended.out)[0]["names"] == ["tea"]
    assert without.status == 2
    assert without.err == f"interpose call: {target} has no server reflection: give --proto FILE\n"


def test_a_proto_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    """The compiler's own words, in one line."""
    (tmp_path / "bad.proto").write_text('syntax = "proto3";\nmessage {}\n', "utf-8")

    ended = run("call", "127.0.0.1:1", "a.B/C", "--proto", tmp_path / "bad.proto")

    assert ended.status == 2
    assert "bad.proto:2:9: Expected message name" in ended.err


# --- what makes no sense ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "data", "said"),
    [
        ("Ring", '{"name": "tea"', "no JSON at line 1, column 15"),
        ("Ring", '{"name": tea}', "no JSON at line 1, column 10"),
        ("Ring", "[" * 100_000, "the JSON at line 1 is nested too deep"),
        ("Ring", '{"name": "a"} {}', "Till.Ring takes one message, not 2"),
        ("Ring", "", "Till.Ring takes one message, not 0"),
        ("Ring", "[]", "fit interpose.till.Item: it must be an object like {}, not []"),
        ("Ring", "[1]", "fit interpose.till.Item: it must be an object like {}, not [1]"),
        ("Ring", '{"nmae": "tea"}', "there is no field nmae: write name"),
        ("Ring", '{"parts": [{}, {"weight": "x"}], "count": 1.5}', "parts[1].weight: "),
        ("Ring", '{"parts": [{}, {"weight": "x"}], "count": 1.5}', "; count: Couldn't parse integer: 1.5"),
        ("Ring", '{"spares": {"lid": {"unitNam": 1}}}', 'no field spares["lid"].unitNam: write unitName'),
        ("Ring", '{"parts": {}}', "parts must be in []"),
        ("Ring", '{"madeAt": "noon"}', "madeAt: "),
        ("Ring", '{"size": "HUGE"}', "size: "),
        ("Ring", '{"cash": 1, "voucher": "v"}', "payment"),
        ("Ring", '{"extra": {"@type": "a.b/nowhere.Thing"}}', "extra: "),
        ("Rung", "", f"{SERVICE} has no method Rung; did you mean Ring?"),
        ("nothing", "", "has no method nothing; there are: Price, Ring, Sum, Trade, Watch"),
    ],
)
def test_what_makes_no_sense_is_one_line(shop: Served, run: Run, method: str, data: str, said: str) -> None:
    """It names the place, says what would fit, and nothing was sent."""
    ended = run("call", shop.target, f"{SERVICE}/{method}", data)

    assert (ended.status, ended.out, shop.till.calls) == (2, "", 0)
    assert ended.err.startswith("interpose call: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'TARGET'"),
        (["", "a.B/C"], "TARGET is empty: write host:port"),
        (["localhost:1", "nothing"], "'nothing' is no method: write package.Service/Method"),
        (["localhost:1", "a.B/C", "{}", "-d", "{}"], "give the message once"),
        (["localhost:1", "a.B/C", "--nonsense"], "No such option"),
        (["localhost:1", "a.B/C", "--deadline", "soon"], "'soon' is no time above 0: write 5, 5s, 250ms or 1m"),
        (["localhost:1", "a.B/C", "--deadline", "0"], "no time above 0"),
        (["localhost:1", "a.B/C", "-H", "t0ps3cret"], "header 1 is no key:value"),
        (["localhost:1", "a.B/C", "-H", "a:b", "-H", "x key:t0ps3cret"], "header 2 is no key:value"),
        (["localhost:1", "a.B/C", "-H", "grpc-timeout:t0ps3cret"], "grpc-timeout is gRPC's own"),
        (["localhost:1", "a.B/C", "-H", "x-bin:t0ps3cret!"], "the value of x-bin is not base64"),
        (["localhost:1", "a.B/C", "-H", "x:t0ps3cret é"], "the value of x has more than printable ASCII"),
        (["localhost:1", "a.B/C", "-H", "x:t0ps3cret${NO_SUCH}"], "x needs the variable NO_SUCH, which is not set"),
        (["localhost:1", "a.B/C", "--ca", "/nowhere.pem"], "'/nowhere.pem' does not exist"),
        (["localhost:1", "a.B/C", "--key", __file__], "needs both: --cert FILE and --key FILE"),
    ],
)
def test_flags_that_make_no_sense(run: Run, arguments: list[str], said: str) -> None:
    """One line, status 2, and never the value of a header."""
    ended = run("call", *arguments)

    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err
    assert "t0ps3cret" not in ended.err


def test_a_service_that_is_not_there(shop: Served, run: Run) -> None:
    """The names that are close, or all."""
    close = run("call", shop.target, "interpose.till.Tll/Ring")
    other = run("call", shop.target, "Till/Ring")
    far = run("call", shop.target, "nothing.Alike/Ring")

    assert f"there is no service interpose.till.Tll; did you mean {SERVICE}?" in close.err
    assert f"there is no service Till; did you mean {SERVICE}?" in other.err
    assert f"there are: grpc.reflection.v1alpha.ServerReflection, {SERVICE}" in far.err
    assert {close.status, other.status, far.status} == {2}


def test_a_target_that_is_not_there(run: Run) -> None:
    """The status is that of UNAVAILABLE, and the line says what to look at."""
    ended = run("call", "127.0.0.1:1", f"{SERVICE}/Ring")

    assert ended.status == UNAVAILABLE
    assert ended.err.startswith("interpose call: 127.0.0.1:1 cannot be reached: ")
    assert "is the server running there" in ended.err
    assert ended.err.count("\n") == 1


def test_a_bad_message_of_a_stream_cancels_it(served: Served, run: Run) -> None:
    """The server does not take what came before for a whole stream, and the line says what was wrong."""
    ended = run("call", served.target, f"{SERVICE}/Sum", stdin='{"name": "tea"}\n{"nmae": "cup"}\n')

    assert (ended.status, ended.out) == (2, "")
    assert "there is no field nmae: write name" in ended.err
    assert served.till.calls == 0


# --- deadlines, and sending again -------------------------------------------------------------------------------------


def test_retries(served: Served, run: Run) -> None:
    """A call that may be executed twice is sent again; each retry is told if asked for."""
    served.till.flaky = 2

    ended = run("call", served.target, f"{SERVICE}/Price", '{"name": "tea"}', "--attempts", 3, "-v")

    assert (ended.status, served.till.calls) == (0, 3)
    assert ended.err.count("after UNAVAILABLE") == 2


@pytest.mark.parametrize("flags", [["--attempts", 2], ["--hedge", 2]])
@pytest.mark.parametrize(("method", "count"), [("Watch", 2), ("Sum", 1), ("Trade", 1)])
def test_sending_again_with_streams(shop: Served, run: Run, flags: list[Any], method: str, count: int) -> None:
    """All kinds of calls can be sent again, and show what came beside their responses."""
    ended = run("call", shop.target, f"{SERVICE}/{method}", '{"count": 2}', "--idempotent", "-v", *flags)

    assert (ended.status, len(lines(ended.out))) == (0, count)
    assert f"method: {SERVICE}.{method}" in ended.err


def test_no_retry_of_what_may_have_been_done(shop: Served, run: Run) -> None:
    """Without the word of the proto or of --idempotent it is sent once, and the line says why."""
    shop.till.flaky = 1

    refused = run("call", shop.target, f"{SERVICE}/Ring", "--attempts", 3)
    shop.till.calls = 0
    allowed = run("call", shop.target, f"{SERVICE}/Ring", "--attempts", 3, "--idempotent")

    assert refused.status == UNAVAILABLE
    assert "nothing says that it is safe" in refused.err
    assert (allowed.status, shop.till.calls) == (0, 2)


def test_hedging(served: Served, run: Run) -> None:
    """Copies of a call that may be executed twice; of any other they are refused before anything is sent."""
    refused = run("call", served.target, f"{SERVICE}/Ring", "--hedge", 2)
    assert (refused.status, served.till.calls) == (2, 0)
    assert "if it may, add --idempotent" in refused.err

    ended = run("call", served.target, f"{SERVICE}/Price", '{"name": "tea"}', "--hedge", 2, "--hedge-delay", "1us")
    assert ended.status == 0
    assert lines(ended.out)[0]["names"] == ["tea"]


def test_what_is_no_json_does_not_wait_for_a_server(run: Run) -> None:
    """It is named at once, though nothing listens there."""
    ended = run("call", "unix:nowhere", "till.v1.Till/Sell", '{"item": ')

    assert ended.status == 2
    assert "JSON" in ended.err
    assert "reached" not in ended.err
