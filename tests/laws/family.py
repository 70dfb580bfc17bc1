"""A family of interceptors, good, odd and broken ones, described as data, so that a stack can be built twice.

A description is a tuple: the name of a behaviour, and its arguments. `build` makes the interceptor; what its flow
sees is kept in `log`. Three names hold other descriptions: "chain", "when" and "calls".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from hypothesis import strategies as st

from interpose import Call, Flow, Interceptor, Outcome, chain, errors, wait, when
from tests.laws.interpreter import Given, seen, wished

Spec = tuple[Any, ...]
Log = list[tuple[Any, ...]]

NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

BUGS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("a secret"),
    "RpcError": lambda: grpc.RpcError("bare"),
    "StopIteration": lambda: StopIteration("a value"),
    "StopAsyncIteration": lambda: StopAsyncIteration("a value"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
}
NONSENSE: tuple[Any, ...] = (None, 0, "call", Outcome.success("yielded"), object, [], Given("not waited for"))


def build(spec: Spec, log: Log) -> Interceptor:
    """The interceptor that a description means."""
    name, *args = spec
    if name == "chain":
        return chain(*[build(inner, log) for inner in args[0]])
    if name == "when":
        return when(lambda method: bool(args[0]), *[build(inner, log) for inner in args[1]])
    if name == "calls":
        return _calls(chain(*[build(inner, log) for inner in args[1]]), returns=args[0])
    return _BEHAVIOURS[name](spec, log, *args)


def flattened(specs: list[Spec]) -> list[Spec]:
    """The same stack without any nesting."""
    flat: list[Spec] = []
    for name, *args in specs:
        if name == "chain":
            flat += flattened(args[0])
        elif name == "when":
            flat += flattened(args[1]) if args[0] else []
        elif name == "calls":
            flat += flattened(args[1])
        else:
            flat.append((name, *args))
    return flat


# - the behaviours: each returns a generator function ------------------------------------------------------------------


def _calls(inner: Interceptor, *, returns: bool) -> Interceptor:
    """Calls a chain inside its flow, and passes on what that gave, or lets it stand."""

    def returning(call: Call) -> Flow:
        return (yield from inner(call))  # type: ignore[misc]  # the family has plain generators only

    def standing(call: Call) -> Flow:
        yield from inner(call)  # type: ignore[misc]

    return returning if returns else standing


@contextmanager
def _watched(spec: Spec, log: Log) -> Iterator[Callable[[Outcome], Outcome]]:
    """Keeps when a flow begins, what it is told, and that it ends."""

    def told(outcome: Outcome) -> Outcome:
        log.append(("told", spec, *seen(outcome)))
        return outcome

    log.append(("begins", spec))
    try:
        yield told
    finally:
        log.append(("ends", spec))


def _passes(spec: Spec, log: Log) -> Interceptor:
    def passes(call: Call) -> Flow:
        with _watched(spec, log) as told:
            log.append(("saw", spec, *wished(call)))
            told((yield call))

    return passes


def _adds(spec: Spec, log: Log, key: str) -> Interceptor:
    def adds(call: Call) -> Flow:
        with _watched(spec, log) as told:
            told((yield call.with_metadata((key, "added")).with_timeout(len(key))))

    return adds


def _says(spec: Spec, log: Log, key: str) -> Interceptor:
    """What request ids and real addresses do: asks for nothing that the shell has to do."""

    def says(call: Call) -> Flow:
        with _watched(spec, log) as told:
            told((yield call.with_metadata((key, "said")).with_request(f"{call.request}, {key}")))

    return says


def _retries(spec: Spec, log: Log, times: int) -> Interceptor:
    def retries(call: Call) -> Flow:
        with _watched(spec, log) as told:
            outcome = told((yield call))
            for attempt in range(times):
                if outcome.ok or not outcome.replayable:
                    break
                outcome = told((yield call.with_metadata(("x-attempt", str(attempt)))))
            return outcome

    return retries


def _insists(spec: Spec, log: Log, times: int) -> Interceptor:
    def insists(call: Call) -> Flow:
        with _watched(spec, log) as told:
            for _ in range(times):
                told((yield call))

    return insists


def _replaces(spec: Spec, log: Log, code: grpc.StatusCode | None) -> Interceptor:
    def replaces(call: Call) -> Flow:
        with _watched(spec, log) as told:
            told((yield call))
            return Outcome.success("replaced") if code is None else Outcome.failure(errors.of(code)("replaced"))

    return replaces


def _answers(spec: Spec, log: Log, code: grpc.StatusCode | None) -> Interceptor:
    def answers(call: Call) -> Flow:
        with _watched(spec, log):
            return Outcome.success("made here") if code is None else Outcome.failure(errors.of(code)("made here"))
            yield call

    return answers


def _refuses(spec: Spec, log: Log, after: bool) -> Interceptor:
    def refuses(call: Call) -> Flow:
        with _watched(spec, log) as told:
            if after:
                told((yield call))
            raise errors.PermissionDenied("not you", local=True)
            yield call

    return refuses


def _breaks(spec: Spec, log: Log, bug: str, after: bool) -> Interceptor:
    def breaks(call: Call) -> Flow:
        with _watched(spec, log) as told:
            if after:
                told((yield call))
            error = BUGS[bug]()
            raise error
            yield call

    return breaks


def _waits(spec: Spec, log: Log, bug: str | None, after: bool) -> Interceptor:
    def waits(call: Call) -> Flow:
        given = Given("a token", None if bug is None else BUGS[bug]())
        with _watched(spec, log) as told:
            if after:
                told((yield call))
            log.append(("got", spec, (yield from wait(given))))
            if not after:
                told((yield call))

    return waits


def _recovers(spec: Spec, log: Log) -> Interceptor:
    def recovers(call: Call) -> Flow:
        with _watched(spec, log) as told:
            try:
                yield from wait(Given(error=KeyError("no such token")))
            except KeyError:
                log.append(("recovered", spec))
            told((yield call))

    return recovers


def _mumbles(spec: Spec, log: Log, word: int, after: bool) -> Interceptor:
    def mumbles(call: Call) -> Flow:
        with _watched(spec, log) as told:
            if after:
                told((yield call))
            told((yield NONSENSE[word]))

    return mumbles


def _returns(spec: Spec, log: Log, word: int, after: bool) -> Interceptor:
    def returns(call: Call) -> Flow:
        with _watched(spec, log) as told:
            if after:
                told((yield call))
            return NONSENSE[word]
            yield call

    return returns


def _hedges(spec: Spec, log: Log, copies: int) -> Interceptor:
    def hedges(call: Call) -> Flow:
        with _watched(spec, log) as told:
            told((yield call.hedged(copies=copies, delay=0)))

    return hedges


_BEHAVIOURS: dict[str, Callable[..., Interceptor]] = {
    "passes": _passes,
    "adds": _adds,
    "says": _says,
    "retries": _retries,
    "insists": _insists,
    "replaces": _replaces,
    "answers": _answers,
    "refuses": _refuses,
    "breaks": _breaks,
    "waits": _waits,
    "recovers": _recovers,
    "mumbles": _mumbles,
    "returns": _returns,
    "hedges": _hedges,
}

# - strategies ---------------------------------------------------------------------------------------------------------

_codes = st.sampled_from([None, NOT_FOUND, UNAVAILABLE])
_bugs = st.sampled_from(sorted(BUGS))
_words = st.sampled_from(range(len(NONSENSE)))

BREAKING_AFTER: st.SearchStrategy[Spec] = st.one_of(  # bugs of those who had been told
    st.tuples(st.just("breaks"), _bugs, st.just(True)),
    st.tuples(st.just("waits"), _bugs.filter(lambda bug: bug != "StopIteration"), st.just(True)),
    st.tuples(st.just("mumbles"), _words, st.just(True)),
    st.tuples(st.just("returns"), _words.filter(lambda word: word not in (0, 3)), st.just(True)),
)
HARMLESS: st.SearchStrategy[Spec] = st.one_of(
    st.just(("passes",)),
    st.tuples(st.just("adds"), st.sampled_from(["x-a", "x-bb"])),
    st.tuples(st.just("says"), st.sampled_from(["x-a", "x-bb"])),
    st.just(("recovers",)),
    st.tuples(st.just("waits"), st.none(), st.booleans()),
)
LEAVES: st.SearchStrategy[Spec] = st.one_of(
    HARMLESS,
    st.tuples(st.just("retries"), st.integers(1, 3)),
    st.tuples(st.just("insists"), st.integers(0, 3)),
    st.tuples(st.just("replaces"), _codes),
    st.tuples(st.just("answers"), _codes),
    st.tuples(st.just("refuses"), st.booleans()),
    st.tuples(st.just("breaks"), _bugs, st.booleans()),
    st.tuples(st.just("waits"), _bugs.filter(lambda bug: bug != "StopIteration"), st.booleans()),
    st.tuples(st.just("mumbles"), _words, st.booleans()),
    st.tuples(st.just("returns"), _words, st.booleans()),
    st.tuples(st.just("hedges"), st.integers(2, 3)),
)


def nested(kinds: tuple[str, ...], leaves: st.SearchStrategy[Spec] = LEAVES) -> st.SearchStrategy[list[Spec]]:
    """Stacks with these kinds of nesting."""

    def deeper(specs: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
        inner = st.lists(specs, max_size=3)
        made = {
            "chain": st.tuples(st.just("chain"), inner),
            "when": st.tuples(st.just("when"), st.booleans(), inner),
            "calls": st.tuples(st.just("calls"), st.booleans(), inner),
        }
        return st.one_of([made[kind] for kind in kinds])

    return st.lists(st.recursive(leaves, deeper, max_leaves=8), max_size=4)
