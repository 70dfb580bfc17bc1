"""How many examples a law is tried on: the profiles of hypothesis, which `--hypothesis-profile` chooses from."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

# The number of examples for a law that asks for none of its own: of `make quick`, `make test`, `make test-all`, and by
# hand. 100 is what hypothesis itself takes.
PROFILES = {"quick": 10, "short": 25, "default": 100, "thorough": 1000}


def pytest_configure() -> None:
    for name, count in PROFILES.items():
        settings.register_profile(name, max_examples=count, deadline=None)


def pytest_collection_finish() -> None:
    # hypothesis loads its module for this when it is first needed, and pytest parses that module. In the middle of the
    # suite other work may go on meanwhile, which Python 3.11 takes for a broken parser: python/cpython#106905.
    st.from_regex("").validate()


def examples(usual: int) -> int:
    """For a law that wants another number: `usual` as a rule, and as much fewer or more in the other profiles."""
    return max(1, usual * settings.default.max_examples // PROFILES["default"])
