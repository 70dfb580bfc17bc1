"""One native call of an RPC on the sync side: how it is sent and read, and how it ended, by what grpc says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from interpose import errors
from interpose._clock import SYSTEM
from interpose._grpcio.bare import as_call
from interpose._grpcio.sync_calls import failed, known, single_threaded
from interpose._messages import request_of, show_initial_metadata
from interpose._outcome import OK, Outcome
from interpose._shell import attempt as shell
from interpose._shell import owner
from interpose._shell.codec import Undecodable
from interpose._shell.native import EOF

METADATA_POLL = 0.001  # seconds between two looks for initial metadata that is still on its way


class Owner(owner.Owner):
    """An exchange, as its attempts see it."""

    __slots__ = ()

    begin: Callable[[Any], Any]  # a native multi-callable → the function of it that starts this kind of RPC

    @abstractmethod
    def hold(self, attempt: Any) -> None:
        """Stay alive, flows and all, until it ends: grpc's threads hold other calls, but none a single-threaded one."""


class Attempt(shell.Attempt):
    """One native call of an exchange."""

    __slots__ = ()

    exchange: Owner

    def _begin(self, timeout: float | None) -> Any:
        call, exchange = self.call, self.exchange
        requests, native = exchange.requests, exchange.route.native
        if requests is None:
            request, begin = request_of(call), exchange.begin(native)
        else:
            self._upload = requests.upload(call)
            request, begin = iter(self._upload), partial(requests.run, exchange.begin(native))
        return as_call(
            begin(
                request,
                timeout=timeout,
                metadata=call._metadata,
                credentials=call._credentials,
                wait_for_ready=call._wait_for_ready,
                compression=call._compression,
            )
        )

    def _refusal(self, error: BaseException) -> BaseException:
        return known(error, local=True)

    def _follow(self) -> Outcome | None:
        exchange = self.exchange
        if not self.native.add_callback(self._when_native_is_over):
            self._native_over = True  # already; a reader that holds its last message reports it, else we do
            if not self._reading and self.claim():
                exchange.attempt = None  # a cancel has to find what comes next
                return self.outcome()
        if single_threaded(self.native):
            exchange.hold(self)
        return None

    def _has_begun(self) -> bool:
        # Not by asking the call for its metadata: that would wait.
        return getattr(getattr(self.native, "_state", None), "initial_metadata", None) is not None

    def _when_native_is_over(self) -> None:
        if getattr(getattr(self.native, "_state", None), "initial_metadata", ()) is None:
            # grpc may report the end before what came in front of it, both on this thread: it must not wait for itself.
            SYSTEM.call_later(METADATA_POLL, self._when_native_is_over)
            return
        # A reader that holds a message has to count it first: the outcome says how many were delivered.
        self._native_over = True
        if not self._reading:
            self.exchange.over(self)

    def read(self, deliver: Callable[[Any], object] | None = None) -> Any:
        """The next response message, or EOF; its end is reported to the exchange. deliver: called first, with the message."""
        self._reading = True
        try:
            message = next(self.native)
            if type(message) is Undecodable:
                message.fail("response")
            if not self.received and self.call._asks.on_initial_metadata:
                show_initial_metadata(self.call, self.native.initial_metadata())
            if self._on_response is not None:
                message = self._on_response(message)
            self.received += 1
            if deliver is not None:
                deliver(message)
        except errors.StatusError as error:  # of a hook of ours: the native call would go on
            self.exchange.over(self, error)
            self.native.cancel()
            return EOF
        except (StopIteration, grpc.RpcError) as end:
            end.__traceback__ = None  # the native call may be the error itself: it would keep us through this frame
            self.exchange.over(self)
            return EOF
        except Exception as error:  # the bug of a native interceptor below
            self.exchange.over(self, error)
            return EOF
        finally:
            self._reading = False
            if self._native_over:
                self.exchange.over(self)
        return message

    def _result(self, response: Any, streaming: bool) -> tuple[BaseException | None, Any]:
        if self.native.code() is not OK:
            return failed(self.native), None
        return None, None if streaming else self.native.result()

    def _initial_metadata(self) -> Any:
        return self.native.initial_metadata()

    def _ended(self) -> Any:
        return self.native
