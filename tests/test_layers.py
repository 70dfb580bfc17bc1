"""Which file may import which: the arrows of the layers, read from the imports of the source."""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "interpose"

# The files that stand beside the folders. A new one goes where its imports let it; most belong into a folder.
NOUNS = {"_call", "_outcome", "_method", "_metadata", "_messages", "_flow", "errors", "context", "_clock"}
# What both shells share.
NOUNS |= {"_details", "_executed", "_kind", "_patterns", "_scope", "_unmatched", "_wording"}
NOUNS |= {"_order"}  # what is known of interceptors by their names
NOUNS |= {"_background", "_identity", "_served"}  # what guards share
FRONT_DOOR = {"__init__", "__main__", "_attach", "_describe", "_serve"}

# room: the rooms of ours that it may import
ARROWS = {
    "nouns": {"nouns"},
    "mechanisms": set(),
    "interceptors": {"nouns", "mechanisms"},
    "_shell": {"nouns", "_shell"},
    "_grpcio": {"nouns", "_shell", "_grpcio"},
    "sync": {"nouns", "_shell", "_grpcio", "sync"},
    "aio": {"nouns", "_shell", "_grpcio", "aio"},
    "_native_interceptors": {"nouns", "mechanisms", "_shell", "sync", "aio", "_native_interceptors"},
    "web": {"mechanisms", "web"},
    "contrib": {"nouns", "mechanisms", "interceptors"},
    "cli": {"nouns", "mechanisms", "interceptors", "the front door", "cli"},
    "policy": {"nouns", "mechanisms", "interceptors", "contrib", "_shell", "policy"},
    "serving": {"nouns", "mechanisms", "interceptors", "_shell", "sync", "aio", "policy", "the front door", "serving"},
    "the front door": {
        "nouns",
        "mechanisms",
        "interceptors",
        "_shell",
        "sync",
        "aio",
        "_native_interceptors",
        "the front door",
    },
}
FREE = {"testing", "demo", "compat"}  # may import everything

EXTRA_ARROWS = [
    # The front door's function for servers, which imports the rest only when it is called.
    ("_serve.py", "interpose.serving"),
    # What many threads change without a lock is changed in a queue.
    ("mechanisms/breaker.py", "interpose.mechanisms.serial_queue"),
    ("mechanisms/slots.py", "interpose.mechanisms.serial_queue"),
    # A record that has most in common with others is written as JSON that has it in common, too.
    ("mechanisms/log_records.py", "interpose.mechanisms.json_lines"),
    # Options are judged alike, by one file that needs nothing.
    *(
        (f"mechanisms/{name}.py", "interpose.mechanisms.options")
        for name in ("backoff", "budget", "concurrency", "json_lines", "quantile", "redaction")
    ),
    # What is sent with a refusal is packed by hand, and cut to size.
    ("mechanisms/pushback.py", "interpose.mechanisms.rich"),
    ("mechanisms/violations.py", "interpose.mechanisms.rich"),
    ("mechanisms/violations.py", "interpose.mechanisms.text"),
    # A server that refuses a call says when it may come again, and the same word is read by those who retry.
    ("_executed.py", "interpose.mechanisms.pushback"),
    # A plain handler on an asyncio server runs in grpc's thread pool, with the sync shell around it.
    ("aio/plain.py", "interpose.sync.server"),
    # gRPC's service config speaks of several interceptors at once, and makes them; Retry and Hedge judge alike.
    ("interceptors/service_config.py", "interpose.interceptors"),
    ("interceptors/retry.py", "interpose.interceptors.repeating"),
    ("interceptors/hedge.py", "interpose.interceptors.repeating"),
    ("interceptors/cache.py", "interpose.interceptors.answers"),
    ("interceptors/coalesce.py", "interpose.interceptors.answers"),
    ("mechanisms/redaction.py", "interpose.mechanisms.runtimes"),
    # Calls with the same key share a breaker or a limit.
    ("interceptors/circuit_breaker.py", "interpose.interceptors.keys"),
    ("interceptors/rate_limit.py", "interpose.interceptors.keys"),
    # Rpcz is what it knows, what it shows of that and of other interceptors, and a page.
    ("interceptors/rpcz.py", "interpose.interceptors"),
    ("interceptors/rpcz.py", "interpose.web"),
    ("interceptors/rpcz_state.py", "interpose.interceptors"),
    ("interceptors/watched.py", "interpose.interceptors"),
    # Both guards fail closed, in the same way.
    ("interceptors/authenticate.py", "interpose.interceptors.guarding"),
    ("interceptors/authorize.py", "interpose.interceptors.guarding"),
    # A token that a server has refused is replaced, and the call sent again, as by Retry.
    ("interceptors/bearer_token.py", "interpose.interceptors.guarding"),
    ("interceptors/bearer_token.py", "interpose.interceptors.repeating"),
    # A token and the keys that it is checked with.
    ("contrib/jwt.py", "interpose.contrib.jwks"),
    ("contrib/jwt.py", "interpose.contrib.signing_keys"),
    ("contrib/jwks.py", "interpose.contrib.signing_keys"),
]

