"""The request stream of one attempt: what broke it, and whether it can be sent again."""

from __future__ import annotations

from abc import ABC, abstractmethod

from interpose import errors


class Upload(ABC):
    """The request stream of one attempt: iterate it once."""

    __slots__ = ("error", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.error: errors.StatusError | None = (
            None  # what broke it; grpc itself only says, or shows, that something did
        )

    def broken_by(self, error: BaseException) -> errors.StatusError:
        """What the attempt fails with, since this was raised while its messages were made."""
        if not isinstance(error, errors.StatusError):
            cause, error = error, errors.Unknown("Exception iterating requests!", local=True)  # sync grpcio's words
            error.__cause__ = cause
        self.error = error
        return error

    @abstractmethod
    def close(self) -> bool:
        """The attempt has ended. Could its requests be sent again?"""


class Once(Upload):
    """One whose messages are not kept: they come straight from the application."""

    __slots__ = ("_begun", "_over")

    def __init__(self) -> None:
        super().__init__()
        self._over = False
        self._begun = False

    def _begin(self) -> bool:
        """Take messages from the application; False for one that comes too late: they belong to the next attempt."""
        self._begun = True  # before the look: `close` does the two in the other order, and one of both sees the other
        return not self._over

    def close(self) -> bool:
        self._over = True
        return not self._begun  # once begun it may hold a message that it has not sent
