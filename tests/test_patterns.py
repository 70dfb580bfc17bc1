"""Patterns on the names of methods: what they match, and which are refused because they could match none."""

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose._patterns import Patterns, faults_of, globs_of

GET, PLACE = "/shop.v1.Catalog/GetItem", "/shop.v1.Catalog/PlaceOrder"
CHECK = "/grpc.health.v1.Health/Check"
GREET = "/Greeter/Greet"
ALL = [GET, PLACE, CHECK, GREET]


@pytest.mark.parametrize(
    ("pattern", "methods"),
    [
        ("*", ALL),
        ("/*", ALL),
        ("**", ALL),
        ("/*/*", ALL),
        ("/shop.v1.Catalog/*", [GET, PLACE]),
        ("shop.v1.Catalog/*", [GET, PLACE]),
        ("/shop.*/*", [GET, PLACE]),
        ("*/Check", [CHECK]),
        (GET, [GET]),
        ("/shop.v1.Catalog/Get?tem", [GET]),
        ("/shop.v1.Catalog/[GH]*", [GET]),
        ("/shop.v1.Catalog/{GetItem,PlaceOrder}", [GET, PLACE]),
        ("/{shop.v1.Catalog,Greeter}/G*", [GET, GREET]),
        ("/shop.v1.{Cat{alog,nip},Dog}/*", [GET, PLACE]),
        ("/shop.v1.Catalog/GetItem{,s}", [GET]),
        ("{*}", ALL),
        ("/Greeter/*", [GREET]),
        ("/shop.v1.catalog/*", []),
        ("/Catalog/*", []),
        ([GET, "/Greeter/*"], [GET, GREET]),
        ((), []),
    ],
)
def test_what_they_match(pattern: str | list[str], methods: list[str]) -> None:
    """The whole name, capitals included; several patterns match what one of them does."""
    assert list(filter(Patterns(pattern), ALL)) == methods


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (
            "shop.v1.Catalog.*",
            "names no method: write '/shop.v1.Catalog/*' for all of a service, or '/shop.v1.Catalog.*/*'",
        ),
        ("/shop.v1.Catalog.*", "names no method: write '/shop.v1.Catalog/*'"),
        ("shop.v1.Catalog", "names no method: write '/shop.v1.Catalog/*' for all of a service, or '/shop.v1/Catalog'"),
        ("/shop.v1.Catalog/", "names no method: write '/shop.v1.Catalog/*' for all of a service"),
        ("shop.v1.Catalog.GetItem", "or '/shop.v1.Catalog/GetItem' for one method"),
        ("Catalog", "names no method: write '/Catalog/*'"),
        ("", "names no service: write '/package.Service/Method'"),
        ("/", "names no service"),
        ("//GetItem", "names no service"),
        (
            "/shop.v1.Catalog/{GetItem",
            "has a brace or bracket without its other half: write '/shop.v1.Orders/{Get,List}*'",
        ),
        (
            "/shop.v1.Catalog/GetItem}",
            "has a brace or bracket without its other half: write '/shop.v1.Orders/{Get,List}*'",
        ),
        ("/shop.v1.Catalog/{GetItem,shop.v1.Catalog", "has ',', which is in no name of a method"),
        ("{/a.B/*,c.D}", "names no method: write '/c.D/*'"),
        ("/a.B/C, /a.B/D", "has ',', which is in no name of a method: several patterns are a list"),
        ("/a.B/C /a.B/D", "has ' ', which"),
        (r"^/shop\.v1\.Catalog/.*$", "has '^', which"),
        ("/a.B/(C|D)", "has '(', which"),
        ("http://localhost/a.B/C", "has '://', which"),
        ("!/a.B/C", "has '!', which"),
        ("/a.B/" + "{a,b}" * 9, "stands for more than 256 methods: give a function of the Method"),
        ("/a.B/[GP", "has a brace or bracket without its other half: write '/shop.v1.Orders/{Get,List}*'"),
        (5, "is no text: write '/package.Service/Method'"),
        (b"/a.B/C", "is no text"),
        (None, "is no text"),
    ],
)
def test_what_can_match_nothing_is_refused(pattern: object, said: str) -> None:
    """With what to write instead."""
    (fault,) = faults_of(pattern, "public")

    assert fault.startswith("public ") and said in fault


def test_every_fault_is_listed() -> None:
    """One ValueError names the battery, its field, and all that is wrong."""
    with pytest.raises(ValueError, match=re.escape("Authenticate: public 'a.B' names no method")) as refusal:
        Patterns(["a.B", "/a.B/C", "a b/c"], owner="Authenticate", field="public")

    assert "; public 'a b/c' has ' '" in str(refusal.value)


def test_a_name_without_its_first_slash_is_the_same_method() -> None:
    """Whoever leaves it out of a bare stub does not get past a guard."""
    assert Patterns("/Greeter/*")("Greeter/Greet")


def test_how_they_print() -> None:
    """As they were given."""
    assert repr(Patterns("/a.B/*")) == "'/a.B/*'"
    assert repr(Patterns(("/a.B/*", "/c.D/*"))) == "['/a.B/*', '/c.D/*']"


pieces = st.sampled_from(["a", "B", ".", "*", "?", "[ab]", "{a,B}", "{a,{b,}}"])
parts = st.lists(pieces, min_size=1, max_size=2).map("".join)  # two stand for 81 globs at most; 256 are too many


@given(parts, parts, st.text("abB.", min_size=1, max_size=4), st.text("abB", min_size=1, max_size=4))
def test_braces_are_the_sum_of_their_choices(service: str, name: str, a: str, b: str) -> None:
    """A pattern matches what one of its globs does, each as `fnmatch` understands it."""
    pattern, method = f"/{service}/{name}", f"/{a}/{b}"
    expected = any(fnmatchcase(method, glob) for glob in globs_of(pattern))

    assert not list(faults_of(f"{service}a/{name}a"))
    if not list(faults_of(pattern)):
        assert Patterns(pattern)(method) == expected
