"""The redactor: what of a message may be shown, and that a secret never is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, empty_pb2, struct_pb2, type_pb2, wrappers_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interpose.mechanisms.redaction import MAX_PLANS, MAX_TEXT, REDACTED, Redactor

HERE = Path(__file__).parent
SECRET = "4111-hunter2-4111"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `secrets_pb2.py`."""
    import grpc_tools
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("secrets")
    known = Path(grpc_tools.__file__).parent / "_proto"
    assert protoc.main(["protoc", f"-I{HERE}", f"-I{known}", f"--python_out={folder}", "secrets.proto"]) == 0
    return folder


@pytest.fixture(scope="session")
def pb(home: Path) -> ModuleType:
    """The messages of secrets.proto."""
    sys.path.insert(0, str(home))
    try:
        return __import__("secrets_pb2")
    finally:
        sys.path.remove(str(home))


def packed(message: Any) -> any_pb2.Any:
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


def test_what_is_no_secret_is_shown(pb: Any) -> None:
    """With the names of the proto, enums by name, bytes by size; fields that are not set are not shown."""
    order = pb.Order(
        amount=2**62,
        weight=1.5,
        gift=False,
        card=pb.Card(number="1", brand=pb.VISTA, chip=b"abc"),
        spare_cards=[pb.Card(owner="Jo"), pb.Card()],
        labels={"a": "b"},
        wallet={"main": pb.Card(owner="Em")},
        notes={7: "seven"},
        sizes=[1, 2],
        token="t",
        in_the_open="x",
    )

    assert Redactor()(order) == {
        "amount": 2**62,
        "weight": 1.5,
        "gift": False,
        "card": {"number": "1", "brand": "VISTA", "chip": "<bytes, 3>"},
        "spare_cards": [{"owner": "Jo"}, {}],
        "labels": {"a": "b"},
        "wallet": {"main": {"owner": "Em"}},
        "notes": {"7": "seven"},
        "sizes": [1, 2],
        "token": "t",
        "in_the_open": "x",
    }


def everything(pb: Any) -> Any:
    """A message with a secret wherever its proto marks one."""
    card = pb.Card(pin=SECRET)
    card.Extensions[pb.passphrase] = SECRET
    return pb.Order(
        card=card,
        spare_cards=[card],
        wallet={"main": card},
        other_card=card,
        detail=packed(card),
        more=[packed(pb.Order(detail=packed(card)))],
        hidden_card=pb.Card(number=SECRET),
        hidden_labels={SECRET: SECRET},
        hidden_list=[SECRET],
        by_option=SECRET,
        by_message_option=SECRET,
        by_map_option=SECRET,
        parcel=pb.Order.Parcel(address="here", door_code=SECRET),
    )


def test_what_the_proto_marks_is_hidden(pb: Any) -> None:
    """By `debug_redact` of the field, or of the enum value in one of its options; in every place."""
    card = {"pin": REDACTED, "[pay.v1.passphrase]": REDACTED}

    shown = Redactor()(everything(pb))

    opened = {"@type": "type.googleapis.com/pay.v1.Card", "value": card}
    assert shown == {
        "card": card,
        "spare_cards": [card],
        "wallet": {"main": card},
        "other_card": card,
        "detail": opened,
        "more": [{"@type": "type.googleapis.com/pay.v1.Order", "value": {"detail": opened}}],
        "hidden_card": REDACTED,
        "hidden_labels": REDACTED,
        "hidden_list": REDACTED,
        "by_option": REDACTED,
        "by_message_option": REDACTED,
        "by_map_option": REDACTED,
        "parcel": {"address": "here", "door_code": REDACTED},
    }


