"""A policy file whose section `server` is around all that is served, read anew at SIGHUP."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from interpose.serving.options import CannotServe, Options
from interpose.serving.signals import renewing

if TYPE_CHECKING:
    from interpose.policy import Policy


def policy_of(options: Options) -> Policy | None:
    """The policy of a server, if it has one. CannotServe, with the first of its faults, if it cannot be used."""
    if options.policy is None:
        return None
    from interpose.policy import PolicyError, load  # a server without one starts sooner

    try:
        return load(options.policy, allow=options.policy_allow, env=options.policy_env)
    except OSError as error:
        raise CannotServe(f"the policy cannot be read: {error}") from None
    except PolicyError as error:
        first, *others = error.faults
        more = f" (and {len(others)} more: `interpose check {options.policy}` shows them)" if others else ""
        raise CannotServe(f"{first}{more}") from None


@contextmanager
def following(policy: Policy | None) -> Generator[None]:
    """Read the policy anew at each SIGHUP; one with faults is not used, and the log says why."""
    if policy is None:
        yield
        return

    from interpose.policy.watching import follow

    def tell() -> None:  # on a thread: a signal handler must not read files, nor take a lock
        threading.Thread(target=follow, args=(policy,), name="interpose-policy", daemon=True).start()

    with renewing(tell):
        yield
