"""An exception per status code, for handlers to raise; `ExceptionToStatusInterceptor` makes the status of it."""

from __future__ import annotations

from grpc import StatusCode


class GrpcException(Exception):
    """What all of them are. Raise one of the classes below, which know their code.

    details:     what the client gets; None: the class's own.
    status_code: for a code that has no class here; None: the class's own.

    ValueError for OK, which is no failure.
    """

    status_code: StatusCode = StatusCode.UNKNOWN
    details: str = "Unknown exception occurred"

    def __init__(self, details: str | None = None, status_code: StatusCode | None = None) -> None:
        if status_code is StatusCode.OK:
            raise ValueError("The status code for an exception cannot be OK")
        # What is not given stays on the class.
        if status_code is not None:
            self.status_code = status_code
        if details is not None:
            self.details = details

    def __repr__(self) -> str:
        return f"{type(self).__name__}(status_code={self.status_string}, details={self.details!r})"

    @property
    def status_string(self) -> str:
        """The name of the code: "NOT_FOUND"."""
        return self.status_code.name


class Aborted(GrpcException):
    """Something else was quicker: a transaction was aborted, a sequence check failed."""

    status_code = StatusCode.ABORTED
    details = "The operation was aborted"


class AlreadyExists(GrpcException):
    """What is to be created is there already."""

    status_code = StatusCode.ALREADY_EXISTS
    details = "The entity attempted to be created already exists"


class Cancelled(GrpcException):
    """The answer is no longer wanted; mostly the caller said so."""

    status_code = StatusCode.CANCELLED
    details = "The operation was cancelled"


class DataLoss(GrpcException):
    """Data is lost or broken for good."""

    status_code = StatusCode.DATA_LOSS
    details = "There was unrecoverable data loss or corruption"


class DeadlineExceeded(GrpcException):
    """The time was up first; the operation may have succeeded all the same."""

    status_code = StatusCode.DEADLINE_EXCEEDED
    details = "Deadline expired before operation could complete"


class FailedPrecondition(GrpcException):
    """The system is in a state in which this cannot be done, and trying again changes nothing."""

    status_code = StatusCode.FAILED_PRECONDITION
    details = "The operation was rejected because the system is not in a state required for execution"


class InvalidArgument(GrpcException):
    """The request makes no sense, whatever the state of the system."""

    status_code = StatusCode.INVALID_ARGUMENT
    details = "The client specified an invalid argument"


class Internal(GrpcException):
    """Something that must hold does not."""

    status_code = StatusCode.INTERNAL
    details = "Internal error"


class OutOfRange(GrpcException):
    """Past the end: of a file, of a list of pages."""

    status_code = StatusCode.OUT_OF_RANGE
    details = "The operation was attempted past the valid range"


class NotFound(GrpcException):
    """What was asked for is not there."""

    status_code = StatusCode.NOT_FOUND
    details = "The requested entity was not found"


class PermissionDenied(GrpcException):
    """The caller is known, and may not do this."""

    status_code = StatusCode.PERMISSION_DENIED
    details = "The caller does not have permission to execute the specified operation"


class ResourceExhausted(GrpcException):
    """A quota is used up, or a disk is full."""

    status_code = StatusCode.RESOURCE_EXHAUSTED
    details = "A resource has been exhausted"


class Unauthenticated(GrpcException):
    """The caller gave no identity, or cannot prove it."""

    status_code = StatusCode.UNAUTHENTICATED
    details = "The request does not have valid authentication credentials for the operation"


class Unavailable(GrpcException):
    """Not now; trying again later may help."""

    status_code = StatusCode.UNAVAILABLE
    details = "The service is currently unavailable"


class Unimplemented(GrpcException):
    """This service does not do that."""

    status_code = StatusCode.UNIMPLEMENTED
    details = "The operation is not implemented or not supported/enabled in this service"


class Unknown(GrpcException):
    """Something that says no more about itself."""
