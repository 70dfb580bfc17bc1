"""The people along the route."""

from __future__ import annotations

from interpose.demo.messages import Person


class UnknownPerson(LookupError):
    """There is no person of that name; NOT_FOUND on the wire."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no person is called {name[:64]!r}")


class People:
    """Answers who somebody is. Holds no state that changes, so threads and tasks may share it."""

    def __init__(self) -> None:
        self._by_name = {person.name: person for person in _residents()}

    def get(self, name: str) -> Person:
        """The person called `name`, or `UnknownPerson`."""
        if name not in self._by_name:
            raise UnknownPerson(name)
        return self._by_name[name]


def _residents() -> list[Person]:
    return [
        Person(
            name="Ada",
            age=36,
            gender=Person.FEMALE,
            hobbies=["engines", "whist"],
            address=Person.Address(street="12 St James's Square", city="London", country="GB"),
        ),
        Person(
            name="Konrad",
            age=41,
            gender=Person.MALE,
            hobbies=["painting", "gliders", "relays"],
            address=Person.Address(street="Methfesselstrasse 10", city="Berlin", country="DE"),
        ),
        Person(
            name="Grace",
            age=85,
            gender=Person.FEMALE,
            hobbies=["clocks", "nanoseconds"],
            address=Person.Address(street="1 River House", city="Arlington", country="US"),
        ),
        Person(
            name="Sam",
            age=29,
            gender=Person.OTHER,
            address=Person.Address(street="Kanaalweg 3", city="Utrecht", country="NL"),
        ),
    ]