# room: the packages beyond grpcio that its extra brings
EXTRAS = {
    "serving": {"uvloop", "prometheus_client"},
    "cli": {"click", "rich", "google", "grpc_health", "grpc_reflection"},
}

WAITING = {"threading", "asyncio"}
MAY_WAIT = {"_grpcio", "sync", "aio", "_native_interceptors", "web", "serving", "policy", "cli"}
# Hand time, locks, threads and tasks to all who need them.
KNOWING = {PurePosixPath("_clock.py"): {"threading"}, PurePosixPath("_background.py"): WAITING}
KNOWING |= {PurePosixPath("mechanisms/log_records.py"): WAITING}  # a record names the thread and the task that it is of


def faults(file: PurePosixPath, source: str) -> list[str]:
    """What is wrong with the imports of one file, whose path is relative to src/interpose."""
    room = room_of(file.with_suffix("").parts)
    if room in FREE:
        return []
    if room not in ARROWS:
        return [f"{file}: stands in no room of the layers; say which in tests/test_layers.py"]
    return [
        f"{file}:{line}: {room} must not import {name}"
        for line, name in imported(file, source)
        if not allowed(file, room, name)
    ]


def allowed(file: PurePosixPath, room: str, name: str) -> bool:
    top, *rest = name.split(".")
    if top == "interpose":
        return arrow_allowed(file, room, rest, name)
    if name in {"threading.Lock", "threading.RLock"}:  # held for a few lines of arithmetic, it is no waiting
        return room in MAY_WAIT or room == "mechanisms" or file in KNOWING
    if top in WAITING or name == "time.sleep":
        return room in MAY_WAIT or top in KNOWING.get(file, ())
    if top in sys.stdlib_module_names:
        return True
    if top in EXTRAS.get(room, ()):
        return True
    return room == "contrib" or (top == "grpc" and room != "mechanisms")


def arrow_allowed(file: PurePosixPath, room: str, target: Sequence[str], name: str) -> bool:
    room_door = file.name == "__init__.py" and target[:1] == [room]  # a folder's __init__ lifts its own names
    extra = any(str(file) == source and f"{name}.".startswith(f"{arrow}.") for source, arrow in EXTRA_ARROWS)
    own_folder = room == "contrib" and len(file.parts) > 2 and tuple(target[:2]) == file.parts[:2]
    return room_of(target) in ARROWS[room] or room_door or own_folder or extra


def room_of(module: Sequence[str]) -> str:
    """The room of a module, given by the parts of its name below `interpose`."""
    first = module[0] if module else ""
    if first in NOUNS:
        return "nouns"
    if first in ARROWS or first in FREE:
        return first
    return "the front door" if first in FRONT_DOOR else f"interpose.{first}"


