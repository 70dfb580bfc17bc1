"""What is said once about each of many things, and of a bounded number of them."""

from __future__ import annotations


class Once:
    """True for each name the first time that it is asked for; False from then on, and for all names beyond `most`.

    Never keeps more than `most` names, also if many threads ask. It takes no lock, so a finalizer may ask as well.
    """

    __slots__ = ("_names", "_places")

    def __init__(self, most: int) -> None:
        self._names: dict[str, int] = {}
        self._places = list(range(most))  # one is taken for each name: to pop is a single step

    def first(self, name: str) -> bool:
        """Is it asked for the first time?"""
        if name in self._names:
            return False
        try:
            place = self._places.pop()
        except IndexError:
            return False
        if self._names.setdefault(name, place) == place:
            return True
        self._places.append(place)  # another thread was quicker
        return False
