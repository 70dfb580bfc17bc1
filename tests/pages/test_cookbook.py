"""docs/cookbook.md: twenty recipes, each of which shows that it works. tests/test_docs.py runs them."""

from __future__ import annotations

import re

from tests.pages.messages import ROOT

RECIPE = re.compile(r"^### (?P<number>\d+)\. (?P<title>[^\n]+)\n(?P<text>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^```python\n(?:(?!```).*\n)*?assert ", re.MULTILINE)


def test_recipes_are_numbered_and_shown_to_work() -> None:
    """Each has a block of python with an assertion."""
    recipes = list(RECIPE.finditer((ROOT / "docs" / "cookbook.md").read_text("utf-8")))

    assert [int(recipe["number"]) for recipe in recipes] == list(range(1, 21))
    assert [recipe["title"] for recipe in recipes if not SHOWN.search(recipe["text"])] == []