def imported(file: PurePosixPath, source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a file imports, and of each `time.sleep`."""
    for node in ast.walk(ast.parse(source, str(file))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                package = ["interpose", *file.parent.parts]
                base = package[: len(package) - level + 1] if level else []
                origin = ".".join([*base, *filter(None, [module])])
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in names)
            case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
                yield node.lineno, "time.sleep"


def circles(sources: Mapping[str, str]) -> set[tuple[str, ...]]:
    """The files that import one another, over however many others, given the sources by their paths."""
    modules = {module_of(path): path for path in sources}
    imports = {
        path: {modules[found] for _, name in imported(PurePosixPath(path), source) if (found := known(name, modules))}
        for path, source in sources.items()
    }
    reached = {path: reachable(path, imports) for path in sources}
    rings = {frozenset({path} | {other for other in reached[path] if path in reached[other]}) for path in sources}
    return {tuple(sorted(ring)) for ring in rings if len(ring) > 1}


def module_of(path: str) -> str:
    return ".".join(["interpose", *PurePosixPath(path).with_suffix("").parts]).removesuffix(".__init__")


def known(name: str, modules: Mapping[str, str]) -> str:
    """The module that an imported name is, or stands in; empty for one of somebody else's."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def reachable(path: str, imports: Mapping[str, set[str]]) -> set[str]:
    """All files that are imported from here on."""
    found: set[str] = set()
    left = set(imports[path]) - {path}
    while left:
        found.add(path := left.pop())
        left |= imports[path] - found
    return found


@pytest.mark.slow
def test_no_files_import_one_another() -> None:
    """There is an order in which each file can be read knowing all that it imports, also what it imports for its types."""
    sources = {file.relative_to(SOURCE).as_posix(): file.read_text("utf-8") for file in SOURCE.rglob("*.py")}

    assert circles(sources) == set()


def test_a_circle_is_seen() -> None:
    """Over several files, inside functions, and where it is for type checkers alone; an import of one's own package is none."""
    sources = {
        "__init__.py": "from interpose._call import Call",
        "_call.py": "from interpose import errors\nif TYPE_CHECKING:\n    from ._flow import Flow",
        "_flow.py": "def late():\n    from interpose.sync import server",
        "sync/server.py": "import interpose._call",
        "sync/__init__.py": "",
        "errors.py": "import grpc",
    }

    assert circles(sources) == {("_call.py", "_flow.py", "sync/server.py")}


@pytest.mark.slow
def test_every_import_follows_an_arrow() -> None:
    """No file under src/interpose imports against the layers."""
    files = sorted(SOURCE.rglob("*.py"))
    found = [
        fault
        for file in files
        if "generated" not in file.parts
        for fault in faults(PurePosixPath(file.relative_to(SOURCE).as_posix()), file.read_text("utf-8"))
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("_call.py", "from interpose.interceptors import retry"),
        ("_call.py", "from . import interceptors"),
        ("_call.py", "from interpose import Call"),
        ("_flow.py", "import asyncio"),
        ("_flow.py", "from time import sleep"),
        ("_flow.py", "import time; time.sleep(1)"),
        ("_outcome.py", "from google.protobuf import message"),
        ("_outcome.py", "def details(): import grpc_status"),
        ("_clock.py", "import asyncio"),
        ("context.py", "import threading"),
        ("__init__.py", "from interpose.contrib import redis"),
        ("_attic.py", ""),
        ("mechanisms/bucket.py", "from interpose import _call"),
        ("mechanisms/bucket.py", "from .backoff import exponential"),
        ("mechanisms/bucket.py", "import grpc"),
        ("interceptors/retry.py", "from interpose.sync import channel"),
        ("interceptors/retry.py", "from .hedge import Hedge"),
        ("interceptors/retry.py", "import threading"),
        ("interceptors/retry.py", "import redis"),
        ("interceptors/retry.py", "from interpose.web import server"),
        ("web/site.py", "from interpose._call import Call"),
        ("sync/server.py", "from interpose.aio import server"),
        ("sync/server.py", "from interpose.interceptors.retry import Retry"),
        ("aio/channel.py", "from interpose.sync import server"),
        ("aio/plain.py", "from interpose.sync import channel"),
        ("aio/plain.py", "from interpose.sync import server_tools"),
        ("aio/calls.py", "import requests"),
        ("contrib/redis.py", "from interpose.aio import channel"),
        ("contrib/redis.py", "import asyncio"),
        ("cli/call.py", "from interpose.serving import run"),
        ("cli/call.py", "import requests"),
    ],
)
def test_a_line_against_the_layers_is_seen(file: str, line: str) -> None:
    """Each of these would be told with its file."""
    (fault,) = faults(PurePosixPath(file), line)

    assert fault.startswith(file)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("_call.py", "from . import errors\nfrom ._method import Method\nimport grpc, dataclasses, time"),
        ("_clock.py", "import threading\nfrom time import monotonic"),
        ("__init__.py", "from interpose.sync.channel import intercept\nfrom .interceptors import retry"),
        ("interceptors/__init__.py", "from .retry import Retry\nfrom interpose.interceptors import hedge"),
        ("interceptors/retry.py", "from interpose._call import Call\nfrom ..mechanisms import backoff"),
        ("sync/channel.py", "import threading, time, grpc\nfrom . import calls\ntime.sleep(1)"),
        ("aio/plain.py", "import asyncio\nfrom interpose.sync.server import a\nfrom ..sync import server"),
        ("contrib/redis.py", "import redis\nfrom interpose.interceptors import ratelimit"),
        ("cli/call.py", "import asyncio, click\nfrom interpose._method import Kind\nfrom interpose.cli import exits"),
        ("testing/echo.py", "from interpose import Call\nimport pytest, threading, google.protobuf"),
    ],
)
def test_a_line_that_follows_them_is_not(file: str, line: str) -> None:
    """Nothing is said of lines that point down."""
    assert faults(PurePosixPath(file), line) == []


LONGEST_TEST = 900  # lines; a longer file of tests holds more than one topic


def test_no_file_of_tests_is_too_long() -> None:
    """Each file under tests/ holds one topic; a file that has outgrown it is split."""
    tests = Path(__file__).parent
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in sorted(tests.rglob("*.py"))}
    too_long = [f"{file.relative_to(tests)}: {lines} lines" for file, lines in lengths.items() if lines > LONGEST_TEST]

    assert not too_long, "split by topic:\n" + "\n".join(too_long)