@pytest.mark.parametrize(
    ("rule", "hidden"),
    [
        ("number", {"card", "spare", "wallet", "any", "tree"}),
        ("*.number", {"card", "spare", "wallet", "any", "tree"}),
        ("card.number", {"card", "spare", "wallet", "any"}),
        ("card.*", {"card", "spare", "wallet", "any"}),
        ("*.card.number", {"card", "spare", "wallet", "any"}),
        ("spare_cards.number", {"spare"}),
        ("spareCards.Number", {"spare"}),
        ("wallet.number", {"wallet"}),
        ("wallet.main.number", {"wallet"}),
        ("wallet.value.number", {"wallet"}),
        ("main", {"wallet"}),
        ("detail.number", {"any"}),
        ("pay.v1.Card.number", {"card", "spare", "wallet", "any"}),
        ("Card.number", {"card", "spare", "wallet", "any"}),
        ("v1.*.number", {"card", "spare", "wallet", "any"}),
        ("pay.v1.Card", {"card", "spare", "wallet", "any"}),
        ("extra.a.number", {"tree"}),
        ("a.number", {"tree"}),
        ("card", {"card"}),
        ("order.card", {"card"}),
        ("*", {"card", "spare", "wallet", "any", "tree"}),
        ("umber", set()),
        ("pay.v2.Card.number", set()),
    ],
)
def test_a_rule_hides_what_ends_with_it(pb: Any, rule: str, hidden: set[str]) -> None:
    """A path from anywhere, or the full name of a field or of a message type."""
    extra = struct_pb2.Struct()
    extra.update({"a": {"number": "tree " + SECRET}})
    order = pb.Order(
        card=pb.Card(number="card " + SECRET),
        spare_cards=[pb.Card(number="spare " + SECRET)],
        wallet={"main": pb.Card(number="wallet " + SECRET)},
        detail=packed(pb.Card(number="any " + SECRET)),
        extra=extra,
    )

    shown = json.dumps(Redactor(rule)(order))

    seen = {name for name in ("card", "spare", "wallet", "any", "tree") if f"{name} {SECRET}" in shown}
    assert seen == {"card", "spare", "wallet", "any", "tree"} - hidden


@pytest.mark.parametrize(
    ("rules", "labels"),
    [
        (("password",), {"Pass-Word": REDACTED, "x": "y"}),
        (("labels.value",), {"Pass-Word": REDACTED, "x": REDACTED}),
        (("labels.key",), {"[REDACTED 1]": SECRET, "[REDACTED 2]": "y"}),
        (("labels.*",), {"[REDACTED 1]": REDACTED, "[REDACTED 2]": REDACTED}),
        (("labels",), REDACTED),
    ],
)
def test_keys_and_values_of_maps(pb: Any, rules: tuple[str, ...], labels: Any) -> None:
    """A text key is a name; `key` and `value` name all keys and all values."""
    shown = Redactor(*rules)(pb.Order(labels={"Pass-Word": SECRET, "x": "y"}))["labels"]

    if rules == ("labels.key",):
        assert sorted(shown.values()) == sorted(labels.values()) and shown.keys() == labels.keys()
    else:
        assert shown == labels


def test_a_message_that_is_hidden_as_a_whole(pb: Any) -> None:
    """By the full name of its type."""
    assert Redactor("pay.v1.Card")(pb.Card(number=SECRET)) == REDACTED


def test_extensions_have_rules_too(pb: Any) -> None:
    """By name, and by full name."""
    card = pb.Card()
    card.Extensions[pb.nick] = SECRET

    assert Redactor("nick")(card) == Redactor("pay.v1.nick")(card) == {"[pay.v1.nick]": REDACTED}
    assert Redactor()(card) == {"[pay.v1.nick]": SECRET}


def test_an_any_that_is_not_known_here(pb: Any) -> None:
    """Its type and size, as also for one that cannot be read."""
    unknown = any_pb2.Any(type_url="example.org/pay.v1.Unheard", value=SECRET.encode())
    broken = any_pb2.Any(type_url="t/pay.v1.Card", value=b"\xff" + SECRET.encode())

    shown = Redactor()(pb.Order(more=[unknown, broken, any_pb2.Any()]))

    assert shown == {
        "more": [
            {"@type": "example.org/pay.v1.Unheard", "value": "<bytes, 17>"},
            {"@type": "t/pay.v1.Card", "value": "<bytes, 18>"},
            {"@type": "", "value": "<bytes, 0>"},
        ]
    }


def test_an_any_that_is_long_is_not_opened(pb: Any) -> None:
    """What would be cut is not worth the work."""
    shown = Redactor(max_bytes=256)(pb.Order(detail=packed(pb.Order(labels={"a": "x" * 300}))))

    assert shown["detail"]["value"].startswith("<bytes, 3")


def test_an_any_by_rule(pb: Any) -> None:
    """Its own fields may be named."""
    order = pb.Order(detail=packed(pb.Card(owner="Jo")))

    assert Redactor("detail.value")(order)["detail"] == {"@type": "type.googleapis.com/pay.v1.Card", "value": REDACTED}
    assert Redactor("type_url")(order)["detail"] == {"@type": REDACTED, "value": {"owner": "Jo"}}
    assert Redactor("google.protobuf.Any")(order)["detail"] == REDACTED


def test_unknown_fields_are_not_shown(pb: Any) -> None:
    """What a newer peer sends may be a secret."""
    newer = pb.Order(token=SECRET, amount=3).SerializeToString()

    assert Redactor()(empty_pb2.Empty.FromString(newer)) == {}


def test_an_enum_value_that_is_not_known_is_a_number() -> None:
    """Open enums may hold any."""
    assert Redactor()(type_pb2.Field(kind=99)) == {"kind": 99}


