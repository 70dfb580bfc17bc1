"""AccessLog and what belongs to it as users write them: checked by mypy --strict and pyright, never run."""

import logging
import random
from typing import Any

import grpc

from interpose import Interceptor, intercept_channel
from interpose.contrib.structlog import Structlog
from interpose.interceptors import AccessLog, RequestId
from interpose.interceptors.access_log import JsonFormatter, Redactor, Sink
from interpose.interceptors.request_id import RequestIdFilter


class Lines:
    """A sink of one's own."""

    def isEnabledFor(self, level: int) -> bool:
        return level >= logging.INFO

    def write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        fields.clear()


def shout(message: str) -> str:
    return message.upper()


plain: Interceptor = AccessLog()
given: Interceptor = AccessLog(logging.getLogger("shop.access"), start=True, payloads=True)
full: Interceptor = AccessLog(
    payloads=Redactor("password", "card.number", max_bytes=1024, max_depth=4),
    metadata=["x-tenant", "user-agent"],
    sample={grpc.StatusCode.OK: 0.01, grpc.StatusCode.NOT_FOUND: 1},
    random=random.Random(7).random,
)
sink: Sink = Lines()
stack: list[Interceptor] = [AccessLog(sink), AccessLog(Lines(), payloads=shout), AccessLog(Structlog())]
channel: grpc.Channel = intercept_channel(grpc.insecure_channel("a:1"), RequestId(), *stack)

handler = logging.StreamHandler()
handler.setFormatter(JsonFormatter())
handler.addFilter(RequestIdFilter())
handler.addFilter(RequestIdFilter(default="none"))

AccessLog("shop.access")  # type: ignore[arg-type]
AccessLog(payloads="all")  # type: ignore[arg-type]
AccessLog(sample={"OK": 0.1})  # type: ignore[dict-item]
Redactor(["password"])  # type: ignore[arg-type]
