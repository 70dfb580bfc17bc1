"""`interpose list` and `interpose describe`: what a server has, by reflection or by a proto."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import HERE, Ended, Served
from tests.cli.till import SERVICE

Run = Callable[..., Ended]


def test_services(served: Served, run: Run) -> None:
    """All of the server's, one in a line."""
    ended = run("list", served.target)

    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == ["grpc.reflection.v1alpha.ServerReflection", SERVICE]


def test_methods(shop: Served, run: Run) -> None:
    """Those of a service, as `call` takes them; as JSON too."""
    names = [f"{SERVICE}/{name}" for name in ("Ring", "Watch", "Sum", "Trade", "Price")]

    assert run("list", shop.target, SERVICE).out.splitlines() == names
    assert json.loads(run("list", shop.target, SERVICE, "--json").out) == names


def test_services_of_a_proto(run: Run) -> None:
    """No server is asked."""
    ended = run("list", "127.0.0.1:1", "--proto", HERE / "till.proto")

    assert (ended.status, ended.out) == (0, f"{SERVICE}\n")


DESCRIBED = {
    f"{SERVICE}/Trade": f"""\
// of service {SERVICE}
rpc Trade(stream interpose.till.Item) returns (stream interpose.till.Receipt);
""",
    f"{SERVICE}.Price": f"""\
// of service {SERVICE}
rpc Price(interpose.till.Item) returns (interpose.till.Receipt) {{ option idempotency_level = NO_SIDE_EFFECTS; }}
""",
    "interpose.till.Size": """\
enum interpose.till.Size {
  SIZE_UNSPECIFIED = 0;
  SMALL = 1;
  LARGE = 2;
}
""",
    "interpose.till.Item": """\
message interpose.till.Item {
  string name = 1;
  int32 count = 2;
  repeated interpose.till.Item.Part parts = 3;
  map<string, interpose.till.Item.Part> spares = 4;
  interpose.till.Size size = 5;
  google.protobuf.Timestamp made_at = 6;
  oneof payment {
    int64 cash = 7;
    string voucher = 8 [debug_redact = true];
  }
  google.protobuf.Any extra = 9;
  optional string note = 10 [deprecated = true];
}
""",
    "interpose.till.Nothing": "message interpose.till.Nothing {}\n",
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_descriptions(shop: Served, run: Run, name: str) -> None:
    """As a proto has them, with full names."""
    ended = run("describe", shop.target, name)

    assert (ended.status, ended.out) == (0, DESCRIBED[name])


def test_all_services_are_described(shop: Served, run: Run) -> None:
    """Without a name."""
    out = run("describe", shop.target).out

    assert f"service {SERVICE} {{\n  rpc Ring(interpose.till.Item) returns (interpose.till.Receipt);\n" in out
    assert "service grpc.reflection.v1alpha.ServerReflection {" in out


@pytest.mark.parametrize("name", [SERVICE, f"{SERVICE}/Ring", "interpose.till.Item", "interpose.till.Size"])
def test_descriptions_as_json(run: Run, name: str) -> None:
    """Protobuf's own descriptor."""
    described = json.loads(run("describe", "127.0.0.1:1", name, "--json", "--proto", HERE / "till.proto").out)

    assert described["fullName"] == name.replace("/", ".")
    assert {"method", "inputType", "field", "value"} & described.keys()


def test_a_name_that_is_nothing(shop: Served, run: Run) -> None:
    """One line, with what may have been meant."""
    ended = run("describe", shop.target, "interpose.till.Til")

    assert ended.status == 2
    assert ended.err == (
        "interpose describe: there is no service, method, message or enum interpose.till.Til; "
        f"did you mean {SERVICE}?\n"
    )


def test_a_server_that_is_not_there(run: Run) -> None:
    """The same status as for a call."""
    ended = run("list", "127.0.0.1:1")

    assert ended.status == 78
    assert "127.0.0.1:1 cannot be reached" in ended.err
