"""The redactor with messages of proto-plus and protobuf-py: it shows of them what it shows of google's, and no secret."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc_tools
import proto
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from grpc_tools import protoc
from protobuf import Registry
from protobuf._file_registry import create_file_registry  # what generated code is made with
from protobuf.wkt import FileDescriptorSet

from interpose.mechanisms.redaction import REDACTED, Redactor
from interpose.mechanisms.runtimes import readable

HERE = Path(__file__).parent
SECRET = "4111-hunter2-4111"
RULES = [(), ("number",), ("card.*",), ("labels.key",), ("pay.v1.Card",), ("wallet.main.owner",), ("extra.a.number",)]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """secrets.proto and what it imports, as descriptors."""
    known = Path(grpc_tools.__file__).parent / "_proto"
    out = tmp_path_factory.mktemp("runtimes") / "secrets.bin"
    arguments = [f"-I{HERE}", f"-I{known}", f"--descriptor_set_out={out}", "--include_imports", "secrets.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    return out.read_bytes()


@pytest.fixture(scope="session")
def pb(compiled: bytes) -> Any:
    """The messages of google's runtime, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"pay.v1.{name}") for name in ("Card", "Order", "Tree")}
    return SimpleNamespace(**{name: message_factory.GetMessageClass(kind) for name, kind in found.items()})


@pytest.fixture(scope="session")
def buf(compiled: bytes) -> Registry:
    """The same of protobuf-py."""
    files = {file.name: file for file in FileDescriptorSet.from_binary(compiled).file}
    return create_file_registry(files["secrets.proto"], files.get)


MARKS = """
syntax = "proto3"; package marks; import "google/protobuf/descriptor.proto";
enum Care { PUBLIC = 0; PRIVATE = 1 [debug_redact = true]; }
message Holder { message Inner { extend google.protobuf.FieldOptions { Care care = 50003; } } }
"""
MARKED = """
syntax = "proto3"; package marked; import "marks.proto";
message Login { string user = 1; string password = 2 [(marks.Holder.Inner.care) = PRIVATE]; }
"""


def test_marks_that_another_file_declares(tmp_path: Path) -> None:
    """Wherever they stand in it: protobuf-py keeps options of other files as unknown fields."""
    (tmp_path / "marks.proto").write_text(MARKS)
    (tmp_path / "marked.proto").write_text(MARKED)
    known, out = Path(grpc_tools.__file__).parent / "_proto", tmp_path / "out.bin"
    arguments = [f"-I{tmp_path}", f"-I{known}", f"--descriptor_set_out={out}", "--include_imports", "marked.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    files = {file.name: file for file in FileDescriptorSet.from_binary(out.read_bytes()).file}
    login = create_file_registry(files["marked.proto"], files.get).message("marked.Login")
    assert login is not None

    assert Redactor()(login.type(user="Jo", password=SECRET)) == {"user": "Jo", "password": REDACTED}


def everything(pb: Any) -> Any:
    """An order with a secret in each place that secrets.proto has, and some that only a rule hides."""
    card = pb.Card(number="42", owner="Jo", pin=SECRET, brand=1, chip=b"abc")
    order = pb.Order(
        amount=2**62,
        weight=float("inf"),
        gift=False,
        card=card,
        spare_cards=[card, pb.Card()],
        labels={"password": "c"},
        wallet={"main": card},
        notes={7: "seven"},
        sizes=[1, 2],
        other_card=card,
        hidden_card=pb.Card(number=SECRET),
        hidden_labels={SECRET: SECRET},
        hidden_list=[SECRET],
        by_option=SECRET,
        by_message_option=SECRET,
        by_map_option=SECRET,
        in_the_open="open",
        text="text",
        parcel=pb.Order.Parcel(address="here", door_code=SECRET),
        flags={True: 1},
    )
    order.detail.type_url = "t/pay.v1.Unheard"
    order.detail.value = SECRET.encode()
    extra = struct_pb2.Struct()
    extra.update({"a": {"number": "5"}, "list": [1, None, "x"]})
    order.extra.MergeFromString(extra.SerializeToString())
    return order


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_protobuf_py_is_shown_as_google_s_is(pb: Any, buf: Registry, rules: tuple[str, ...]) -> None:
    """The same names, and the same secrets are hidden: by `debug_redact`, by options with that mark, and by rules."""
    order, kind = everything(pb), buf.message("pay.v1.Order")
    assert kind is not None

    shown = Redactor(*rules)(kind.type.from_binary(order.SerializeToString()))

    assert shown == Redactor(*rules)(order)
    assert SECRET not in json.dumps(shown)


def test_marks_are_found_in_a_pool_of_its_own(pb: Any) -> None:
    """Of google's runtime too: a message from another pool than the default one may have custom options."""
    shown = Redactor()(pb.Order(by_option=SECRET, by_message_option=SECRET, by_map_option=SECRET, text="text"))

    assert shown == dict.fromkeys(("by_option", "by_message_option", "by_map_option"), REDACTED) | {"text": "text"}


def test_what_is_of_protobuf_py_alone(pb: Any, buf: Registry) -> None:
    """Unknown enum values are numbers; a message that holds itself is bounded; extensions are not shown."""
    card, tree = buf.message("pay.v1.Card"), buf.message("pay.v1.Tree")
    passphrase = buf.extension("pay.v1.passphrase")
    assert card is not None and tree is not None and passphrase is not None
    secret = card.type(owner="Jo")
    secret[passphrase.type] = SECRET
    deep = tree.type(leaf="x")
    for _ in range(6):
        deep = tree.type(branches=[deep] * 8, named={"a": deep})

    assert Redactor()(secret) == {"owner": "Jo"}
    assert len(json.dumps(Redactor(max_bytes=1000)(deep))) <= 1000


def test_views_of_the_same_descriptor_are_equal(buf: Registry) -> None:
    """So what is compiled for a type is found again, and there is a bound on it."""
    kind = buf.message("pay.v1.Card")
    assert kind is not None
    redactor = Redactor("number")

    for _ in range(3):
        redactor(kind.type(number="1"))

    assert len(redactor._rules._plans) == 1


def test_proto_plus_is_shown_as_google_s_is() -> None:
    """It wraps google's messages: those are read."""

    class Card(proto.Message):  # type: ignore[misc]  # untyped
        number = proto.Field(proto.STRING, number=1)
        owner = proto.Field(proto.STRING, number=2)

    assert Redactor("number")(Card(number=SECRET, owner="Jo")) == {"number": REDACTED, "owner": "Jo"}


@pytest.mark.parametrize("value", [5, "text", b"bytes", None, object(), SimpleNamespace(desc=1)])
def test_what_is_no_message(value: Any) -> None:
    """Is shown by its type."""
    assert readable(value) is None


def test_nothing_is_imported() -> None:
    """Whoever uses another runtime, or none, does not load these."""
    program = (
        "import sys; from interpose.interceptors import Redactor; print(Redactor()('x'));"
        "assert not {'google', 'proto', 'protobuf'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout.strip(), done.stderr) == ("<str, 1>", "")
