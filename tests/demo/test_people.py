"""The people along the route."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc_tools")

from interpose.demo.messages import Person
from interpose.demo.people import People, UnknownPerson


def test_a_person_has_all_that_the_proto_promises() -> None:
    """Name, age, gender, hobbies and a nested address."""
    ada = People().get("Ada")

    assert (ada.name, ada.age, ada.gender) == ("Ada", 36, Person.FEMALE)
    assert list(ada.hobbies) == ["engines", "whist"]
    assert ada.address.city == "London"


def test_an_unknown_person_is_named() -> None:
    """The error says who was asked for."""
    with pytest.raises(UnknownPerson, match="'Nobody'"):
        People().get("Nobody")
