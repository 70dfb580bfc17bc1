"""Torn uploads, the short form: none is taken for a finished one, and every finished one is committed."""

import pytest

from tests.torture.torn import PLACES, measure, plans

SHORT = 200  # uploads per sort of server and shape of handler


@pytest.mark.parametrize(("sort", "shape"), PLACES)
def test_no_torn_upload_is_committed(sort: str, shape: str) -> None:
    """Uploads are cancelled or time out at random moments; nothing of theirs is committed, all finished ones are."""
    seen = measure(sort, shape, seed=35, count=SHORT)

    assert len(seen.torn) > SHORT / 2
    assert seen.defects() == []


@pytest.mark.parametrize(("sort", "shape"), [place for place in PLACES if place[0] != "sync"])
def test_bare_grpc_takes_torn_uploads_for_whole(sort: str, shape: str) -> None:
    """The measurement can fail: the handlers of a bare asyncio server commit many a torn upload (quiet: nearly all)."""
    seen = measure(sort, shape, seed=35, count=SHORT, bare=True)

    assert len(seen.taken_for_whole) > 0.2 * len(seen.torn)


def test_the_same_seed_makes_the_same_uploads() -> None:
    """A run can be repeated from its seed; another seed is another run."""
    assert plans(1, 50) == plans(1, 50) != plans(2, 50)
