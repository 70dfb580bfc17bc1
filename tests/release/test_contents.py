"""What `make dist` looks for in archives: a file that is missing is named, and one too many."""

import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.release.contents import SOURCE, faults, main, names, source

WHOLE = {*source(), "interpose-0.1.0.dist-info/licenses/LICENSE"}


def test_the_source_is_more_than_code() -> None:
    """Pages, protos and the marker of types have to be there as well."""
    assert {"interpose/py.typed", "interpose/web/page/page.html", "interpose/demo/protos/delivery.proto"} <= source()


def test_a_whole_archive_has_no_fault() -> None:
    assert faults(WHOLE) == []


def test_what_is_missing_is_named() -> None:
    assert faults(WHOLE - {"interpose/py.typed"}) == ["interpose/py.typed is missing"]


def test_without_a_licence_it_is_not_released() -> None:
    assert faults(source()) == ["LICENSE is missing"]


@pytest.mark.parametrize(
    "stray", ["interpose/demo/generated/a_pb2.py", "interpose/__pycache__/x.pyc", "tests/test_a.py"]
)
def test_what_should_not_be_there_is_named(stray: str) -> None:
    assert faults({*WHOLE, stray}) == [f"{stray} should not be there"]


def test_both_kinds_of_archive_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wheel begins with the package; an sdist has a folder of its own, and the package below src."""
    wheel, sdist = tmp_path / "interpose-0.1.0-py3-none-any.whl", tmp_path / "interpose-0.1.0.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(SOURCE / "interpose/py.typed", "interpose/py.typed")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(SOURCE / "interpose/py.typed", "interpose-0.1.0/src/interpose/py.typed")

    assert names(wheel) == names(sdist) == ["interpose/py.typed"]
    assert main([str(wheel)]) == 1
    assert "expected one wheel and one sdist" in capsys.readouterr().out
