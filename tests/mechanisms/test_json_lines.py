"""Log records as JSON: one line, always."""

import copy
import enum
import io
import json
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.json_lines import MAX_VALUES, JsonFormatter, JsonLines, members_of, rfc3339


def record(message: Any = "hello", *arguments: Any, error: Any = None, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.INFO, "file.py", 1, message, arguments, error)
    made.created = 1_700_000_000.5
    made.__dict__.update(fields)
    return made


def written(made: logging.LogRecord) -> dict[str, Any]:
    """What a record is written as, read back."""
    line = JsonFormatter().format(made)
    assert line.isascii() and line.isprintable()
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_record() -> None:
    """Time, level, logger, message, and the extra fields, in this order; nothing of where it was made."""
    read = written(record("%s and %s", "a", "b", **{"grpc.code": "OK", "grpc.time_ms": 1.5}))

    assert list(read.items()) == [
        ("time", "2023-11-14T22:13:20.500Z"),
        ("level", "INFO"),
        ("logger", "shop"),
        ("message", "a and b"),
        ("grpc.code", "OK"),
        ("grpc.time_ms", 1.5),
    ]


def test_an_exception() -> None:
    """With its traceback; also if another formatter was first, or the record came from another process."""
    try:
        {}["gone"]
    except KeyError:
        made = record(error=sys.exc_info())

    told = written(made)["exception"]
    logging.Formatter().format(made)
    travelled = copy.copy(made)
    travelled.exc_info = None

    assert told.startswith("Traceback") and told.endswith("KeyError: 'gone'")
    assert written(made)["exception"] == written(travelled)["exception"] == told


def test_a_stack() -> None:
    """Is written where it was asked for."""
    assert written(record(stack_info="Stack:\n  here"))["stack"] == "Stack:\n  here"


def test_no_field_hides_another() -> None:
    """An extra field that is named as one of ours is written under another name."""
    read = written(record(time="noon", level=5, logger="x", exception="mine"))

    assert (read["level"], read["extra.time"], read["extra.level"], read["extra.logger"]) == ("INFO", "noon", 5, "x")
    assert read["exception"] == "mine"


class Unwritable:
    def __str__(self) -> str:
        raise SystemExit("broken")

    __repr__ = __str__


class Texts(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("broken")


class Numbers(int):
    def __int__(self) -> int:
        raise RuntimeError("broken")


class Colour(enum.IntEnum):
    RED = 1


class Impostor:
    """Says that it is a number."""

    @property
    def __class__(self) -> Any:
        return int

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        ("größe 😀\x00\n", "größe 😀\x00\n"),
        ("\udc80", "\udc80"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**5000, "<int, 5001 bits>"),
        (b"ab\xff", r"b'ab\xff'"),
        ((1, [2, {3: 4}]), [1, [2, {"3": 4}]]),
        ({(1, 2): None, None: 1, b"k": 2}, {"(1, 2)": None, "None": 1, "b'k'": 2}),
        ({"one"}, ["one"]),
        (Unwritable(), "<Unwritable, not shown: SystemExit>"),
        ({"in": [Unwritable()]}, {"in": ["<Unwritable, not shown: SystemExit>"]}),
        (Texts("text"), "text"),
        (Numbers(5), 5),
        (Colour.RED, 1),
        pytest.param(Impostor(), "<not shown: TypeError>", id="impostor"),
        (KeyError("x"), "'x'"),
    ],
)
def test_any_value_is_written(value: Any, shown: Any) -> None:
    """As JSON where JSON has it, else as text."""
    assert written(record(field=value))["field"] == shown


def test_a_value_that_holds_itself() -> None:
    """Is written some levels deep."""
    ring: list[Any] = []
    ring.append(ring)

    assert '["\\u2026"]' in JsonFormatter().format(record(field=ring))


def test_a_value_that_holds_a_great_deal() -> None:
    """Is written up to a bound, and costs no more."""
    laughs: list[Any] = ["ha"]
    for _ in range(15):
        laughs = [laughs] * 10

    assert len(JsonFormatter().format(record(field=laughs))) < MAX_VALUES * 10


def test_a_long_value_is_cut() -> None:
    """With a mark where something is left out."""
    long_list = written(record(field=[1] * 100_000))["field"]
    long_dict = written(record(field=dict.fromkeys(range(100_000))))["field"]

    assert MAX_VALUES - 10 < len(long_list) < MAX_VALUES and long_list[-1] == "…"
    assert MAX_VALUES - 10 < len(long_dict) < MAX_VALUES and long_dict["…"] == "…"


def test_a_container_that_breaks() -> None:
    """Is one value that is not shown."""

    class Broken(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("broken")

    assert written(record(field=Broken(), other=1)) | {"time": ""} == {
        "time": "",
        "level": "INFO",
        "logger": "shop",
        "message": "hello",
        "field": "<not shown: RuntimeError>",
        "other": 1,
    }


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (record("%d", "text"), "%d <arguments not shown: TypeError>"),
        (record("%s", Unwritable()), "%s <arguments not shown: SystemExit>"),
        (record(Unwritable()), "<Unwritable, not shown: SystemExit> <arguments not shown: SystemExit>"),
        (record("a\nb\u2028"), "a\nb\u2028"),
    ],
)
def test_a_message_that_cannot_be_made(made: logging.LogRecord, message: str) -> None:
    """Is written without its arguments."""
    assert written(made)["message"] == message