@pytest.mark.parametrize(("number", "shown"), [("inf", "Infinity"), ("-inf", "-Infinity"), ("nan", "NaN")])
def test_numbers_that_json_has_not(number: str, shown: str) -> None:
    """Are written as protobuf's own JSON does."""
    assert Redactor()(wrappers_pb2.DoubleValue(value=float(number))) == {"value": shown}


def test_keys_that_are_no_text(pb: Any) -> None:
    """Numbers as digits, flags as JSON writes them; they are no names."""
    order = pb.Order(notes={7: "n", 8: "m"}, flags={True: 1})

    assert Redactor("true")(order) == {"notes": {"7": "n", "8": "m"}, "flags": {"true": 1}}


# --- size -----------------------------------------------------------------------------------------------------------


def deep(pb: Any, levels: int) -> Any:
    tree = pb.Tree(leaf="end", sap=SECRET)
    for _ in range(levels):
        tree = pb.Tree(branches=[tree], sap=SECRET)
    return tree


def test_recursion_ends(pb: Any) -> None:
    """A message that holds itself is shown to `max_depth` levels."""
    assert Redactor(max_depth=2)(deep(pb, 5)) == {
        "sap": REDACTED,
        "branches": [{"sap": REDACTED, "branches": ["…"]}],
    }
    assert SECRET not in json.dumps(Redactor()(deep(pb, 90)))


def test_rules_reach_into_recursion(pb: Any) -> None:
    """However deep: what a rule has matched so far is all that is kept of a path."""
    redactor = Redactor("named.leaf", "branches.branches.leaf")
    tree = pb.Tree(leaf="1", named={"a": pb.Tree(leaf=SECRET)}, branches=[pb.Tree(leaf="2", branches=[deep(pb, 0)])])

    shown = json.dumps(redactor(tree))

    assert SECRET not in shown
    assert ('"leaf": "1"' in shown, '"leaf": "2"' in shown, "end" in shown) == (True, True, False)


def test_a_long_text_is_cut() -> None:
    """Beside the mark of a cut; the fields behind it are shown."""
    option = type_pb2.Option(name="x" * 5000, value=any_pb2.Any(type_url="t"))

    shown = Redactor()(option)

    assert shown["name"] == "x" * MAX_TEXT + "…"
    assert shown["value"]["@type"] == "t"


def test_what_is_beyond_the_size_is_left_out(pb: Any) -> None:
    """And "…" says so, once."""
    shown = Redactor(max_bytes=128)(pb.Order(amount=1, sizes=range(1000), token="t"))

    assert shown["amount"] == 1
    assert shown["sizes"] == list(range(len(shown["sizes"])))
    assert shown["…"] == "cut"
    assert list(shown) == ["amount", "sizes", "…"]


def test_wide_and_deep_is_bounded(pb: Any) -> None:
    """A tree of a million leaves costs no more than its first part."""
    tree = pb.Tree(leaf="x")
    for _ in range(6):
        tree = pb.Tree(branches=[tree] * 8)

    assert len(json.dumps(Redactor(max_bytes=1000)(tree))) <= 1000


def messages(pb: Any) -> st.SearchStrategy[Any]:
    """Orders of all shapes, with texts that need escapes."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    cards = st.builds(pb.Card, number=text, owner=st.just(SECRET), pin=st.just(SECRET), chip=st.binary(max_size=9))
    inner = st.builds(pb.Order, text=text, labels=st.dictionaries(text, text, max_size=5), card=cards)
    return st.builds(
        pb.Order,
        text=text,
        amount=st.integers(-(2**63), 2**63 - 1),
        weight=st.floats(),
        card=cards,
        spare_cards=st.lists(cards, max_size=4),
        wallet=st.dictionaries(text, cards, max_size=4),
        detail=st.one_of(st.builds(packed, inner), st.builds(any_pb2.Any, type_url=text, value=st.binary(max_size=9))),
        hidden_labels=st.dictionaries(st.just(SECRET), text, max_size=2),
    )


@given(data=st.data(), max_bytes=st.integers(64, 700))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_never_longer_and_never_a_secret(pb: Any, data: st.DataObject, max_bytes: int) -> None:
    """Whatever the message and the size: the JSON is within it, can be read back, and holds no secret."""
    message = data.draw(messages(pb))

    shown = json.dumps(Redactor("owner", max_bytes=max_bytes)(message), allow_nan=False)

    assert len(shown) <= max_bytes
    assert SECRET not in shown
    assert isinstance(json.loads(shown), dict)


# --- other things ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SECRET, "<str, 17>"),
        (SECRET.encode(), "<bytes, 17>"),
        (None, "<NoneType>"),
        ([SECRET], "<list, 1>"),
        (SimpleNamespace(DESCRIPTOR=SECRET), "<types.SimpleNamespace>"),
    ],
)
def test_what_is_no_protobuf_message(value: Any, shown: str) -> None:
    """Its type, and its length if it has one."""
    assert Redactor()(value) == shown


def test_a_broken_length() -> None:
    """Is none."""

    class Odd:
        def __len__(self) -> int:
            raise RuntimeError(SECRET)

    assert "Odd" in Redactor()(Odd())
    assert SECRET not in Redactor()(Odd())


def test_without_protobuf() -> None:
    """Where the application has not imported it there is no message of it, nor is it imported."""
    program = """
