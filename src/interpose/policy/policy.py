"""A policy: the stacks that a file says, and how they follow the file."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from interpose._flow import Chain
from interpose._method import Side
from interpose.interceptors.retry import Retry
from interpose.interceptors.service_config import PerMethod, left_to_core
from interpose.mechanisms.options import insist, is_seconds
from interpose.policy import json_text, toml_text
from interpose.policy.building import Builder, Key, Stack
from interpose.policy.document import At, Fault, Faults, Node, PolicyError, Unreadable, plain, quoted
from interpose.policy.environment import filled
from interpose.policy.forms import Imports
from interpose.policy.live import Live
from interpose.policy.watching import follow, watched

MOST_BYTES = 1 << 20  # of a file; what is larger was not written by hand
DEEPEST = 64  # lists and tables in each other
TOO_DEEP = f"is nested too deeply; a policy has at most {DEEPEST} lists and tables in each other"
SCHEMA = "$schema"  # where editors find what may be in the file

_READERS: dict[str, Callable[[str], Node]] = {".json": json_text.read, ".toml": toml_text.read}


class Policy:
    """What a policy file says, as stacks for channels and servers. Made by `load`.

    client: the stack for channels. server: the stack for servers. Each is one interceptor, which `intercept_channel`,
        `intercept_server`, `server_interceptor`, `describe` and `serve(stack=…)` take. Without the section it does nothing.
    path: the file.
    """

    def __init__(self, path: str | Path, allow: Collection[str], env: Collection[str]) -> None:
        self.path = Path(path)
        self.client = Live(Side.CLIENT)
        self.server = Live(Side.SERVER)
        self._allow = frozenset(allow)
        self._env = frozenset(env)
        self._turn = threading.Lock()  # one reading after the other
        self._reading = _Reading(self.path, self._allow, self._env, {})
        self._begin(self._reading)

    def reload(self) -> bool:
        """Read the file anew, and let calls that begin from now on go by it; was anything in it different?

        No call is lost: those in flight finish on the stack that they began with. Interceptors whose row says the same at
        the same place are kept, with all they know: breakers stay open, limits keep their counts. The others begin anew.

        PolicyError if anything is wrong with the file, also if a row fits no method of the server that runs; OSError if it
        cannot be read. Then nothing changes.
        """
        with self._turn:
            reading = _Reading(self.path, self._allow, self._env, self._reading.made)
            objections = [
                *self.client.objections(reading.client),
                *self.server.objections(reading.server),
            ]
            if objections:
                raise PolicyError(_located(str(self.path), text) for text in objections)
            changed = reading.said != self._reading.said
            if changed:
                self._reading = reading
                self._begin(reading)
            return changed

    def watch(self, every: float = 5.0) -> AbstractContextManager[None]:
        """Reload while the block runs, whenever the file has been written or replaced, as a ConfigMap is.

            with policy.watch():
                serve_until_the_end()

        every: seconds between two looks, above 0 and up to 3600; 5 by default, which costs nothing that can be measured. The
        log "interpose" says that a file is in force (INFO), or why it is not used (ERROR). The looks are made on a thread of
        their own. ValueError for another number.
        """
        insist("watch", (is_seconds(every, 3600.1), f"every must be above 0 and up to 3600 seconds, not {every!r}"))
        return watched(self.path, every, lambda: follow(self))

    def _begin(self, reading: _Reading) -> None:
        self.client.replace(reading.client)
        self.server.replace(reading.server)

    @property
    def channel_options(self) -> list[tuple[str, Any]]:
        """Options for the native channel: gRPC's own retries off, and what of a service config is left for gRPC to do.

            grpc.insecure_channel(target, policy.channel_options)

        They are fixed when a channel is made; a reload does not change them.
        """
        configs = [("grpc.service_config", left_to_core(config)) for config in _configs(self.client)]
        return Retry.channel_options(configs[:1])  # gRPC reads one

    def __repr__(self) -> str:
        return f"<policy {str(self.path)!r}>"


def load(path: str | Path, *, allow: Collection[str] = (), env: Collection[str] = ()) -> Policy:
    """The stacks that a file says: which interceptors, with which options, for which methods.

        policy = interpose.policy.load("policy.json")
        channel = intercept_channel(grpc.insecure_channel(target), policy.client)

    path:  a .json or .toml file. What may be in it: docs/policy.md.
    allow: the names "module:name" that the file may import. Without them a file is data, and runs nothing.
    env:   the variables of the environment that the file may read, as `${NAME}` or `${NAME:-default}`.

    PolicyError, a ValueError, that lists every fault with its line. OSError if the file cannot be read.
    """
    insist(
        "load",
        (_are_names(allow), f'allow must be a list of names like ["shop.policy:on_retry"], not {allow!r}'),
        (_are_names(env), f'env must be a list of names like ["REDIS_URL"], not {env!r}'),
    )
    return Policy(path, allow, env)


def check(path: str | Path, *, allow: Collection[str] = (), env: Collection[str] = ()) -> list[Fault]:
    """All that is wrong with a policy file, in the order of its lines; empty if `load` would take it.

    path, allow, env: as for `load`. OSError if the file cannot be read.
    """
    try:
        load(path, allow=allow, env=env)
    except PolicyError as error:
        return error.faults
    return []


def _located(file: str, text: str) -> Fault:
    """An objection as a fault; that of a row begins with the place of the row."""
    found = re.match(rf"{re.escape(file)}:(\d+): (.+?): ", text)
    if found is None:
        return Fault(file, 1, "", text)
    return Fault(file, int(found[1]), found[2], text[found.end() :])


def _configs(chain: Chain) -> Iterator[str]:
    """The service configs that are in a stack."""
    for interceptor in chain.interceptors:
        if isinstance(interceptor, PerMethod) and interceptor.config is not None:
            yield interceptor.config
        elif isinstance(interceptor, Chain):
            yield from _configs(interceptor)


def _are_names(names: object) -> bool:
    return isinstance(names, Iterable) and not isinstance(names, str) and all(isinstance(name, str) for name in names)


class _Reading:
    """One reading of a file. PolicyError with all of its faults, if it has any."""

    def __init__(self, path: Path, allow: Collection[str], env: Collection[str], kept: dict[Key, Any]) -> None:
        faults = Faults(str(path))
        root = _read(path, faults)
        if At(root, "", faults).depth() > DEEPEST:
            faults.add(1, "", TOO_DEEP)
        if faults.found:
            raise PolicyError(faults.found)
        at = At(filled(At(root, "", faults), env), "", faults)
        self.said = json.dumps(plain(at.node))
        self.made: dict[Key, Any] = {}
        self._imports = Imports(allow)
        self._kept = kept
        sections = _sections(at)
        self.client = self._stack(Side.CLIENT, sections.get("client"))
        self.server = self._stack(Side.SERVER, sections.get("server"))
        if faults.found:
            raise PolicyError(faults.found)

    def _stack(self, side: Side, at: At | None) -> Stack:
        if at is None:
            return ()
        builder = Builder(side, self._imports, self._kept)
        stack = builder.stack(at, (side.value,))
        self.made |= builder.made
        return stack


def _sections(at: At) -> dict[str, At]:
    """The sections of a file, by their names."""
    if not isinstance(at.value, dict):
        at.fault(f"must be a table with the fields client and server, not {quoted(at.value)}")
        return {}
    _tell_what_is_there_twice(at)
    found = at.only(("client", "server", SCHEMA))
    found.pop(SCHEMA, None)
    if not at.value:
        at.fault('is empty; write {"client": […]}, {"server": […]} or both')
    return found


def _tell_what_is_there_twice(at: At) -> None:
    """A fault for each name that an object has more than once."""
    for name, line in at.node.twice:
        at.faults.add(line, at.fields()[name].path, "is there more than once; keep one of them")
    for part in at.parts().values():
        _tell_what_is_there_twice(part)


def _read(path: Path, faults: Faults) -> Node:
    """The value of the file; no more than a table and its faults if it has none."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        faults.add(1, "", f"is of no format that is known; its name must end in {' or '.join(_READERS)}")
        return Node({}, 1)
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        faults.add(1, "", f"is too long; a policy has at most {MOST_BYTES} bytes")
        return Node({}, 1)
    try:
        text = content.decode("utf-8-sig")
        if text.strip():
            return reader(text.replace("\r\n", "\n"))
        faults.add(1, "", "is empty; write a table with the fields client and server")
    except UnicodeDecodeError as error:
        faults.add(content.count(b"\n", 0, error.start) + 1, "", "is no text in UTF-8")
    except Unreadable as error:
        faults.add(error.line, "", str(error))
    except RecursionError:
        faults.add(1, "", TOO_DEEP)
    return Node({}, 1)
