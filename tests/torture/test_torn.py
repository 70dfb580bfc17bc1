"""Torn uploads, the short form: none is taken for a finished one, and every finished one is committed."""

import pytest

from tests.torture.torn import PLACES, Seen, measure, plans

pytestmark = pytest.mark.slow  # hundreds of uploads

SHORT = 200  # uploads per sort of server and shape of handler


@pytest.mark.parametrize(("sort", "shape"), PLACES)
def test_no_torn_upload_is_committed(sort: str, shape: str) -> None:
    """Uploads are cancelled or time out at random moments; nothing of theirs is committed, all finished ones are."""
    seen = measure(sort, shape, seed=35, count=SHORT)

    assert len(seen.torn) > SHORT / 5  # on a busy machine many are torn before they reach a handler
    assert seen.defects() == []


def test_a_torn_upload_that_was_committed_is_a_defect() -> None:
    """The measurement can fail. (How often it does on bare grpc.aio, from never to always, depends on the machine's load.)"""
    seen = Seen(plans(seed=35, count=20))
    torn = next(upload for upload in seen.uploads if upload.torn)
    finished = {upload.number for upload in seen.uploads if not upload.torn}
    seen.begun |= {torn.number}
    seen.ended |= {torn.number}
    seen.committed |= finished

    assert seen.defects() == []
    seen.committed.add(torn.number)
    assert seen.defects() == [f"torn, and committed: {torn}"]


def test_the_same_seed_makes_the_same_uploads() -> None:
    """A run can be repeated from its seed; another seed is another run."""
    assert plans(1, 50) == plans(1, 50) != plans(2, 50)