import sys
from interpose.mechanisms.redaction import Redactor
assert Redactor("a")(b"abc") == "<bytes, 3>"
assert not [name for name in sys.modules if name.startswith("google")]
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr


def test_an_any_where_no_class_can_be_made(pb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the module of protobuf that makes classes, its type and size."""
    monkeypatch.delitem(sys.modules, "google.protobuf.message_factory")

    assert Redactor()(packed(pb.Card(owner="Jo")))["value"] == "<bytes, 4>"


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["python", "upb"])
def test_each_implementation_of_protobuf(home: Path, pb: Any, implementation: str) -> None:
    """The one in Python shows the same as the one in C."""
    order = everything(pb)
    order.labels["password"] = SECRET
    program = """
import json, sys
import secrets_pb2
from google.protobuf.internal import api_implementation
from interpose.mechanisms.redaction import Redactor
order = secrets_pb2.Order.FromString(sys.stdin.buffer.read())
print(api_implementation.Type())
print(json.dumps(Redactor("password")(order), sort_keys=True))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=order.SerializeToString(),
        env={**os.environ, "PYTHONPATH": str(home), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        check=False,
        capture_output=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr.decode()
    kind, shown = done.stdout.decode().splitlines()
    assert kind == implementation
    assert json.loads(shown) == Redactor("password")(order)


def test_before_protobuf_6() -> None:
    """Fields had a `label` then."""
    from interpose.mechanisms.redaction import _is_repeated

    assert _is_repeated(SimpleNamespace(label=3))
    assert not _is_repeated(SimpleNamespace(label=1))


def test_compiled_once_for_each_type(pb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second message of a type is shown by what was found for the first."""
    from interpose.mechanisms import redaction

    asked: list[Any] = []
    mark: Callable[..., bool] = redaction.is_marked
    monkeypatch.setattr(redaction, "is_marked", lambda options, depth=0: asked.append(options) or mark(options, depth))
    redactor = Redactor("number")
    order = pb.Order(card=pb.Card(pin="1"), labels={"a": "b"})

    redactor(order)
    first = len(asked)
    redactor(order)

    assert first == len(asked) > 0


def test_what_is_compiled_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that makes message types as it runs does not fill the memory."""
    from interpose.mechanisms import redaction

    monkeypatch.setattr(redaction, "MAX_PLANS", 4)
    redactor = Redactor()

    for kind in descriptor_pb2.DESCRIPTOR.message_types_by_name.values():
        redactor(kind._concrete_class())

    assert MAX_PLANS > 4
    assert len(redactor._rules._plans) <= 4


def test_options_that_nest_without_end() -> None:
    """Are taken for a mark: what cannot be judged is not shown."""
    from interpose.mechanisms.redaction import is_marked

    option = SimpleNamespace(enum_type=None, is_repeated=False)
    option.message_type = SimpleNamespace(GetOptions=lambda: SimpleNamespace(map_entry=False))
    options = SimpleNamespace()
    options.ListFields = lambda: [(option, options)]

    assert is_marked(options)


@pytest.mark.parametrize(
    ("rules", "options", "complaint"),
    [
        (("",), {}, "a rule is made of names joined by dots, like 'card.number' or .*, not ''"),
        (("a..b",), {}, "not 'a..b'"),
        (("a b",), {}, "not 'a b'"),
        (("**",), {}, "not '\\*\\*'"),
        ((7,), {}, "not 7"),
        ((["a", "b"],), {}, r"not \['a', 'b'\]"),
        ((), {"max_bytes": 1}, "max_bytes must be a whole number from 64, not 1"),
        ((), {"max_depth": 0}, "max_depth must be a whole number from 1 to 100, not 0"),
        ((), {"max_depth": 101}, "not 101"),
        ((), {"max_depth": True, "max_bytes": True}, "max_bytes .*; max_depth .*"),
    ],
)
def test_options_that_make_no_sense_are_refused(rules: Any, options: Any, complaint: str) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^Redactor: .*{complaint}"):
        Redactor(*rules, **options)
