"""A log line said "docs/retry.md". Those who installed the package have no such file."""

import re

import pytest

from tests.pages.messages import messages
from website.make import written


@pytest.mark.slow
def test_no_message_names_a_file_of_the_repository() -> None:
    """They name a page of the documentation by its title."""
    assert [
        f"{message.where}: {message.text}" for message in messages() if re.search(r"docs/|\.md\b", message.text)
    ] == []


@pytest.mark.slow
def test_pages_that_messages_name_are_there() -> None:
    """By the title at their top."""
    named = {title for message in messages() for title in re.findall(r'see "(.+?)" in the documentation', message.text)}

    assert named
    assert named <= {page.partition("\n")[0].removeprefix("# ") for page in written().values()}
