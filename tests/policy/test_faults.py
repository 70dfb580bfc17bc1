"""check: every fault of a policy file at once, each with its line, its field, and what to write instead."""

from pathlib import Path
from typing import Any

import pytest

from interpose.policy import PolicyError, check, load
from tests.policy.files import faults, written

BAD = """{
  "client": [
    "RequestIdd",
    {"Deadline": "5 parsecs"},
    {"Retry": {
      "attempts": 0,
      "codes": ["UNAVAILBLE", "OK"],
      "backof": 1,
      "backoff": {"exponential": {"initial": "5s", "cap": "2s"}},
      "budget": NaN
    }},
    {"methods": {
      "shop.v1.Orders": [{"CircuitBreaker": {"key": "by_metod"}}]
    }}
  ],
  "sever": []
}"""


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    """One line each, in the order of the file; a fault of one row hides none of another."""
    assert faults(tmp_path, BAD) == [
        'policy.json:3: client[0]: there is no interceptor "RequestIdd"; did you mean RequestId?',
        'policy.json:4: client[1].Deadline: must be a duration like "250ms", "2s", "5m" or "1h", not "5 parsecs"',
        "policy.json:6: client[2].Retry.attempts: must be a whole number from 1 (never again) to 1000, not 0",
        (
            'policy.json:7: client[2].Retry.codes[0]: must be the name of a status code, like "UNAVAILABLE", not '
            '"UNAVAILBLE"; did you mean UNAVAILABLE?'
        ),
        "policy.json:8: client[2].Retry.backof: unknown field; did you mean backoff?",
        "policy.json:9: client[2].Retry.backoff.exponential.cap: must not be below initial, as 2 is below 5",
        (
            'policy.json:10: client[2].Retry.budget: must be none, "RetryBudget", "RatioBudget", "Unlimited" or a function as '
            '"module:name", not NaN'
        ),
        (
            "policy.json:13: client[3].methods[\"shop.v1.Orders\"]: the pattern 'shop.v1.Orders' names no method: write "
            "'/shop.v1.Orders/*' for all of a service, or '/shop.v1/Orders' for one method"
        ),
        (
            'policy.json:13: client[3].methods["shop.v1.Orders"][0].CircuitBreaker.key: must be "by_target", "by_service", '
            '"by_method" or a function as "module:name", not "by_metod"; did you mean by_method?'
        ),
        "policy.json:16: sever: unknown field; did you mean server?",
    ]


def test_load_raises_what_check_gives(tmp_path: Path) -> None:
    """A ValueError that has the faults, and whose text is their lines."""
    path = written(tmp_path, BAD)

    with pytest.raises(PolicyError) as raised:
        load(path)

    assert raised.value.faults == check(path)
    assert str(raised.value).splitlines() == [str(fault) for fault in check(path)]


# what the file is, its text, and the fault that it has; a dot stands for the file's name and line 1
ODD: list[tuple[str, Any, list[str]]] = [
    ("empty.json", " \n", ["empty.json:1: is empty; write a table with the fields client and server"]),
    ("nothing.json", "{}", ['nothing.json:1: is empty; write {"client": […]}, {"server": […]} or both']),
    ("list.json", "[]", ["list.json:1: must be a table with the fields client and server, not a list"]),
    ("cut.json", '{"client": [\n', ["cut.json:2: is not JSON: Expecting value (column 1)"]),
    ("policy.yaml", "client:", ["policy.yaml:1: is of no format that is known; its name must end in .json or .toml"]),
    (
        "twice.json",
        '{\n"client": [],\n"server": [], "client": [{"Deadline": "5s"}]}',
        ["twice.json:3: client: is there more than once; keep one of them"],
    ),
    (
        "inside.json",
        '{"client": [{"Deadline": {"seconds": 1,\n"seconds": 2}}]}',
        ["inside.json:2: client[0].Deadline.seconds: is there more than once; keep one of them"],
    ),
    ("cut.toml", "[[client]]\nDeadline = \n", ["cut.toml:2: is not TOML: Invalid value (column 12)"]),
    ("end.toml", "client = [", ["end.toml:1: is not TOML: Invalid value (at its end)"]),
    (
        "nan.toml",
        "[[client]]\n[client.CircuitBreaker]\nfailure_rate = nan\n",
        ["nan.toml:3: client[0].CircuitBreaker.failure_rate: must be a number like 0.5, not nan"],
    ),
    (
        "date.toml",
        "[[client]]\nDeadline = 1979-05-27 07:32:00\n",
        [
            'date.toml:2: client[0].Deadline: must be a duration like "250ms", "2s", "5m" or "1h", not 1979-05-27 07:32:00'
        ],
    ),
    (
        "huge.toml",
        f"[[client]]\nDeadline = 0x{'f' * 40}\n",
        [f'huge.toml:2: client[0].Deadline: must be a duration like "250ms", "2s", "5m" or "1h", not 0x{"f" * 18}…'],
    ),
    (
        "huge.json",
        f'{{"client": [{{"Deadline": {"9" * 40}}}]}}',
        [f'huge.json:1: client[0].Deadline: must be a duration like "250ms", "2s", "5m" or "1h", not {"9" * 30}…'],
    ),
]


