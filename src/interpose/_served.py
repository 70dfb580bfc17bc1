"""What a server serves, for the interceptors that have tables of its methods."""

from __future__ import annotations

from typing import NamedTuple

from interpose._method import Method


class Served(NamedTuple):
    """What is known of a server when it starts.

    methods: those that are registered. generic: it has generic handlers, which may serve any others as well.
    asyncio: is it a `grpc.aio` server?
    """

    methods: tuple[Method, ...]
    generic: bool = False
    asyncio: bool = False
