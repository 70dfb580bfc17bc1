"""The batteries: interceptors that are ready to use, one class each, on both stacks and both sides."""

import inspect

from interpose._executed import not_executed
from interpose._identity import Credentials, Identity, Name
from interpose.interceptors.access_log import AccessLog, JsonFormatter, JsonLines, Redactor
from interpose.interceptors.authenticate import Authenticate, AuthenticateState, UnauthenticatedDetails
from interpose.interceptors.authorize import Authorize, AuthorizeState, DeniedDetails, anyone, require
from interpose.interceptors.bearer_token import BearerToken, BearerTokenState, RefreshDetails, Token
from interpose.interceptors.cache import Cache, CacheState
from interpose.interceptors.circuit_breaker import (
    FAILURES,
    CircuitBreaker,
    CircuitOpen,
    CircuitState,
    TransitionDetails,
)
from interpose.interceptors.coalesce import Coalesce, CoalesceState
from interpose.interceptors.concurrency_limit import ConcurrencyLimit, ConcurrencyState, ShedDetails
from interpose.interceptors.deadline import Deadline
from interpose.interceptors.exception_to_status import ExceptionToStatus
from interpose.interceptors.fallback import Fallback, FallbackDetails
from interpose.interceptors.fault_injection import FaultInjection, InjectedFault
from interpose.interceptors.guarding import HEALTH_AND_REFLECTION
from interpose.interceptors.hedge import Hedge, HedgeDetails, HedgeState
from interpose.interceptors.keys import by_identity, by_metadata, by_method, by_peer, by_service, by_target
from interpose.interceptors.mutual_tls import MutualTls
from interpose.interceptors.propagate_context import PropagateContext
from interpose.interceptors.rate_limit import (
    Limit,
    LocalStore,
    Rate,
    RateLimit,
    RateLimited,
    RateLimitState,
    RefusalDetails,
)
from interpose.interceptors.real_ip import RealIp
from interpose.interceptors.request_id import RequestId, RequestIdFilter
from interpose.interceptors.retry import BY_CONVENTION, Retry, RetryDetails, RetryState
from interpose.interceptors.rpcz import Rpcz, RpczState
from interpose.interceptors.service_config import from_service_config, left_to_core
from interpose.interceptors.static_tokens import StaticTokens
from interpose.mechanisms.backoff import decorrelated, exponential, full_jitter
from interpose.mechanisms.breaker import Mode
from interpose.mechanisms.budget import RatioBudget, RetryBudget, Unlimited
from interpose.mechanisms.concurrency import Aimd, Fixed, Gradient, Vegas
from interpose.mechanisms.quantile import quantile
from interpose.mechanisms.shown import noted, shown
from interpose.mechanisms.window import calls, seconds

__all__ = [
    "BY_CONVENTION",
    "FAILURES",
    "HEALTH_AND_REFLECTION",
    "AccessLog",
    "Aimd",
    "Authenticate",
    "AuthenticateState",
    "Authorize",
    "AuthorizeState",
    "BearerToken",
    "BearerTokenState",
    "Cache",
    "CacheState",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "Coalesce",
    "CoalesceState",
    "ConcurrencyLimit",
    "ConcurrencyState",
    "Credentials",
    "Deadline",
    "DeniedDetails",
    "ExceptionToStatus",
    "Fallback",
    "FallbackDetails",
    "FaultInjection",
    "Fixed",
    "Gradient",
    "Hedge",
    "HedgeDetails",
    "HedgeState",
    "Identity",
    "InjectedFault",
    "JsonFormatter",
    "JsonLines",
    "Limit",
    "LocalStore",
    "Mode",
    "MutualTls",
    "Name",
    "PropagateContext",
    "Rate",
    "RateLimit",
    "RateLimitState",
    "RateLimited",
    "RatioBudget",
    "RealIp",
    "Redactor",
    "RefreshDetails",
    "RefusalDetails",
    "RequestId",
    "RequestIdFilter",
    "Retry",
    "RetryBudget",
    "RetryDetails",
    "RetryState",
    "Rpcz",
    "RpczState",
    "ShedDetails",
    "StaticTokens",
    "Token",
    "TransitionDetails",
    "UnauthenticatedDetails",
    "Unlimited",
    "Vegas",
    "anyone",
    "by_identity",
    "by_metadata",
    "by_method",
    "by_peer",
    "by_service",
    "by_target",
    "calls",
    "decorrelated",
    "exponential",
    "from_service_config",
    "full_jitter",
    "left_to_core",
    "not_executed",
    "quantile",
    "require",
    "seconds",
]

for _name in __all__:
    _value = globals()[_name]
    if isinstance(_value, type) and inspect.isgeneratorfunction(vars(_value).get("__call__")):  # a battery
        shown(_value)

for _value in (LocalStore, MutualTls, RatioBudget, Redactor, RetryBudget):  # options of batteries that have options
    noted(_value)
