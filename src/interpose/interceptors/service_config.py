"""gRPC's own service config, as interceptors: what the owner of a service wants retried, hedged and limited in time.

https://github.com/grpc/grpc/blob/master/doc/service_config.md and gRFC A6. The text is read into small frozen values,
and all that is wrong with it is reported at once, each fault with the path of its field, as gRPC's core writes it:

    [field:methodConfig[0].retryPolicy.maxAttempts error:must be at least 2]

The interceptors are made from those values in one place, `_interceptors`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Any, ClassVar

from grpc import StatusCode

from interpose._flow import MAX_RESENDS, Chain, Interceptor
from interpose._method import Method
from interpose.interceptors.deadline import Deadline
from interpose.interceptors.hedge import MAX_COPIES, Hedge, HedgeDetails
from interpose.interceptors.retry import Retry, RetryDetails
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import MOST_TOKENS, Budget, RetryBudget, Unlimited, is_budget
from interpose.mechanisms.json_fields import (
    At,
    Number,
    Wrong,
    decoded,
    number_as_written,
    positive_number,
    string,
    suggestion,
    told,
    whole_number,
)
from interpose.mechanisms.options import insist, is_function_or_none

LONGEST = 31_536_000  # seconds, a year: longer is a slip, and timers have an end

DEFAULT = ""  # the path that stands for every method, of the name {}


def from_service_config(
    config: str,
    *,
    budget: Budget | None = None,
    on_retry: Callable[[RetryDetails], object] | None = None,
    on_hedge: Callable[[HedgeDetails], object] | None = None,
) -> Chain:
    """Retry, hedge and limit each method of a channel as gRPC's service config says.

    What counts for a method is the entry with the most specific name: service and method, then service, then {}.
    `retryPolicy` becomes a `Retry`, `hedgingPolicy` a `Hedge`, both `safe`: the owner of the service wrote them.
    `timeout` becomes a `Deadline` in front. All of them share one budget, that of `retryThrottling`.
    `maxAttempts` counts as written, without the core's clamp at 5.

    config:             the JSON text. ValueError with all of its faults, if it has any.
    budget:             in the place of `retryThrottling`. Without either there is no limit, as in gRFC A6.
    on_retry, on_hedge: see `Retry` and `Hedge`: they run on the thread or in the loop of the RPC; what they raise is logged.

    Load balancing, health checks, sizes and `waitForReady` are the core's: give it `left_to_core(config)`.
    """
    insist(
        "from_service_config",
        (isinstance(config, str), f"config must be the JSON text, not {config!r:.100}; json.dumps() makes one"),
        (budget is None or is_budget(budget), f"budget must be None or like RetryBudget(), not {budget!r}"),
        (is_function_or_none(on_retry), f"on_retry must be a function of RetryDetails, not {on_retry!r}"),
        (is_function_or_none(on_hedge), f"on_hedge must be a function of HedgeDetails, not {on_hedge!r}"),
    )
    parsed, given_budget = parse(config), budget
    if budget is None:
        throttling = parsed.throttling
        budget = RetryBudget(throttling.max_tokens, throttling.token_ratio) if throttling else Unlimited()
    stacks: dict[str, tuple[Interceptor, ...]] = {}
    for entry in parsed.methods:
        stack = _interceptors(entry, budget, on_retry, on_hedge)
        stacks |= dict.fromkeys(entry.paths, stack)
    alone = given_budget is None and on_retry is None and on_hedge is None
    return PerMethod(stacks, config if alone else None)


Retry.from_service_config = staticmethod(from_service_config)


def left_to_core(config: str) -> str:
    """The config without what `from_service_config` does, for the channel option "grpc.service_config".

    Were it all there, the core would retry each attempt of ours; and it ends a `timeout` of a config more than a second
    early: grpc/grpc#34547.
    """
    parse(config)
    left = {name: value for name, value in json.loads(config).items() if value is not None}
    left.pop("retryThrottling", None)
    for entry in left.get("methodConfig", ()):
        for field in ("timeout", "retryPolicy", "hedgingPolicy"):
            entry.pop(field, None)
    return json.dumps(left)


def _interceptors(
    entry: MethodConfig,
    budget: Budget,
    on_retry: Callable[[RetryDetails], object] | None,
    on_hedge: Callable[[HedgeDetails], object] | None,
) -> tuple[Interceptor, ...]:
    """What an entry asks for; the first is outermost."""
    stack: list[Interceptor] = []
    if entry.timeout is not None:
        stack.append(Deadline(entry.timeout))
    policy = entry.policy
    if isinstance(policy, RetryPolicy):
        stack.append(
            Retry(
                policy.attempts,
                codes=policy.codes,
                backoff=exponential(policy.initial, cap=policy.cap, multiplier=policy.multiplier),
                budget=budget,
                safe=True,
                per_attempt=policy.per_attempt,
                on_retry=on_retry,
            )
        )
    if isinstance(policy, HedgingPolicy):
        stack.append(
            Hedge(
                policy.copies,
                delay=policy.delay,
                codes=policy.codes,
                budget=budget,
                safe=True,
                on_hedge=on_hedge,
            )
        )
    return tuple(stack)


class PerMethod(Chain):
    """The interceptors of a service config, chosen once per method. Made by `from_service_config`.

    config: its text; None if other options were given beside it.
    """

    __slots__ = ("_stacks", "config")

    closed: ClassVar = True

    def __init__(self, stacks: dict[str, tuple[Interceptor, ...]], config: str | None = None) -> None:
        every = (interceptor for stack in stacks.values() for interceptor in stack)
        super().__init__(tuple(dict.fromkeys(every)))
        self._stacks = stacks
        self.config = config

    def select(self, method: Method) -> tuple[Interceptor, ...]:
        path = "/" + method.full_name.removeprefix("/")
        service = path[: path.rfind("/") + 1]
        for name in (path, service, DEFAULT):
            if name in self._stacks:
                return self._stacks[name]
        return ()

    def __repr__(self) -> str:
        names = [path or "every other method" for path in self._stacks]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"from_service_config({', '.join(names[:3]) or 'nothing'}{more})"


# --- what a config says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retryPolicy`; times in seconds."""

    attempts: int
    initial: float
    cap: float
    multiplier: float
    codes: frozenset[StatusCode]
    per_attempt: float | None


