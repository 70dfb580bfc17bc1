"""Records made by copying what they have in common: no handler, filter or formatter sees a difference."""

import asyncio
import io
import json
import logging
import logging.handlers
import pickle
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms import json_lines, log_records
from interpose.mechanisms.json_lines import MACHINE_READABLE, JsonFormatter, Said
from interpose.mechanisms.log_records import Template

FIELDS = {"protocol": "grpc", "grpc.method": "Größe", "grpc.code": "OK"}


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def template_for(*handlers: logging.Handler, of: type[logging.Logger] = logging.Logger) -> Template:
    """For a logger that ends here."""
    logger = of("test.records", logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    return Template(logger, logging.INFO, "done", ": %s in %s ms", ("grpc.method",), "of/here.py", FIELDS)


def in_json() -> tuple[logging.Handler, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    return handler, stream


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def usual_factory() -> Iterator[Any]:
    """The record factory, put back afterwards."""
    usual = logging.getLogRecordFactory()
    yield usual
    logging.setLogRecordFactory(usual)


# --- as logging makes them --------------------------------------------------------------------------------------------


def same(copied: logging.LogRecord, made: logging.LogRecord) -> bool:
    """Do they differ only in when they were made, and in what is ready for JSON?"""
    times = {"created", "msecs", "relativeCreated"}
    return (
        type(copied) is type(made)
        and [*copied.__dict__] == [*made.__dict__]
        and all(copied.__dict__[name] == value for name, value in made.__dict__.items() if name not in times)
    )


async def test_a_copy_is_what_logging_makes(kept: Kept) -> None:
    """In a thread, in a task, and in a loop's callback; with its times."""
    template = template_for(kept)

    def write() -> None:
        template.write({"more": 1}, 1.5)
        kept.records.append(template._made((1.5,)))
        kept.records[-1].__dict__["more"] = 1

    async def in_task() -> None:
        write()

    thread = threading.Thread(target=write, name="worker")
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.create_task(in_task(), name="some task")
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(lambda: (write(), done.set()))
    await done.wait()

    copied, made = kept.records[::2], kept.records[1::2]
    assert len(copied) == 3
    assert all(map(same, copied, made))
    assert copied[0].threadName == "worker"
    for before, after in zip(copied, made, strict=True):
        assert 0 <= after.created - before.created < 60
        assert before.msecs == int(before.created % 1 * 1000)
        assert after.relativeCreated - before.relativeCreated == pytest.approx(
            (after.created - before.created) * 1000, abs=1
        )


@pytest.mark.parametrize("switch", ["logThreads", "logMultiprocessing", "logProcesses", "logAsyncioTasks"])
def test_what_logging_is_not_to_say(switch: str, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its switches hold."""
    monkeypatch.setattr(logging, switch, False, raising=False)  # logAsyncioTasks: since Python 3.12
    template = template_for(kept)

    template.write({})

    assert same(kept.records[0], template._made(()))


def test_what_logging_is_no_longer_to_say(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold also when records have been written."""
    template = template_for(kept)
    template.write({})
    monkeypatch.setattr(logging, "logThreads", False)
    template.write({})

    assert [(bool(record.thread), bool(record.threadName)) for record in kept.records] == [(True, True), (False, False)]


def test_people_read_a_text(kept: Kept) -> None:
    """Of the message, of what is known, and of what is not."""
    template_for(kept).write({}, 1.5)

    [record] = kept.records
    assert record.getMessage() == "done: Größe in 1.5 ms"
    assert (record.levelname, record.name, record.filename, record.lineno) == ("INFO", "test.records", "here.py", 0)


def test_a_level_gets_another_name(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when records have been written."""
    template = template_for(kept)
    template.write({})
    monkeypatch.setitem(logging._levelToName, logging.INFO, "Information")
    template.write({})

    assert [record.levelname for record in kept.records] == ["INFO", "Information"]


def test_a_child_process_has_its_own_records(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name it, and not the one that it was forked from."""
    template = template_for(kept)
    template.write({})
    monkeypatch.setattr(log_records.os, "getpid", lambda: 4711)
    log_records._forked()
    template.write({})

    assert kept.records[1].process == 4711 != kept.records[0].process


# --- where others make them -------------------------------------------------------------------------------------------


def test_a_factory_of_the_application_makes_them(kept: Kept, usual_factory: Any) -> None:
    """Also if it is set when records have been written."""
    template = template_for(kept)
    template.write({})
    logging.setLogRecordFactory(
        lambda *given, **named: [record := usual_factory(*given, **named), setattr(record, "theirs", 7)][0]
    )
    template.write({"more": 1})

    assert [record.__dict__.get("theirs") for record in kept.records] == [None, 7]
    assert kept.records[1].__dict__.items() >= {**FIELDS, "more": 1, MACHINE_READABLE: "done"}.items()


def test_a_logger_of_another_class_makes_them(kept: Kept) -> None:
    """With what it adds."""

    class Theirs(logging.Logger):
        def makeRecord(self, *given: Any, **named: Any) -> logging.LogRecord:
            record = super().makeRecord(*given, **named)
            record.__dict__["theirs"] = len(kept.records)
            return record

    template = template_for(kept, of=Theirs)
    template.write({})
    template.write({})

    assert kept.records[1].__dict__["theirs"] == 1


# --- as JSON ----------------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["time", "level", "exception", "asctime"]) | st.text(max_size=5), ANYTHING, max_size=6
    )
)
def test_what_is_ready_is_what_would_be_written(more: dict[str, Any]) -> None:
    """Whatever else a record has."""
    kept = Kept()
    template_for(kept).write(more, 1.5)
    [record] = kept.records
    ready = JsonFormatter().format(record)
    record.__dict__[MACHINE_READABLE] = "done"

    assert json.loads(ready) == json.loads(JsonFormatter().format(record))
    assert ready.isascii() and ready.isprintable()


def changed(record: logging.LogRecord) -> bool:
    record.__dict__["grpc.method"] = "hidden"
    return True


def taken_away(record: logging.LogRecord) -> bool:
    del record.__dict__["grpc.method"]
    return True


def added(record: logging.LogRecord) -> bool:
    record.__dict__["zone"] = "eu-1"
    return True


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed, {"grpc.method": "hidden", "zone": None}),
        (taken_away, {"grpc.method": None, "zone": None}),
        (added, {"grpc.method": "Größe", "zone": "eu-1"}),
    ],
)
def test_what_a_filter_does_is_seen(change: Any, expected: dict[str, Any]) -> None:
    """It changes, takes away or adds a field."""
    handler, stream = in_json()
    handler.addFilter(change)

    template_for(handler).write({"more": 1})

    line = json.loads(stream.getvalue())
    assert {name: line.get(name) for name in expected} == expected
    assert (line["message"], line["more"]) == ("done", 1)


