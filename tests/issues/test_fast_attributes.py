"""intercept_server looked for handlers in `__dict__` of grpc's server, and each attribute of it was dearer at every RPC."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from interpose import intercept_server


def asked_for_its_dict(instance: Any) -> bool:
    """Did anybody ask for its `__dict__`? Until then Python keeps no dict for it, but the values alone."""
    names = {"server", "generic_handlers"}
    return any(isinstance(held, dict) and names <= held.keys() for held in gc.get_referents(instance))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="from Python 3.13 on such a dict shares the values")
def test_intercept_server_asks_no_object_of_grpcs_for_its_dict() -> None:
    """The state of a sync server, which grpc reads many times for each RPC, is left as it was."""
    with ThreadPoolExecutor(1) as pool:
        server: Any = grpc.server(pool)
        other: Any = grpc.server(pool)
        intercept_server(server)

        assert vars(other._state) and asked_for_its_dict(other._state)
        assert not asked_for_its_dict(server._state)