@dataclass(frozen=True, slots=True)
class HedgingPolicy:
    """`hedgingPolicy`; the delay in seconds."""

    copies: int
    delay: float
    codes: frozenset[StatusCode]


@dataclass(frozen=True, slots=True)
class Throttling:
    """`retryThrottling`."""

    max_tokens: int
    token_ratio: float


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """An entry of `methodConfig`. paths: "/service/method", "/service/" for all of a service, or `DEFAULT`."""

    paths: tuple[str, ...]
    timeout: float | None
    policy: RetryPolicy | HedgingPolicy | None


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What of a service config is ours to do."""

    methods: tuple[MethodConfig, ...]
    throttling: Throttling | None


def parse(text: str) -> ServiceConfig:
    """Read a service config; ValueError with all of its faults, if it has any."""
    config, faults = judged(text)
    if faults:
        raise ValueError(f"errors validating service config: [{'; '.join(faults)}]")
    return config


def judged(text: str) -> tuple[ServiceConfig, list[str]]:
    """Read a service config, and all that is wrong with it, "field:PATH error:TEXT" each."""
    root = decoded(text, "the service config")
    return _service_config(root), root.faults


# Which fields there are, and where: grpc/service_config/service_config.proto, and the core's own perAttemptRecvTimeout.
CORES = {"loadBalancingPolicy", "loadBalancingConfig", "healthCheckConfig", "connectionScaling"}
ROOT = {"methodConfig", "retryThrottling", *CORES}
CORES_OF_ENTRY = {"waitForReady", "maxRequestMessageBytes", "maxResponseMessageBytes"}
ENTRY = {"name", "timeout", "retryPolicy", "hedgingPolicy", *CORES_OF_ENTRY}
BACKOFF = {"initialBackoff", "maxBackoff", "backoffMultiplier"}
RETRY = {"maxAttempts", *BACKOFF, "retryableStatusCodes", "perAttemptRecvTimeout"}
HEDGING = {"maxAttempts", "hedgingDelay", "nonFatalStatusCodes"}
THROTTLING = {"maxTokens", "tokenRatio"}
NAME = {"service", "method"}


def _service_config(at: At) -> ServiceConfig:
    if not at.has_only(ROOT):
        return ServiceConfig((), None)
    taken: dict[str, str] = {}
    entries = at.child("methodConfig")
    throttling = at.child("retryThrottling")
    return ServiceConfig(
        tuple(_method_config(entry, taken) for entry in entries.items()) if entries else (),
        _throttling(throttling) if throttling else None,
    )


def _method_config(at: At, taken: dict[str, str]) -> MethodConfig:
    if not at.has_only(ENTRY):
        return MethodConfig((), None, None)
    names = at.child("name")
    retry, hedging = at.child("retryPolicy"), at.child("hedgingPolicy")
    hedged = _hedging_policy(hedging) if hedging else None
    retried = _retry_policy(retry) if retry else None
    if hedged and retried:
        at.fault("has a retryPolicy and a hedgingPolicy: keep one of them")
    return MethodConfig(
        tuple(_path(name, taken) for name in names.items()) if names else (),
        at.optional("timeout", _some_seconds, None),
        retried or hedged,
    )


def _path(at: At, taken: dict[str, str]) -> str:
    """Which methods a name means. taken: the paths so far, and where each is."""
    if not at.has_only(NAME):
        return DEFAULT
    before = len(at.faults)
    service, method = at.optional("service", _service, ""), at.optional("method", string, "")
    if len(at.faults) > before:
        return DEFAULT
    if method and not service:
        at.fault('method name populated without service name: write {"service": "pay.v1.Cards", "method": "Charge"}')
        return DEFAULT
    path = f"/{service}/{method}" if service else DEFAULT
    if path in taken:
        what = f"multiple method configs for path {told(path)}" if path else "duplicate default method config"
        at.fault(f"{what}: the other one is {taken[path]}")
    taken.setdefault(path, at.path)
    return path


def _retry_policy(at: At) -> RetryPolicy:
    if not at.has_only(RETRY):
        return RetryPolicy(2, 1, 1, 1, frozenset(), None)
    initial = at.required("initialBackoff", _some_seconds, 0.0)
    cap = at.required("maxBackoff", _some_seconds, math.inf)
    if cap < initial:
        at.fault(f"must not be below initialBackoff ({initial:g}s)", "maxBackoff")
    codes = at.child("retryableStatusCodes")
    if codes is None:
        at.fault("field not present", "retryableStatusCodes")
    elif codes.value == []:
        codes.fault('must be non-empty: write the codes that are worth another attempt, like ["UNAVAILABLE"]')
    return RetryPolicy(
        attempts=at.required("maxAttempts", lambda value: _attempts(value, MAX_RESENDS), 2),
        initial=initial,
        cap=cap,
        multiplier=at.required("backoffMultiplier", positive_number, 1.0),
        codes=_codes(codes) if codes else frozenset(),
        per_attempt=at.optional("perAttemptRecvTimeout", _some_seconds, None),
    )


def _hedging_policy(at: At) -> HedgingPolicy:
    if not at.has_only(HEDGING):
        return HedgingPolicy(2, 0, frozenset())
    codes = at.child("nonFatalStatusCodes")
    return HedgingPolicy(
        copies=at.required("maxAttempts", lambda value: _attempts(value, MAX_COPIES), 2),
        delay=at.optional("hedgingDelay", _seconds, 0.0),
        codes=_codes(codes) if codes else frozenset(),
    )


def _throttling(at: At) -> Throttling:
    if not at.has_only(THROTTLING):
        return Throttling(1, 1)
    return Throttling(at.required("maxTokens", _tokens, 1), at.required("tokenRatio", _token_ratio, 1.0))


def _codes(at: At) -> frozenset[StatusCode]:
    codes = (item.read(_code, None) for item in at.items())
    return frozenset(code for code in codes if code is not None)


# --- one value ------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"(-?)([0-9]{1,12}(\.[0-9]{1,9})?)s")  # protobuf's JSON: up to nanoseconds
_CODES = {code.value[0]: code for code in StatusCode}


def _attempts(value: Any, most: int) -> int:
    attempts = whole_number(value, most)  # the core clamps at 5, and goes on
    if attempts < 2:
        raise Wrong("must be at least 2, the first attempt included; leave the policy out to send once")
    return attempts


def _tokens(value: Any) -> int:
    tokens = whole_number(value, MOST_TOKENS)
    if tokens <= 0:
        raise Wrong("must be greater than 0; leave retryThrottling out for no limit")
    return tokens


def _token_ratio(value: Any) -> float:
    text = number_as_written(value)
    if "e" in text.lower():
        raise Wrong(f"is {told(value)}: write it without an exponent, like 0.1")
    if Decimal(text) > MOST_TOKENS:
        raise Wrong(f"must be at most {MOST_TOKENS}")
    ratio = Decimal(text).quantize(Decimal("0.001"), ROUND_DOWN) if Decimal(text) > 0 else 0
    if ratio <= 0:
        raise Wrong("must be greater than 0; three decimals count")
    return float(ratio)


def _some_seconds(value: Any) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise Wrong("must be greater than 0")
    return seconds


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        raise Wrong(f'is not a string: write a duration like "0.1s", not {told(value)}')
    found = _DURATION.fullmatch(value)
    if found is None:
        raise Wrong(f'is not a duration: write seconds with an s, like "0.1s", not {told(value)}')
    seconds = float(found[2])
    if found[1]:
        raise Wrong(f"must not be negative, like {told(value)}")
    if seconds > LONGEST:
        raise Wrong(f"must be at most {LONGEST}s, which is a year")
    return seconds


def _code(value: Any) -> StatusCode:
    code = None
    if isinstance(value, Number):
        number = value.whole()
        code = None if number is None else _CODES.get(number)
    elif isinstance(value, str):
        code = StatusCode.__members__.get(value.upper())
    else:
        raise Wrong(f'is not a string: write the name of a status code, like "UNAVAILABLE", not {told(value)}')
    if code is StatusCode.OK:
        raise Wrong("must not be OK: it is no failure")
    if code is None:
        raise Wrong(f"failed to parse status code {told(value)}{suggestion(value, StatusCode.__members__)}")
    return code


def _service(value: Any) -> str:
    service = string(value)
    if service != service.strip("/"):
        raise Wrong(f'must be like "pay.v1.Cards", without a "/" at its ends, not {told(value)}')
    return service