def test_a_formatter_for_people_may_come_first(kept: Kept) -> None:
    """What it leaves in the record is not written."""
    handler, stream = in_json()
    kept.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    kept.emit = lambda record: kept.format(record) and None  # type: ignore[method-assign]

    template_for(kept, handler).write({"more": 1, "most": 2}, 2)

    assert list(json.loads(stream.getvalue())) == ["time", "level", "logger", "message", *FIELDS, "more", "most"]


def test_a_record_travels(kept: Kept) -> None:
    """Through a queue, and to another process."""
    handler, stream = in_json()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    template_for(kept, logging.handlers.QueueHandler(waiting)).write({"more": 1}, 2)

    handler.handle(kept.records[0])
    handler.handle(waiting.get())
    handler.handle(logging.makeLogRecord(pickle.loads(pickle.dumps(kept.records[0].__dict__))))

    first, *others = stream.getvalue().splitlines()
    assert others == [first, first]


def test_an_exception_is_written() -> None:
    """Of a record that has got one on its way."""
    handler, stream = in_json()
    handler.addFilter(lambda record: setattr(record, "stack_info", "Stack:") or True)

    template_for(handler).write({})

    assert json.loads(stream.getvalue())["stack"] == "Stack:"


def test_what_is_said_is_a_text() -> None:
    """For all who know nothing of JSON."""
    said = Said("done", FIELDS)

    assert said == "done" and type(pickle.loads(pickle.dumps(said))) is str


@pytest.mark.parametrize("name", ["created", "levelname", "name"])
def test_what_a_filter_breaks_is_shown_as_far_as_can_be(name: str) -> None:
    """The rest of the record is not lost."""
    handler, stream = in_json()
    handler.addFilter(lambda record: setattr(record, name, []) or True)

    template_for(handler).write({"more": 1})

    assert json.loads(stream.getvalue()).items() >= {**FIELDS, "message": "done", "more": 1}.items()


def test_names_of_fields_are_not_kept_without_end() -> None:
    """Each of a thousand is written; few are kept ready."""
    handler, stream = in_json()
    template = template_for(handler)
    names = [f"field {number}" for number in range(1000)]
    for name in names:
        template.write({name: 1})

    assert all(json.loads(line)[name] == 1 for name, line in zip(names, stream.getvalue().splitlines(), strict=True))
    assert len(json_lines._KEYS) <= json_lines.MAX_KEYS
