"""Protos become Python once, again when they change, and elsewhere when the package cannot be written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interpose.demo import generate

grpc_tools = pytest.importorskip("grpc_tools")


def test_both_services_are_generated(tmp_path: Path) -> None:
    """Each proto gives its messages and its stubs, and they import each other by the real package's name."""
    folder = generate.ensure(tmp_path)

    assert folder == tmp_path / "generated"
    names = {path.name for path in folder.iterdir()}
    for proto in ("route_guide", "order_management"):
        assert {f"{proto}_pb2.py", f"{proto}_pb2_grpc.py"} <= names
        assert "from interpose.demo.generated import" in (folder / f"{proto}_pb2_grpc.py").read_text()


def test_nothing_is_generated_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh code is taken as it is, so the second start needs no compiler."""
    folder = generate.ensure(tmp_path)
    monkeypatch.setitem(sys.modules, "grpc_tools", None)

    assert generate.ensure(tmp_path) == folder


def test_changed_protos_are_generated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that was made from other protos, or for another protobuf, is replaced."""
    folder = generate.ensure(tmp_path)
    stub = folder / "route_guide_pb2.py"
    stub.write_text("stale")
    monkeypatch.setattr(generate, "fingerprint", lambda: "another")

    assert not generate.is_fresh(folder)
    generate.ensure(tmp_path)
    assert generate.is_fresh(folder)
    assert stub.read_text() != "stale"


def test_a_package_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    """The code then goes to a temporary folder."""
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    folder = generate.ensure(not_a_folder)

    assert tmp_path not in folder.parents
    assert generate.is_fresh(folder)


def test_without_grpcio_tools_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text holds the line to paste into a shell."""
    monkeypatch.setitem(sys.modules, "grpc_tools", None)

    with pytest.raises(generate.GenerationError, match=r'pip install "interpose\[demo\]"'):
        generate.ensure(tmp_path)