@pytest.mark.parametrize(("name", "text", "told"), ODD, ids=[name for name, _, _ in ODD])
def test_what_is_no_policy_is_told_as_such(name: str, text: str, told: list[str], tmp_path: Path) -> None:
    """A file that is cut off, empty, of no known format, or says a thing twice."""
    assert faults(tmp_path, text, name) == told


def test_a_file_that_is_no_text_is_told_with_the_line(tmp_path: Path) -> None:
    """UTF-8 alone is read."""
    path = tmp_path / "policy.json"
    path.write_bytes(b'{\n"client": ["\xff"]}')

    assert [str(fault) for fault in check(path)] == [f"{path}:2: is no text in UTF-8"]


DEEP = [
    ("deep.json", '{"client": ' + "[" * 20_000 + "]" * 20_000 + "}"),
    ("deeper.json", '{"client": ' + "[" * 100 + "]" * 100 + "}"),
    ("deep.toml", "client = " + "[" * 100 + "]" * 100),
]


@pytest.mark.parametrize(("name", "text"), DEEP, ids=[name for name, _ in DEEP])
def test_a_file_without_end_is_refused(name: str, text: str, tmp_path: Path) -> None:
    """Nesting and size have bounds."""
    assert faults(tmp_path, text, name) == [
        f"{name}:1: is nested too deeply; a policy has at most 64 lists and tables in each other"
    ]
    assert faults(tmp_path, " " * (1 << 20) + "{}", name) == [
        f"{name}:1: is too long; a policy has at most 1048576 bytes"
    ]


def test_a_file_that_is_not_there_raises_as_open_does(tmp_path: Path) -> None:
    """It is no fault of a file."""
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "policy.json")


# an entry of the client section, and what is wrong with it, behind the path client[0]
ENTRIES: list[tuple[Any, str]] = [
    (7, ': must be the name of an interceptor, or a table of that one field, like {"Deadline": "5s"}, not 7'),
    (
        {},
        ': must be the name of an interceptor, or a table of that one field, like {"Deadline": "5s"}; it has 0 fields',
    ),
    ({"Retry": True}, ".Retry: must be a whole number like 4, not true"),
    ({"Retry": {"attempts": "many"}}, '.Retry.attempts: must be a whole number like 4, not "many"'),
    ({"Retry": {"attempts": 2.5}}, ".Retry.attempts: must be a whole number like 4, not 2.5"),
    (
        {"Retry": {"safe": "yes"}},
        '.Retry.safe: must be none, true or false, a function as "module:name" or "BY_CONVENTION", not "yes"',
    ),
    (
        {"Retry": {"clock": "x:y"}},
        ".Retry.clock: unknown field; write attempts, backoff, budget, buffer, codes, errors",
    ),
    ("Deadline", ': seconds is missing; it must be a duration like "250ms", "2s", "5m" or "1h"'),
    (
        {"Deadline": {"seconds": None}},
        '.Deadline.seconds: must be a duration like "250ms", "2s", "5m" or "1h", not null',
    ),
    ({"Deadline": "0s"}, ".Deadline: must be a number above 0 and below 1e+08, not 0"),
    ({"RateLimit": "100/parsec"}, ".RateLimit: '100/parsec' is no rate"),
    (
        {"CircuitBreaker": {"minimum": 500, "window": {"calls": 100}}},
        ".CircuitBreaker.minimum: must fit into the window",
    ),
    ({"CircuitBreaker": {"window": {"cals": 100}}}, ".CircuitBreaker.window.cals: unknown name; did you mean calls?"),
    (
        {"CircuitBreaker": {"window": {"calls": 1, "seconds": 1}}},
        ".CircuitBreaker.window: must have one field, its name",
    ),
    (
        {"Retry": {"errors": ["KeyErorr"]}},
        '.Retry.errors[0]: must be an exception like "KeyError" or "module:Name", not "KeyErorr"',
    ),
    ({"methods": []}, ".methods: must be a table from patterns to lists of interceptors, not a list"),
    ({"methods": {"*": {"Deadline": "5s"}}}, '.methods["*"]: must be a list of interceptors, like ["RequestId"'),
    (
        {"service_config": {"methodConfig": [{"name": [{}], "timeout": "1"}]}},
        ".service_config.methodConfig[0].timeout: is not a duration",
    ),
    ({"service_config": 7}, ".service_config: is not an object"),
    ("interpose:nothing", ': "interpose:nothing" cannot be imported: AttributeError: '),
    ("no_such_module:x", ': "no_such_module:x" cannot be imported: ModuleNotFoundError: '),
    ("tests.policy.interceptors:not_an_interceptor", ": an int is no function: an interceptor is a generator function"),
    ({"a:b": {}}, '["a:b"]: there is no interceptor "a:b"'),
    ({"Coalesce": 5}, ".Coalesce: takes its options as a table, not 5"),
    (
        {"service_config": {"methodConfig": [{"timeout": float("nan")}]}},
        ".service_config.methodConfig[0].timeout: NaN is no JSON",
    ),
    (
        {"ExceptionToStatus": {"mapping": {"print": "NOT_FOUND"}}},
        ".ExceptionToStatus.mapping.print: must be an exception",
    ),
    (
        {"ExceptionToStatus": {"mapping": {"builtins:print": "OK"}}},
        '.ExceptionToStatus.mapping["builtins:print"]: must be an exc',
    ),
    ("os:system", ": \"os:system\" may not be imported here; allow it: allow=['os:system'], or --allow os:system"),
]


