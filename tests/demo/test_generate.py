"""Protos become Python once, again when they change, and elsewhere when the package cannot be written."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from interpose import demo
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


def test_code_is_loaded_from_where_it_was_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a temporary folder too, which is put on the package's path once."""
    generated, name = "interpose.demo.generated", "interpose.demo.generated.route_guide_pb2"
    before = generate.load("route_guide_pb2")
    folder = generate.ensure(tmp_path)
    monkeypatch.setattr(generate, "_ensured", lambda: folder)
    monkeypatch.setattr(demo, "__path__", list(demo.__path__))
    monkeypatch.setattr(demo, "generated", sys.modules[generated])  # the import below sets it anew
    for module in [module for module in sys.modules if module.startswith(generated)]:
        monkeypatch.delitem(sys.modules, module)

    loaded, again = generate.load("route_guide_pb2"), generate.load("route_guide_pb2")

    assert loaded is again is sys.modules[name] is not before
    assert loaded.__file__ == str(folder / "route_guide_pb2.py")
    assert demo.__path__.count(str(tmp_path)) == 1


def test_protos_that_do_not_compile_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error says where they are, and the compiler what it thinks of them."""
    protos = tmp_path / "protos"
    protos.mkdir()
    (protos / "broken.proto").write_text("this is no proto")
    monkeypatch.setattr(generate, "PROTOS", protos)

    with pytest.raises(generate.GenerationError, match=r"protoc ended with status 1 on .*protos"):
        generate.ensure(tmp_path)

    assert "broken.proto" in capfd.readouterr().err
    assert not (tmp_path / "generated").exists()


def test_a_module_that_cannot_be_placed_leaves_no_draft(tmp_path: Path) -> None:
    """What was written beside it is taken away."""
    (tmp_path / "module.py").mkdir()

    with pytest.raises(OSError, match=r"module\.py"):
        generate._place(tmp_path / "module.py", "text")

    assert [path.name for path in tmp_path.iterdir()] == ["module.py"]


def test_the_command_says_where_the_code_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdout, for a shell to use."""
    monkeypatch.setattr(generate, "_ensured", lambda: tmp_path / "generated")

    generate.main()

    assert capsys.readouterr().out == f"{tmp_path / 'generated'}\n"


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with one line, not with a traceback."""

    def ensured() -> Path:
        raise generate.GenerationError("no compiler")

    monkeypatch.setattr(generate, "_ensured", ensured)

    with pytest.raises(SystemExit, match=r"^interpose\.demo: no compiler$"):
        generate.main()


def test_without_rich_errors_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the compiler, when the messages are imported."""
    file = Path(generate.__file__).with_name("messages.py")
    monkeypatch.setitem(sys.modules, "google.rpc.error_details_pb2", None)

    with pytest.raises(generate.GenerationError, match=r'googleapis-common-protos: pip install "interpose\[demo\]"'):
        runpy.run_path(str(file))