def test_a_record_with_broken_parts() -> None:
    """Is written with what is whole."""
    read = written(record(created="noon", exc_info=(1, 2, 3), levelname=Unwritable()))

    assert read["time"] == "<not shown: TypeError>"
    assert read["exception"].startswith("<not shown: ")
    assert read["level"] == "<Unwritable, not shown: SystemExit>"


def test_what_is_no_record() -> None:
    """Even that is one line."""
    nothing: Any = object()

    assert written(nothing) == {"level": "ERROR", "message": "<record not shown: AttributeError>"}


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)),
    max_leaves=20,
)


@given(anything, st.text(st.characters()))
def test_every_record_is_one_line(value: Any, text: str) -> None:
    """Which can be read back."""
    read = written(record("%s", text, field=value))

    assert read["message"] == text


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:20.999Z"),
        (1_700_000_000.9999999, "2023-11-14T22:13:21.000Z"),
        (-5.0, "1970-01-01T00:00:00.000Z"),
        (1e18, "9999-12-31T23:59:59.000Z"),
        (float("inf"), "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_date(seconds: float, date: str) -> None:
    """RFC 3339, in UTC, to the millisecond; the nearest one for what has none."""
    assert rfc3339(seconds) == date


def test_a_formatter_is_pickled() -> None:
    """As those of the standard library can be."""
    assert pickle.loads(pickle.dumps(JsonFormatter())).format(record()) == JsonFormatter().format(record())


def test_fields_of_a_factory_that_was_there_first() -> None:
    """What an application's record factory sets is no attribute that every record has."""
    program = """
import logging
usual = logging.getLogRecordFactory()
def factory(*given, **named):
    record = usual(*given, **named)
    record.zone = "eu-1"
    return record
logging.setLogRecordFactory(factory)
from interpose.mechanisms.json_lines import JsonFormatter
print(JsonFormatter().format(logging.makeLogRecord({})))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert json.loads(done.stdout)["zone"] == "eu-1"


# --- without logging --------------------------------------------------------------------------------------------------

COMMON = {"protocol": "grpc", "grpc.method": "Größe"}


def by_logging(more: dict[str, Any]) -> dict[str, Any]:
    """What `JsonFormatter` writes of these fields."""
    record = logging.makeLogRecord({"name": "interpose.access", "levelname": "INFO", "msg": "done", **COMMON, **more})
    line: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return line


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"request_id": "a\r\nb", "grpc.time_ms": 1.25, "grpc.attempts": 3, "time": "theirs"},
        {"grpc.request.metadata.x-tenant": ["north", "south"], "nothing": None, "huge": 2**5000, "time": 7},
    ],
    ids=["nothing", "plain", "more"],
)
def test_a_stream_gets_the_lines_of_the_formatter(more: dict[str, Any]) -> None:
    """Whatever a record has more than others."""
    stream = io.StringIO()
    JsonLines(stream)._prepared(logging.INFO, "done", COMMON)(members_of(more))
    JsonLines(stream).write(logging.INFO, "done", {**COMMON, **more})

    first, second = stream.getvalue().splitlines()
    expected = by_logging(more)
    for line in (first, second):
        assert line.isascii() and line.isprintable()
        assert {**json.loads(line), "time": ""} == {**expected, "time": ""}


def test_a_stream_is_flushed_after_each_line(tmp_path: Path) -> None:
    """Unless it does so by itself."""
    for buffering in (1, 1 << 16):
        path = tmp_path / str(buffering)
        with path.open("w", buffering=buffering) as stream:
            JsonLines(stream).write(logging.INFO, "done", {})
            assert json.loads(path.read_text())["message"] == "done"


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    """Each is a line of its own."""
    path = tmp_path / "lines"
    with path.open("w") as stream, ThreadPoolExecutor(8) as pool:
        write = JsonLines(stream)._prepared(logging.INFO, "done", COMMON)
        list(pool.map(lambda number: write(members_of({"number": number, "text": "x" * 3000})), range(400)))

    assert sorted(json.loads(line)["number"] for line in path.read_text().splitlines()) == list(range(400))


def test_a_level_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """What is below it; and the stream is that of errors, unless given."""
    lines = JsonLines(level=logging.WARNING, name="shop")
    lines.write(logging.WARNING, "done", {})

    assert (lines.isEnabledFor(logging.INFO), lines.isEnabledFor(logging.WARNING)) == (False, True)
    assert json.loads(capsys.readouterr().err)["logger"] == "shop"
    assert repr(lines) == "<JsonLines: shop>"


def test_what_is_no_stream_is_refused() -> None:
    """Bytes, what is closed, and anything else; with all faults at once."""
    closed = io.StringIO()
    closed.close()
    for stream in (io.BytesIO(), closed, "lines.txt"):
        with pytest.raises(ValueError, match=r"stream must be an open text stream, like sys\.stdout"):
            JsonLines(cast("Any", stream))
    with pytest.raises(ValueError, match=r"(?s)level must be .*not 'INFO'.*name must be text.*not 7"):
        JsonLines(level=cast("Any", "INFO"), name=cast("Any", 7))