ALLOWED = [
    "interpose:nothing",
    "no_such_module:x",
    "tests.policy.interceptors:not_an_interceptor",
    "builtins:print",
]


@pytest.mark.parametrize(("entry", "told"), ENTRIES, ids=[str(entry)[:40] for entry, _ in ENTRIES])
def test_a_row_that_is_wrong_says_what_to_write(entry: Any, told: str, tmp_path: Path) -> None:
    """Names, types, durations, options that do not go together, and what the constructor itself refuses."""
    (fault,) = faults(tmp_path, {"client": [entry]}, allow=ALLOWED)

    assert fault.partition(": client[0]")[2].startswith(told)


def test_what_is_for_clients_is_refused_on_a_server(tmp_path: Path) -> None:
    """Targets and service configs are of channels."""
    assert faults(tmp_path, '{"server": [{"targets": {}},\n{"service_config": {}}]}') == [
        "policy.json:1: server[0].targets: a server has no targets; write methods, or put it into the section client",
        "policy.json:2: server[1].service_config: a service config is for clients; put it into the section client",
    ]


def test_a_guard_on_the_wrong_side_is_a_fault(tmp_path: Path) -> None:
    """It would end every call there."""
    assert faults(tmp_path, {"client": ["Authenticate", {"Authorize": "anyone"}], "server": ["BearerToken"]}) == [
        "policy.json:3: client[0]: Authenticate is for the other side; put it into the section server",
        "policy.json:5: client[1].Authorize: Authorize is for the other side; put it into the section server",
        "policy.json:9: server[0]: BearerToken is for the other side; put it into the section client",
    ]


@pytest.mark.parametrize(
    "tokens", [{"tokens": {"s3cr3t-token": 7}}, {"s3cr3t-token": "ann"}, {"tokens": {"a b": "s3cr3t"}}]
)
def test_tokens_in_a_file_are_not_shown(tokens: Any, tmp_path: Path) -> None:
    """Neither by a name that is not known, nor by one whose value is wrong."""
    told = faults(tmp_path, {"server": [{"Authenticate": {"verifiers": [{"StaticTokens": tokens}]}}]})

    assert told
    assert "s3cr3t" not in "".join(told)


def test_a_token_that_stands_there_twice_is_not_shown(tmp_path: Path) -> None:
    """The line is."""
    row = (
        '{"server": [{"Authenticate": {"verifiers": [{"StaticTokens": {"tokens": {"s3cr3t": "a",\n"s3cr3t": "b"}}}]}}]}'
    )

    assert faults(tmp_path, row) == [
        "policy.json:2: server[0].Authenticate.verifiers[0].StaticTokens.tokens[…]: is there more than once; keep one of them"
    ]


def test_a_battery_without_its_extra_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault has the line for pip."""
    from interpose.policy import registry

    monkeypatch.setattr("sys.modules", {**__import__("sys").modules, "interpose.contrib.redis": None})
    registry.maker("RedisStore", "interpose.contrib.redis").__dict__.pop("call", None)
    registry.maker("RedisStore", "interpose.contrib.redis").__dict__.pop("options", None)

    (fault,) = faults(tmp_path, {"client": [{"RateLimit": {"limits": "1/s", "store": {"RedisStore": "redis://x"}}}]})

    assert "RateLimit.store.RedisStore: cannot be used: " in fault


@pytest.mark.parametrize("option", ["allow", "env"])
def test_lists_of_what_is_allowed_are_lists(option: str, tmp_path: Path) -> None:
    """A single text would be a list of its characters."""
    with pytest.raises(ValueError, match=f"load: {option} must be a list of names"):
        load(written(tmp_path, {"client": []}), **{option: "a:b"})
