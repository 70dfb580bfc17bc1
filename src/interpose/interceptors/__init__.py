"""The batteries: interceptors that are ready to use, one class each, on both stacks and both sides."""

from interpose.interceptors.access_log import AccessLog
from interpose.interceptors.exception_to_status import ExceptionToStatus
from interpose.interceptors.request_id import RequestId
from interpose.interceptors.retry import Retry, RetryDetails

__all__ = ["AccessLog", "ExceptionToStatus", "RequestId", "Retry", "RetryDetails"]
